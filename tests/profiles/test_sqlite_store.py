"""The profile store in SQLite: what is read ahead, its journal, its writing behind the engine."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pyarrow as pa
import pytest

from personas_dagster import refresh
from personas_dagster.errors import StateUnavailable
from personas_dagster.profiles import ahead, sqlite, tables
from personas_dagster.profiles.behind import Behind
from personas_dagster.profiles.sqlite import SqliteStore
from tests.place import Place
from tests.profiles.test_keeping import day, identify, order


def test_what_is_read_ahead_is_what_is_written(place: Place) -> None:
    """Errors are left to the change, so only this tells whether pages are found."""
    for number in (1, 2):
        said = identify(number, userId="u1", traits={"n": number})
        space = place.refresh(said, order(1, anonymousId="a1"), as_of=day(number))
        refresh.keep_profiles(space)
    for staged, (names, query) in ahead.QUERIES.items():
        table, _ = tables.TAKEN[staged]
        there = space.profiles.rows(f"SELECT {', '.join(names)} FROM {table}", {})
        keys = [row[0] if len(names) == 1 else row for row in there]
        ((found,),) = space.profiles.rows(query, {"keys": json.dumps([*keys, ["nobody"] * 3])})
        assert found == len(keys) > 0, staged


def test_what_a_change_will_write_is_expected(place: Place) -> None:
    """Told while all else is computed, and then not once more."""
    told: list[tuple[str, set[object]]] = []
    places: dict[str, set[object]] = {}

    class Told(ahead.Ahead):
        def read(self, table: str, rows: pa.RecordBatch) -> None:
            told.append((table, set(rows.column(rows.num_columns - 1).to_pylist())))
            places[table] = set(rows.column(0).to_pylist())
            super().read(table, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sqlite, "Ahead", Told)
        space = place.refresh(identify(1, userId="u1"), as_of=day(2))
        refresh.keep_profiles(space)
        assert told == []  # there is no store yet
        space = place.refresh(order(2, userId="u2"), as_of=day(3))
        with space.session() as session:
            query = "SELECT profile_id FROM graph_profiles WHERE load_id = 2"
            new = set(session.fetch(query).column(0).to_pylist())
        assert told == [
            ("new_events", new), ("new_profiles", new), ("new_identifiers", {"users"})
        ]  # fmt: skip
        expected = places["new_events"]
        refresh.keep_profiles(space)
    assert [tuple(expected)] == space.profiles.rows("SELECT DISTINCT part FROM events", {})
    assert not {table for table, _ in told[:3]} & {table for table, _ in told[3:]}


def test_each_refresh_moves_what_the_one_before_wrote(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else does: a journal that nobody moves grows for good."""
    asked: list[bool] = []
    monkeypatch.setattr(SqliteStore, "get_ready", lambda _: asked.append(True))
    place.refresh(identify(1, userId="u1"), as_of=day(2))
    assert asked == [True]
    place.refresh(as_of=day(3))  # without messages too
    assert asked == [True, True]


def test_what_a_change_wrote_is_moved_beside_the_next_one(tmp_path: Path) -> None:
    """No process waits for it at its end: readers find it in the journal."""
    ours, journal = SqliteStore(tmp_path), tmp_path / "1.db-wal"
    with ours.fill() as writer:
        writer.run("INSERT INTO held VALUES ('', 0)")

    def change(number: int) -> int:
        with ours.change() as changing:
            changing.run(f"INSERT INTO event_parts VALUES ({number})")
        return journal.stat().st_size

    def get_ready() -> None:
        ours.get_ready()
        for thread in threading.enumerate():
            if thread.name == "profile-store-journal":
                thread.join(10)

    written = change(1)
    ours.close()
    assert change(2) > written > 0
    ours.close()
    get_ready()
    assert not journal.exists()
    assert change(3) == written
    assert len(ours.rows("SELECT part FROM event_parts", {})) == 3
    get_ready()
    assert change(4) == written  # somebody reads on, and the journal begins anew all the same
    assert len(ours.rows("SELECT part FROM event_parts", {})) == 4


class Written:
    """A store that fails at one statement."""

    def __init__(self) -> None:
        self.done: list[str] = []

    def run(self, statement: str, parameters: object = None) -> None:
        self.done.append(statement)
        if statement == "bad":
            raise ZeroDivisionError("the first")


def test_nothing_is_written_behind_a_failure() -> None:
    written = Written()
    with pytest.raises(ZeroDivisionError, match="the first"), Behind(written) as behind:  # type: ignore[arg-type]
        for statement in ("good", "bad", *("late" for _ in range(50))):
            behind.run(statement)
    assert written.done == ["good", "bad"]


def test_nothing_is_written_behind_an_error_of_the_caller() -> None:
    written, ready = Written(), threading.Event()
    written.run = lambda statement, parameters=None: ready.wait() and written.done.append(statement)  # type: ignore[assignment,method-assign,func-returns-value]
    with pytest.raises(RuntimeError), Behind(written) as behind:  # type: ignore[arg-type]
        for statement in ("one", "two", "three"):
            behind.run(statement)
        threading.Timer(0.2, ready.set).start()
        raise RuntimeError
    assert written.done == ["one"]


def test_a_change_whose_transaction_is_gone(tmp_path: Path) -> None:
    """As a full disk ends it: the error that is told is the one that happened."""
    store = SqliteStore(tmp_path)
    with store.fill():
        pass
    with pytest.raises(StateUnavailable, match="nowhere"), store.change() as writer:
        writer.run("ROLLBACK")
        writer.run("DELETE FROM nowhere")


def test_a_fill_lets_go_of_the_file_that_it_replaces(tmp_path: Path) -> None:
    """What was expected of a change must not keep gigabytes that are gone."""
    store = SqliteStore(tmp_path)
    keys = pa.RecordBatch.from_pydict({"profile_id": ["p"]})
    for number in (1, 2):
        with store.fill() as writer:
            writer.run("INSERT INTO held VALUES ('', 0)")
        assert not [one for one in threading.enumerate() if "store-ahead" in one.name]
        store.expect("new_profiles", keys)
        assert [one for one in threading.enumerate() if "store-ahead" in one.name]
        assert [path.name for path in tmp_path.glob("*.db")] == [f"{number}.db"]
    store.close()
