"""What is too much to be held of all profiles or months is gone through in slices."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Sequence
from random import Random
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from personas_dagster.identity import assignment, loads
from personas_dagster.interfaces import Session
from personas_dagster.query import Plan
from personas_dagster.query.sliced import evaluate_sliced
from personas_dagster.traits import compute, slices, tidying, world
from tests.place import NOW, Place
from tests.traits.test_values_that_stand import QUERIES, Days, anew, life, stored

__all__ = ["life"]
OF_ACCOUNTS = ("computed_traits/firm", "audiences/busy", "audiences/at_work")
DIGESTS = st.integers().map(lambda number: hashlib.md5(str(number).encode()).hexdigest())


@given(st.lists(DIGESTS | st.text(max_size=3)), st.integers(0, 90), st.integers(1, 30))
def test_each_profile_is_in_one_slice(ids: list[str], rows: int, most: int) -> None:
    """And those of a slice come before those of the next."""
    conditions = slices.conditions(rows, most=most)
    assert len(conditions) == max(1, -(-rows // most))
    ids = [one.replace("\\0", "") for one in ids]
    with duckdb.connect() as database:
        database.execute("CREATE TABLE t AS SELECT unnest($1::VARCHAR[]) AS profile_id", [ids])
        found = [
            database.execute(f"FROM t WHERE {one} ORDER BY profile_id").fetchall()
            for one in conditions
        ]
    assert [who for some in found for (who,) in some] == sorted(ids, key=str.encode)


def test_first_refresh_in_slices(life: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same values and members as all at once, and as many."""
    monkeypatch.setattr(compute, "_VALUES", 20)
    monkeypatch.setattr(compute, "_PAIRS", 1)
    computed = life.live(80, 1)
    space = life.place.space
    assert stored(space) == anew(space, life.now.replace(minute=0))
    with space.session() as session:
        session.view("computed_traits")
        log = session.fetch("FROM computed_traits")
    keys = log.column("key").to_pylist()
    assert computed.traits_held == {key: keys.count(key) for key in set(keys)}
    assert computed.traits_changed == {
        one.key: keys.count(one.key) for one in space.definitions if one.kind == "trait"
    }


@pytest.mark.parametrize("of_accounts", [False, True])
def test_messages_in_slices(
    place: Place, of_accounts: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of merged profiles count for whom they are now, whatever slices these are of. A plan
    that reads accounts' users is not sliced."""
    run: list[int] = []

    def counted(session: Session, made: Plan, some: Sequence[slices.Slice], **how: Any) -> None:
        run.append(len(some))
        evaluate_sliced(session, made, some, **how)

    monkeypatch.setattr(world, "MOST", 25)
    monkeypatch.setattr(world, "evaluate_sliced", counted)
    users = {name: query for name, query in QUERIES.items() if name not in OF_ACCOUNTS}
    life = Days(place, Random(3), QUERIES if of_accounts else users)
    life.live(60, 1)
    assert stored(place.space) == anew(place.space, life.now.replace(minute=0))
    place.define({"computed_traits/spent": "event('Order').max(property('total'))"})
    life.live(60, 1)
    with place.space.session() as session:
        assert session.fetch("FROM graph_parents").num_rows > 1
    assert stored(place.space) == anew(place.space, life.now.replace(minute=0))
    assert run == ([5] if of_accounts else [3, 5])


def test_changed_definition_in_slices(life: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside others whose values stand."""
    life.live(80, 1)
    monkeypatch.setattr(compute, "_VALUES", 5)
    life.place.define({"computed_traits/spent": "event('Order').max(property('total'))"})
    computed = life.live(4, 1)
    assert computed.touched is not None
    space = life.place.space
    assert stored(space) == anew(space, life.now.replace(minute=0))


def test_tidied_in_slices(life: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    life.live(80, 1)
    for _ in range(3):
        life.live(20, 24)
    space = life.place.space
    before = stored(space)
    monkeypatch.setattr(tidying, "_HELD", 7)
    monkeypatch.setattr(tidying, "FEW", 0)
    with space.engine.session(space.lake) as session:
        session.view("computed_traits")
        rows = session.fetch("FROM computed_traits").num_rows
        left = tidying.tidy(session, space.lake, "computed_traits", held=1, finished=99)
    assert left < rows
    assert stored(space) == before


def test_messages_month_by_month(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load of many months is sorted a few at a time: the same rows in as many files."""
    rows = [
        {"type": "track", "event": event, "userId": f"u{n % 3}", "messageId": f"{event}{n}",
         "timestamp": f"2024-{1 + n % 5:02}-03T00:00:00Z", "receivedAt": NOW.isoformat()}
        for n in range(20) for event in ("Order", "Visit")
    ]  # fmt: skip
    path = place.messages(*rows)
    asked: list[int] = []

    def months(session: Session, **places: int) -> list[dt.datetime]:
        found = assignment.months_between(session, most=10, **places)
        asked.append(len(found))
        return found

    monkeypatch.setattr(loads, "months_between", months)
    place.take(path)
    space = place.space
    assert asked == [4]
    files = [file.split("month=")[1][:7] for file in space.lake.files("events")]
    assert sorted(files) == [f"2024-{n:02}" for n in range(1, 6)]
    with space.engine.session(space.lake) as session:
        session.view("events")
        found = session.fetch("SELECT message_id, month, timestamp FROM events").to_pylist()
    assert sorted(row["message_id"] for row in found) == sorted(row["messageId"] for row in rows)
    assert {row["month"] for row in found} == {f"{row['timestamp']:%Y-%m}" for row in found}
