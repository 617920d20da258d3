"""One load or fifty, in order of receivedAt: the same digests. And through the command line."""

import datetime as dt
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from personas_dagster import refresh
from personas_dagster.digests import TRAITS, covered, digests
from personas_dagster.identity.loads import GRAPH_TABLES
from personas_dagster.lake.tables import TABLES
from personas_dagster.samples import shop
from personas_dagster.spaces import Space
from tests.place import NOW, Place

AS_OF = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
ORDERS = "event('Order Completed')"
DEFINITIONS = {
    "computed_traits/revenue": f"{ORDERS}.sum(property('revenue'))",
    "computed_traits/orders_30": f"{ORDERS}.within(30 days).count()",
    "computed_traits/favourite": "event('Product Viewed').mode(property('category'), 2)",
    "computed_traits/account_revenue": (
        f"collection: accounts\nquery: {ORDERS}.sum(property('revenue'))\n"
    ),
    "audiences/buyers": f"{ORDERS}.within(30 days).count() >= 1",
    "audiences/rich": "trait('revenue') >= 100 AND trait('marketing_opt_in') = true",
}


def compute(place: Place, space: Space, as_of: dt.datetime) -> Space:
    """The stages after identity."""
    place.runs += 1
    this = refresh.begin(space, run_id=f"run-{place.runs}", now=NOW, as_of=as_of)
    refresh.custom_traits(space, this)
    refresh.compute_definitions(space, this)
    refresh.finish(space, this, now=NOW)
    return space


def loaded(place: Place, *files: Path, each: bool, as_of: dt.datetime) -> Space:
    """All files in one load, or each in a load of its own; then one compute."""
    place.define(DEFINITIONS)
    space = place.space
    if each:
        for file in files:
            place.take(file, space=space)
    else:
        place.take(*files, space=space)
    return compute(place, space, as_of)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A mini world, in 50 files in order of receivedAt."""
    folder = tmp_path_factory.mktemp("world")
    days = shop.write(folder / "days", people=150)
    lines = b"".join(gzip.decompress(day.read_bytes()) for day in days).splitlines(keepends=True)
    return parts(lines, folder)


def parts(lines: list[bytes], folder: Path, count: int = 50) -> list[Path]:
    size = -(-len(lines) // count)
    files = []
    for number in range(0, len(lines), size):
        file = folder / f"part-{number:06}.jsonl"
        file.write_bytes(b"".join(lines[number : number + size]))
        files.append(file)
    return files


@pytest.fixture(scope="module")
def at_once(new_place: Callable[[], Place], world: list[Path]) -> Space:
    return loaded(new_place(), *world, each=False, as_of=AS_OF)


def test_every_table_has_a_digest(at_once: Space) -> None:
    found = digests(at_once)
    assert set(found) == covered() == {n for n in TABLES if not n.startswith("candidate_")}
    empty = {name for name, value in found.items() if set(value) == {"0"}}
    histories = {"trait_history", "audience_history", "history_sizes"}
    assert empty == {"sql_traits", "ledger", *histories}


def test_same_world_twice(
    at_once: Space, new_place: Callable[[], Place], world: list[Path]
) -> None:
    assert digests(loaded(new_place(), *world, each=False, as_of=AS_OF)) == digests(at_once)


@pytest.mark.slow
def test_ten_loads(
    at_once: Space, new_place: Callable[[], Place], world: list[Path], tmp_path: Path
) -> None:
    lines = b"".join(file.read_bytes() for file in world).splitlines(keepends=True)
    files = parts(lines, tmp_path, count=10)
    assert digests(loaded(new_place(), *files, each=True, as_of=AS_OF)) == digests(at_once)


@pytest.mark.slow
def test_refreshes_in_between(
    at_once: Space, new_place: Callable[[], Place], world: list[Path]
) -> None:
    """Refreshes on the way leave their own history, but the same graph, values and members."""
    place = new_place()
    place.define(DEFINITIONS)
    space = place.space
    assert len(world) == 50
    for number, file in enumerate(world):
        place.take(file, space=space)
        if number % 10 == 9:
            compute(place, space, AS_OF - dt.timedelta(days=49 - number))
    found, wanted = digests(compute(place, space, AS_OF)), digests(at_once)
    for name in ("raw_events", "rejected_events", "events", *GRAPH_TABLES, *TRAITS):
        assert found[name] == wanted[name], name
    assert members(space) == members(at_once)


def members(space: Space) -> list[tuple[str, str]]:
    with space.session() as session:
        rows = session.fetch("SELECT audience, profile_id FROM members ORDER BY ALL").to_pylist()
    return [(row["audience"], row["profile_id"]) for row in rows]


@pytest.mark.slow
def test_ecom_in_fifty_loads(
    new_place: Callable[[], Place], real_data: Path, tmp_path: Path
) -> None:
    lines = gzip.decompress((real_data / "ecom.jsonl.gz").read_bytes()).splitlines(keepends=True)
    lines.sort(key=lambda line: json.loads(line)["receivedAt"])
    files, as_of = parts(lines, tmp_path), dt.datetime(2024, 7, 1, tzinfo=dt.UTC)
    once = loaded(new_place(), real_data / "ecom.jsonl.gz", each=False, as_of=as_of)
    assert digests(loaded(new_place(), *files, each=True, as_of=as_of)) == digests(once)


@pytest.mark.slow
def test_ecom_through_the_command_line(new_place: Callable[[], Place], real_data: Path) -> None:
    truth = json.loads((real_data / "ecom.truth.json").read_text())
    place = new_place()
    place.define({"audiences/buyers": f"{ORDERS}.count() >= 1"})
    taken = place.personas("ingest", str(real_data / "ecom.jsonl.gz"))
    assert json.loads(taken.stdout)["accepted"] == truth["events"], taken.stderr
    refreshed = place.personas("refresh", "--as-of", "2024-07-01")
    assert refreshed.returncode == 0, refreshed.stderr
    assert json.loads(refreshed.stdout)["entered"] == truth["buyers"]
    graph = place.personas("identity", "export")
    assert len(graph.stdout.splitlines()) == truth["profiles_expected"], graph.stderr
    counted = place.personas(
        "query", f"{ORDERS}.count() >= 2", "--as-of", "2024-07-01", "--format", "count"
    )
    assert json.loads(counted.stdout) == {"count": truth["buyers_ge_2"]}
