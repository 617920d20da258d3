"""Two loads at once, in processes of their own, while somebody joins the tables' small files."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from personas_dagster.digests import digests
from personas_dagster.identity.loads import GRAPH_TABLES
from tests.place import COMMAND, NOW, Place

DAY = "2026-01-{:02}T00:00:00Z"
COMPACT = """
import sys
from pathlib import Path
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
while True:
    for table in Path(sys.argv[1]).iterdir():
        try:
            joined = DeltaTable(table).optimize.compact()["numFilesRemoved"]
        except DeltaError:  # written to meanwhile
            continue
        if joined:
            print(joined, flush=True)
"""


def said(number: int, **fields: object) -> dict[str, object]:
    at = DAY.format(1 + number % 20)
    return {"messageId": f"m{number}", "type": "track", "event": "Order", "receivedAt": at,
            "timestamp": at, **fields}  # fmt: skip


def refresh(place: Place) -> subprocess.Popen[str]:
    return subprocess.Popen([str(COMMAND), "refresh", "--as-of", "2026-03-02"], cwd=place.root,
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


@contextmanager
def compacting(place: Place) -> Iterator[list[str]]:
    """A process that joins the small files of all tables, over and over; in the end, how many."""
    joined: list[str] = []
    process = subprocess.Popen([sys.executable, "-c", COMPACT, str(place.root / ".personas/lake")],
                               text=True, stdout=subprocess.PIPE)  # fmt: skip
    try:
        yield joined
    finally:
        process.kill()
        joined += process.communicate()[0].split()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True])
def test_two_loads_at_once_while_tables_are_compacted(
    killed: bool, new_place: Callable[[], Place]
) -> None:
    """And one of them killed: every message is in, and the graph is that of a calm run."""
    shared = [said(n, userId=f"u{n % 30}", anonymousId=f"d{n % 45}") for n in range(300)]
    parts = [sorted(shared, key=lambda one: str(one["receivedAt"]))[n : n + 60]
             for n in range(0, 300, 60)]  # fmt: skip
    calm, place = new_place(), new_place()
    for part in parts:
        calm.take(calm.messages(*part))
    for part in parts[:3]:
        place.take(place.messages(*part))
    lake = place.root / ".personas" / "lake"
    with compacting(place) as joined:
        place.space.landing.land([place.messages(*parts[3])], now=NOW)
        commits = len(list(lake.glob("*/_delta_log/*.json")))
        first = refresh(place)
        place.space.landing.land([place.messages(*parts[4])], now=NOW)
        second = refresh(place)
        while first.poll() is None and len(list(lake.glob("*/_delta_log/*.json"))) < commits + 9:
            time.sleep(0.002)
        if killed:
            first.kill()
        ended = [(one, *one.communicate(timeout=600)) for one in (first, second)]
    assert joined
    for one, _, errors in ended:
        lost = "is held by" in errors or "run it again" in errors or "cannot be used" in errors
        assert one.returncode == 0 or lost or (killed and one is first), errors
    place.refresh(as_of=NOW + dt.timedelta(days=2))
    found, expected = digests(place.space), digests(calm.space)
    for table in ("raw_events", "events", *GRAPH_TABLES):
        assert found[table] == expected[table], table
