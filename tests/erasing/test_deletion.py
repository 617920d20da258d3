"""A person is deleted: from messages to ledger, and nothing brings them back."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa

from personas_dagster import deliver, intake, refresh
from personas_dagster.digests import digests
from personas_dagster.erasing import flow, messages, records
from personas_dagster.erasing.person import Person
from personas_dagster.errors import NotFound
from personas_dagster.lake import indexes
from personas_dagster.simulators import simulator
from personas_dagster.simulators.serving import Served
from personas_dagster.spaces import Space
from personas_dagster.state.schema import deletions, suppressions
from personas_dagster.suppressing import suppressed
from tests.place import NOW, Place

ANN = ("users", "email", "ann.secret@example.com")
DEVICE, USER = "device-of-ann-77", "user-ann-secret"


def message(number: int, day: int = 1, **fields: Any) -> dict[str, Any]:
    return {
        "type": "track",
        "event": "Order Completed",
        "messageId": f"m{number}",
        "receivedAt": f"2026-02-{day:02}T10:00:00Z",
        "timestamp": f"2026-02-{day:02}T10:00:00Z",
        "properties": {"revenue": 100},
        **fields,
    }


ANNS = [
    message(1, anonymousId=DEVICE),
    message(2, userId=USER, event="Order Completed"),
    {**message(3, userId=USER, anonymousId=DEVICE), "type": "identify",
     "traits": {"email": ANN[2], "city": "Delft"}},
    message(4, day=3, userId=USER, properties={"revenue": 50, "email": ANN[2].upper()}),
    {**message(5, userId="other-user", previousId=DEVICE), "type": "alias"},
]  # fmt: skip
OTHERS = [
    message(10, userId="user-bob"),
    {**message(11, day=3, userId="user-bob"), "type": "identify",
     "traits": {"email": "bob@example.com"}},
    message(12, userId="user-cy", anonymousId="device-of-cy"),
]  # fmt: skip
REJECTED = {"type": "nonsense", "userId": USER, "traits": {"email": ANN[2]}}


@pytest.fixture
def other(new_place: Callable[[], Place]) -> Place:
    return new_place()


@pytest.fixture
def place(place: Place) -> Place:
    place.define(
        {
            "computed_traits/revenue": "event('Order Completed').sum(property('revenue'))",
            "audiences/buyers": "event('Order Completed').count() >= 1",
        }
    )
    return place


def table(space: Space, name: str) -> list[dict[str, Any]]:
    with space.engine.session(space.lake) as session:
        session.view(name)
        found: list[dict[str, Any]] = session.fetch(f"SELECT * FROM {name}").to_pylist()
    return found


def erase(space: Space, identifier: tuple[str, str, str] = ANN) -> tuple[flow.Receipt, Person]:
    return flow.erase(space, identifier, now=NOW, by="a tester")


def left(space: Space, person: Person) -> list[str]:
    return [str(path) for path in flow.leftovers(space, person)]


def test_nothing_is_left_and_others_stay(place: Place) -> None:
    space = place.refresh(*ANNS, *OTHERS, REJECTED)
    refresh.keep_profiles(space)
    person = flow.look_up(space, ANN)
    assert set(person.identifiers) == {
        ("email", ANN[2]), ("user_id", USER), ("anonymous_id", DEVICE)
    }  # fmt: skip
    assert len(person.profile_ids) == 2 and left(space, person)
    receipt, person = erase(space)
    assert receipt.profiles == 2 and receipt.identifiers == dict(anonymous_id=1, email=1, user_id=1)
    assert receipt.rows["raw_events"] == 5 and receipt.rows["rejected_events"] == 1
    assert receipt.rows["landing"] == 6
    for file in place.root.glob("*.jsonl"):
        file.unlink()  # the files that were handed in are their owner's
    assert left(space, person) == []
    assert {row["message_id"] for row in table(space, "raw_events")} == {"m10", "m11", "m12"}
    for name in ("events", "computed_traits", "custom_traits", "audience_memberships"):
        assert table(space, name), name
    with pytest.raises(NotFound, match="on no user's profile"):
        flow.look_up(space, ANN)


def test_indexes_go_with_the_rows(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """They hold hashes of identifiers, and ids of profiles and messages."""
    monkeypatch.setattr(indexes, "WORTH_ROWS", 1)
    space = place.refresh(*ANNS, *OTHERS)
    gone = {ANN[2], DEVICE, USER}
    numbers = [
        row[name]
        for row in table(space, "identifiers")
        if row["value"] in gone
        for name in ("key_high", "key_low", "profile_high", "profile_low")
    ]
    marks = [struct.pack("<q", number) for number in numbers]

    def held() -> list[bool]:
        files = [path.read_bytes() for path in (Path(space.lake.root) / indexes.FOLDER).glob("*/*")]
        assert files
        return [any(mark in file for file in files) for mark in marks]

    assert len(numbers) >= 12 and all(held())
    erase(space)
    assert not any(held())


def test_what_is_left_is_as_if_the_person_had_never_been(place: Place, other: Place) -> None:
    other.define({"audiences/buyers": "event('Order Completed').count() >= 1"})
    place.define({"audiences/buyers": "event('Order Completed').count() >= 1"})
    (place.root / "assets/computed_traits/revenue.yaml").unlink()
    space = place.refresh(*OTHERS, *ANNS)
    erase(space)
    never = other.refresh(*OTHERS)
    graph = ("profiles", "identifiers", "merges", "account_links", "dropped_identifiers")
    ours, theirs = digests(space), digests(never)
    for name in (*graph, "raw_events", "events", "custom_traits", "audience_memberships"):
        assert ours[name] == theirs[name], name


def test_the_original_files_do_not_bring_the_person_back(place: Place) -> None:
    space = place.refresh(*ANNS, *OTHERS)
    _, person = erase(space)
    assert place.take(place.messages(*ANNS, *OTHERS), space=space).files == 0  # known by its hash
    again = place.messages(*OTHERS, *ANNS)
    new = place.messages(message(20, userId=USER), message(21, userId="user-dee"))
    report = place.take(again, new, space=space)
    assert (report.suppressed, report.accepted, report.duplicates) == (6, 1, 3)
    assert {row["message_id"] for row in table(space, "raw_events")} == {
        "m10", "m11", "m12", "m21"
    }  # fmt: skip
    for file in (again, new):
        file.unlink()
    for file in place.root.glob("*.jsonl"):
        file.unlink()
    assert left(space, person) == []
    with pytest.raises(NotFound):
        flow.look_up(space, ANN)


def test_a_partition_made_again_stays_without_the_person(place: Place) -> None:
    space = place.refresh(*ANNS, *OTHERS)
    erase(space)
    before = digests(space)["raw_events"]
    intake.rebuild_partitions(space, [dt.date(2026, 2, 1), dt.date(2026, 2, 3)], now=NOW)
    assert digests(space)["raw_events"] == before


@pytest.mark.parametrize("kind", ["jsonl.gz", "csv", "parquet"])
def test_landed_files_of_every_format(place: Place, kind: str) -> None:
    rows = [
        {"type": "page", "messageId": f"p{n}", "userId": who, "receivedAt": "2026-02-01T10:00:00Z"}
        for n, who in enumerate(["user-bob", USER, "user-cy", USER])
    ]
    path = place.root / f"given.{kind}"
    if kind == "jsonl.gz":
        path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in rows).encode()))
    elif kind == "csv":
        lines = [",".join(rows[0]), *(",".join(row.values()) for row in rows)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    else:
        pq.write_table(pa.Table.from_pylist(rows), path)
    space = place.space
    place.take(path, space=space)
    receipt, person = flow.erase(space, ("users", "user_id", USER), now=NOW, by="a tester")
    assert receipt.rows["landing"] == 2
    path.unlink()
    assert left(space, person) == []
    intake.rebuild_partitions(space, [dt.date(2026, 2, 1)], now=NOW)
    assert {row["user_id"] for row in table(space, "raw_events")} == {"user-bob", "user-cy"}


def test_a_deletion_that_was_killed_is_finished_by_the_next(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = place.refresh(*ANNS, *OTHERS)

    class Killed(BaseException):
        pass

    def die(*_: object, **__: object) -> None:
        raise Killed

    for step in (
        "erasing.flow.messages.remove",
        "erasing.messages.blank",
        "lake.DeltaLake.replace",
        "erasing.flow.values.remove",
        "erasing.flow.values.remove_deliveries",
        "erasing.flow.records.redact",
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"personas_dagster.{step}", die)
            with pytest.raises(Killed):
                erase(space)
    assert flow.is_open(space, ANN)
    receipt, person = erase(space)
    assert receipt.rows["raw_events"] == 5
    for file in place.root.glob("*.jsonl"):
        file.unlink()
    assert left(space, person) == [] and not flow.is_open(space, ANN)


def test_what_a_killed_deletion_staged_goes(place: Place) -> None:
    """Also when no message of theirs is left to be staged."""
    space = place.refresh(*ANNS)
    _, person = erase(space)
    staged = space.landing.staging / "deletion" / "staged.parquet"
    staged.parent.mkdir(parents=True)
    pq.write_table(pa.table({"raw": [ANN[2]]}), staged)
    assert str(staged) in left(space, person)
    messages.remove(space, person, suppressed(space.state))
    assert str(staged) not in left(space, person)


def test_the_receipt_and_what_is_kept_name_nobody(place: Place) -> None:
    space = place.refresh(*ANNS, *OTHERS)
    receipt, person = erase(space)
    kept = json.dumps(
        [receipt.as_json(), space.state.rows(sa.select(deletions)),
         space.state.rows(sa.select(suppressions))], default=str
    )  # fmt: skip
    assert not any(value in kept for _, value in person.identifiers)
    assert len(space.state.rows(sa.select(suppressions))) == 3


def test_nobody_to_delete(place: Place) -> None:
    space = place.refresh(*OTHERS)
    with pytest.raises(NotFound, match="nothing to delete"):
        erase(space)


def test_destinations_are_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with Served() as served:
        account = simulator("webhook")
        given = account.settings(served.add("hook", account))
        monkeypatch.setenv("HOOK_SECRET", given["secret"])
        given["secret"] = {"env": "HOOK_SECRET"}
        settings = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in given.items())
        place.write("resources/destinations/hook.yaml", f"type: webhook\nsettings:\n{settings}")
        place.write(
            "sensors/connections/buyers_to_hook.yaml",
            "audience: buyers\ndestination: hook\n",
        )
        space = place.refresh(*ANNS, *OTHERS)
        deliver.deliver(space, "hook", owner="t", now=lambda: NOW)
        assert any(USER in str(row) for row in table(space, "ledger"))
        receipt, person = erase(space)
        for file in place.root.glob("*.jsonl"):
            file.unlink()
        assert left(space, person) == []
        assert receipt.destinations["hook"].startswith("told of every list and audience")
        assert "deleted" in receipt.destinations["hook"]
        assert not any(USER in str(one) for one in account.people.values())
        assert not any(USER in str(row) for row in table(space, "ledger"))
        assert any("user-bob" in str(row) for row in table(space, "ledger"))


def scan_of(path: Path) -> list[Path]:
    from personas_dagster.erasing.scanning import scan

    return scan([path], Person(("p",), (("user_id", "7"), ("email", ANN[2]))))


def test_the_scan_finds_what_is_packed(tmp_path: Path) -> None:
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(b'{"userId":"7"}\n'))
    pq.write_table(pa.table({"x": [f"a {ANN[2].upper()} b"]}), tmp_path / "rows.parquet")
    (tmp_path / "state.db").write_bytes(b"\x00\x01email" + ANN[2].encode() + b"zzz")
    (tmp_path / "other.json").write_text('{"n": 7, "userId": "77"}')
    (tmp_path / "begun.parquet").write_bytes(b"PAR1")
    (tmp_path / "cut.parquet").write_bytes(b"PAR1" + ANN[2].encode())
    assert [path.name for path in scan_of(tmp_path)] == [
        "cut.parquet", "packed.jsonl.gz", "rows.parquet", "state.db"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("value", "cleaned"),
    [
        ({"why": f"found {ANN[2].upper()}, twice"}, {"why": "found(deleted) twice"}),
        (["7", "77", 7], ["(deleted)", "77", 7]),
        ({f"email:{ANN[2]}": 1}, {"email(deleted)": 1}),
        ({"nothing": None}, {"nothing": None}),
    ],
)
def test_words_in_records(value: object, cleaned: object) -> None:
    pattern = re.compile(Person(("p",), (("user_id", "7"), ("email", ANN[2]))).pattern)
    assert records.clean(value, pattern) == cleaned


def test_a_destination_that_cannot_be_reached_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_SECRET", "s")
    with Served() as served:
        account = simulator("webhook", key="s")
        given = account.settings(served.add("hook", account)) | {"secret": {"env": "HOOK_SECRET"}}
        settings = "".join(f"  {key}: {json.dumps(value)}\n" for key, value in given.items())
        place.write("resources/destinations/hook.yaml", f"type: webhook\nsettings:\n{settings}")
        place.write(
            "sensors/connections/buyers_to_hook.yaml", "audience: buyers\ndestination: hook\n"
        )
        space = place.refresh(*ANNS, *OTHERS)
        deliver.deliver(space, "hook", owner="t", now=lambda: NOW)
    monkeypatch.delenv("HOOK_SECRET")
    receipt, _ = erase(space)
    assert receipt.destinations["hook"].startswith("not told: ")
    assert "by hand" in receipt.destinations["hook"]
