"""The history: each day is what a query as of its beginning says."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from personas_dagster import asking
from personas_dagster.answers.history import backfill, instant_of, sizes
from personas_dagster.errors import Busy, PersonasError
from personas_dagster.spaces import Space
from tests.answers.conftest import DAY
from tests.place import NOW, Place

DAYS = [(NOW - n * DAY).date() for n in (45, 25, 8, 4, 0)]


def stored(space: Space, table: str, key: str) -> dict[tuple[dt.date, str], set[str]]:
    with space.engine.session(space.lake) as session:
        session.view(table)
        rows = session.fetch(f"SELECT * FROM {table}").to_pylist()
    found: dict[tuple[dt.date, str], set[str]] = {}
    for row in rows:
        assert row["as_of"] == instant_of(row["history_date"])
        found.setdefault((row["history_date"], row[key]), set()).add(row["profile_id"])
    return found


def asked(space: Space, query: str, as_of: dt.datetime, collection: Any) -> set[str]:
    one = asking.ask([query], collection=collection)
    with asking.answers(space, one, as_of=as_of) as session:
        return {row["profile_id"] for row in asking.rows(session, one)}


def test_days_are_what_queries_say(shop: Place) -> None:
    space = shop.space
    done = backfill(space, DAYS, owner="test")
    members = stored(space, "audience_history", "audience")
    values = stored(space, "trait_history", "key")
    for definition in space.definitions:
        held = members if definition.kind == "audience" else values
        counts = done.audiences if definition.kind == "audience" else done.traits
        condition = "= true" if definition.kind == "audience" else ".exists()"
        query = f"trait('{definition.key}') {condition}"
        for day in DAYS:
            wanted = asked(space, query, instant_of(day), definition.collection)
            assert held.get((day, definition.key), set()) == wanted, (day, definition.key)
            assert counts[definition.key][day] == len(wanted)
    assert dict(sizes(space, "regulars")) == dict(zip(DAYS, [0, 0, 0, 0, 1], strict=True))


def test_a_day_again(place: Place) -> None:
    """Each backfill replaces the days and keys that it computes, and no other."""
    place.define(
        {
            "audiences/x": "event('X').count() >= 1",
            "audiences/y": "NOT trait('x') = true",
        }
    )
    space = place.refresh(
        {"type": "track", "event": "X", "userId": "a", "timestamp": "2026-02-10T12:00Z"}
    )
    first, second = dt.date(2026, 2, 10), dt.date(2026, 2, 11)
    backfill(space, [first, second], owner="test")
    place.refresh({"type": "track", "event": "X", "userId": "b", "timestamp": "2026-02-09"})
    backfill(space, [second], owner="test", keys=["x"])
    counts = {key: list(sizes(space, key).values()) for key in ("x", "y")}
    assert counts == {"x": [0, 2], "y": [1, 0]}
    members = stored(space, "audience_history", "audience")
    assert {pair: len(those) for pair, those in members.items()} == {
        (second, "x"): 2, (first, "y"): 1,
    }  # fmt: skip


def test_knowledge_of_then(place: Place) -> None:
    """A device that logs in on the 20th: whose its order of the 10th is depends on who asks."""
    place.define({
        "audiences/buyers": "event('Order').count() >= 1",
        "audiences/gold": "query: trait('plan') = 'gold'\ninclude_anonymous: true\n",
        "computed_traits/orders": "event('Order').count()",
    })  # fmt: skip
    space = place.refresh(
        {"type": "identify", "userId": "ann", "timestamp": "2026-02-01"},
        {"type": "identify", "anonymousId": "x", "timestamp": "2026-02-09",
         "traits": {"plan": "gold"}},
        {"type": "track", "event": "Order", "anonymousId": "x", "timestamp": "2026-02-10"},
        {"type": "track", "event": "Order", "userId": "ann", "timestamp": "2026-02-11",
         "receivedAt": "2026-02-18"},
        {"type": "identify", "userId": "ann", "anonymousId": "x", "timestamp": "2026-02-20"},
    )  # fmt: skip
    before, between, after = (dt.date(2026, 2, day) for day in (15, 19, 21))
    days = [before, between, after]
    now = backfill(space, days, owner="test")
    assert list(now.audiences["buyers"].values()) == [1, 1, 1]
    assert list(now.audiences["gold"].values()) == [1, 1, 1]
    with space.engine.session(space.lake) as session:
        session.view("trait_history")
        rows = session.fetch("SELECT value FROM trait_history ORDER BY history_date").to_pylist()
    assert [row["value"] for row in rows] == ["2", "2", "2"]
    then = backfill(space, days, owner="test", knowledge="then")
    assert list(then.audiences["buyers"].values()) == [0, 1, 1]
    assert list(then.audiences["gold"].values()) == [1, 1, 1]
    with space.engine.session(space.lake) as session:
        session.view("trait_history")
        rows = session.fetch(
            "SELECT history_date, value, knowledge FROM trait_history ORDER BY history_date, value"
        ).to_pylist()
    assert {row["knowledge"] for row in rows} == {"then"}
    assert [(row["history_date"], row["value"]) for row in rows] == [
        (before, "1"), (between, "1"), (between, "1"), (after, "2"),
    ]  # fmt: skip


def test_refused(place: Place) -> None:
    place.define({"audiences/x": "event('X').count() >= 1"})
    space = place.refresh()
    with pytest.raises(PersonasError, match="no trait or audience `y`.*expected some of: x"):
        backfill(space, DAYS, owner="test", keys=["y"])
    with pytest.raises(PersonasError, match="no day of `x` is in the history"):
        sizes(space, "x")
    other = space.state.lease("history", owner="other", holder="another run")
    with other, pytest.raises(Busy, match="another run"):
        backfill(space, DAYS, owner="test")
