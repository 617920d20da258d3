"""Schedules of single definitions: when they are evaluated, and when they are stale."""

from __future__ import annotations

import datetime as dt

from personas_dagster.freshness import evaluations, freshness
from tests.place import NOW, Place

HOUR = dt.timedelta(hours=1)
DAILY = "query: event('X').count()\nschedule: 0 6 * * *\n"


def values(place: Place) -> dict[str, str]:
    with place.space.session() as session:
        rows = session.fetch("SELECT key, value FROM trait_values").to_pylist()
    return {row["key"]: row["value"] for row in rows}


def instants(place: Place) -> dict[str, dt.datetime]:
    return {key: one.as_of for key, one in evaluations(place.space).items()}


def test_due_at_its_ticks(place: Place) -> None:
    row = {"type": "track", "event": "X", "userId": "a", "timestamp": "2026-02-01T00:00:00Z"}
    place.define({"computed_traits/daily": DAILY, "computed_traits/hourly": "event('X').count()"})
    place.refresh(row)
    assert values(place) == {"daily": "1", "hourly": "1"}
    place.refresh({**row, "timestamp": "2026-02-02T00:00:00Z"}, as_of=NOW + HOUR)
    assert values(place) == {"daily": "1", "hourly": "2"}
    assert instants(place) == {"daily": NOW, "hourly": NOW + HOUR}
    place.refresh(as_of=NOW + 18 * HOUR)  # six in the morning
    assert values(place) == {"daily": "2", "hourly": "2"}
    assert instants(place)["daily"] == NOW + 18 * HOUR


def test_changed_query_is_due_at_once(place: Place) -> None:
    place.define({"computed_traits/daily": DAILY})
    place.refresh({"type": "track", "event": "Y", "userId": "a", "timestamp": "2026-02-01"})
    assert values(place) == {}
    place.define({"computed_traits/daily": DAILY.replace("'X'", "'Y'")})
    place.refresh(as_of=NOW + HOUR)
    assert values(place) == {"daily": "1"}


def test_stale_after_two_ticks(place: Place) -> None:
    place.define({"computed_traits/daily": DAILY, "computed_traits/hourly": "event('X').count()"})
    assert freshness(place.space, now=NOW)["hourly"].is_stale
    place.refresh()

    def stale(hours: float) -> set[str]:
        found = freshness(place.space, now=NOW + hours * HOUR)
        assert {one.as_of for one in found.values()} == {NOW}
        return {key for key, one in found.items() if one.is_stale}

    assert (stale(1.9), stale(2), stale(41.9), stale(42)) == (
        set(), {"hourly"}, {"hourly"}, {"hourly", "daily"},
    )  # fmt: skip
