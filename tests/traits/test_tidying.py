"""Logs of traits lose the rows that later ones replaced; readers notice nothing."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from personas_dagster import refresh
from personas_dagster.digests import digests
from personas_dagster.engines import DuckDBEngine
from personas_dagster.lake import TABLES, DeltaLake
from personas_dagster.traits import tidying
from tests.place import NOW, Place

HOUR = dt.timedelta(hours=1)
LOG = "computed_traits"
Row = tuple[str, str, str, int]  # profile, key, value, refresh


class Log:
    """The log of computed traits in a lake of its own."""

    def __init__(self, root: Path, *refreshes: list[Row]) -> None:
        self.lake, self.engine = DeltaLake(root), DuckDBEngine(threads=1)
        for rows in refreshes:
            self.append(*rows)

    def append(self, *rows: Row) -> None:
        made = [
            {"collection": "users", "profile_id": who, "key": key, "value": value,
             "updated_at": NOW, "refresh_id": number}
            for who, key, value, number in rows
        ]  # fmt: skip
        self.lake.append(LOG, pa.Table.from_pylist(made, schema=TABLES[LOG].schema))

    def tidy(self, held: int | None, finished: int) -> int:
        with self.engine.session(self.lake) as session:
            return tidying.tidy(session, self.lake, LOG, held=held, finished=finished)

    @property
    def rows(self) -> list[Row]:
        with self.engine.session(self.lake) as session:
            session.view(LOG)
            found = session.fetch(f"SELECT * FROM {LOG}").to_pylist()
        assert all(row["updated_at"] == NOW for row in found)
        return [(r["profile_id"], r["key"], r["value"], r["refresh_id"]) for r in found]


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Log:
    monkeypatch.setattr(tidying, "FEW", 0)
    return Log(
        tmp_path,
        [("a", "x", "1", 1), ("b", "x", "1", 1), ("a", "y", '"é"', 1)],
        [("a", "x", "2", 2), ("b", "x", "null", 2)],
        [("a", "x", "3", 3)],
    )


def test_last_rows_stay_as_they_are(log: Log) -> None:
    """Removals too, and each with the refresh that wrote it."""
    assert log.tidy(held=2, finished=3) == 3
    assert sorted(log.rows) == [("a", "x", "3", 3), ("a", "y", '"é"', 1), ("b", "x", "null", 2)]


@pytest.mark.parametrize(("held", "left"), [(None, 6), (0, 6), (3, 3), (4, 4)])
def test_not_before_it_has_doubled(log: Log, held: int | None, left: int) -> None:
    assert log.tidy(held=held, finished=3) == left
    assert len(log.rows) == 6


def test_rows_that_may_be_taken_back_replace_none(log: Log) -> None:
    assert log.tidy(held=1, finished=2) == 1
    assert len(log.rows) == 6


def test_small_files_become_few(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tidying, "MANY_FILES", 2)
    before = sorted(log.rows)
    assert (len(log.lake.files(LOG)), log.tidy(held=6, finished=3)) == (3, 6)
    assert (len(log.lake.files(LOG)), sorted(log.rows)) == (1, before)


def test_readers_notice_nothing(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values, snapshots, and the profile store, which takes what changed since its refresh."""

    def say(n: int) -> list[dict[str, Any]]:
        at = (NOW + n * HOUR).isoformat()
        return [
            {"type": "track", "event": "X", "userId": "a", "timestamp": at},
            {"type": "identify", "userId": "a", "timestamp": at, "traits": {"plan": f"p{n}"}},
        ]

    monkeypatch.setattr(tidying, "FEW", -1)  # so that 2 rows are more than twice 1
    place.define({"computed_traits/x": "event('X').count()"})
    place.refresh(*say(0))
    assert refresh.keep_profiles(place.space)
    place.refresh(*say(1), as_of=NOW + HOUR)
    before, snapshot = digests(place.space), place.space.snapshot()
    place.refresh(as_of=NOW + 2 * HOUR)
    assert digests(place.space) == before == digests(place.space, snapshot)
    for table in ("computed_traits", "custom_traits"):
        with place.space.engine.session(place.space.lake) as session:
            session.view(table)
            assert session.fetch(f"SELECT * FROM {table}").num_rows == 1
    kept = refresh.keep_profiles(place.space)
    assert kept and (kept.how, (kept.counts or {})["trait_changes"]) == ("changed", 1)
