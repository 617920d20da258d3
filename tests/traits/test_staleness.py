"""Why an answer is not to be taken as current: late refreshes, sources and SQL traits."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from personas_dagster import refresh, warehousing
from personas_dagster.freshness import freshness, of_draft
from personas_dagster.query import Definition
from personas_dagster.spaces import Space
from tests.place import NOW, Place

HOUR = dt.timedelta(hours=1)
TICKETS = "SELECT user_id, 3 AS tickets FROM raw_events"
DEFINITIONS = {
    "computed_traits/complaints": "trait('tickets')",
    "audiences/angry": "trait('complaints') > 2",
    "audiences/payers": "trait('plan') = 'pro'",
    "audiences/buyers": "event('Order').count() >= 1",
}
MESSAGE: dict[str, Any] = {"type": "identify", "userId": "a", "traits": {"plan": "pro"}}


def filled(place: Place, **sql: str) -> Space:
    place.define(DEFINITIONS)
    for key, text in sql.items():
        place.write(f"assets/sql_traits/{key}.sql", text)
    return place.refresh({**MESSAGE, "timestamp": "2026-02-01T00:00:00Z"})


def run_sql(place: Place, as_of: dt.datetime = NOW) -> None:
    """All SQL traits, as a run of them does."""
    space = place.space
    place.runs += 1
    this = refresh.begin(space, run_id=f"sql-{place.runs}", now=as_of, as_of=as_of)
    warehousing.refresh_sql_traits(space, this)
    refresh.finish(space, this, now=as_of)


def stale(place: Place, hours: float = 1) -> dict[str, str]:
    found = freshness(place.space, now=NOW + hours * HOUR)
    return {key: "; ".join(one.stale) for key, one in found.items() if one.is_stale}


def test_late_by_its_schedule(place: Place) -> None:
    filled(place)
    assert stale(place, 1.9) == {}
    assert set(stale(place, 2)) == {key.split("/")[1] for key in DEFINITIONS}
    assert stale(place, 2)["payers"] == "it is as of 2026-03-01 12:00 UTC, and due at `0 * * * *`"


def test_overdue_source(place: Place) -> None:
    """Nothing came for too long: no audience of the space can be said to be current."""
    place.write("assets/sources/files.yaml", "name: Files\nexpect_every: 1 hour\n")
    filled(place)
    assert stale(place, 1) == {}
    why = "files has sent nothing since 2026-03-01 12:00 UTC, and is expected every 1:00:00"
    assert stale(place, 1.5) == {key.split("/")[1]: why for key in DEFINITIONS}


def test_failed_sql_trait(place: Place) -> None:
    """What reads it is stale, also through others; what does not, is not."""
    filled(place, support=TICKETS)
    assert stale(place) == {
        "complaints": "SQL trait `support` has not run yet",
        "angry": "SQL trait `support` has not run yet",
    }
    run_sql(place)
    assert stale(place) == {}
    place.write("assets/sql_traits/support.sql", TICKETS.replace("raw_events", "no_table"))
    run_sql(place, NOW + HOUR)
    failed = "SQL trait `support` failed as of 2026-03-01 13:00 UTC"
    assert stale(place) == {"complaints": failed, "angry": failed}
    place.write("assets/sql_traits/support.sql", TICKETS)
    run_sql(place, NOW + 2 * HOUR)
    assert stale(place) == {}


def test_failure_hides_no_success_before_it(place: Place) -> None:
    """The columns are those of the last run that worked, whatever the query says now."""
    filled(place, support=TICKETS)
    run_sql(place)
    place.write("assets/sql_traits/support.sql", "SELECT user_id, 1 AS other FROM no_table")
    run_sql(place, NOW + HOUR)
    assert set(stale(place)) == {"complaints", "angry"}


def test_late_sql_trait(place: Place) -> None:
    filled(place, support=TICKETS)
    run_sql(place)
    place.refresh(as_of=NOW + 23 * HOUR)
    assert stale(place, 23.9) == {}
    place.refresh(as_of=NOW + 24 * HOUR)
    late = "SQL trait `support`: it is as of 2026-03-01 12:00 UTC, and due at `0 */12 * * *`"
    assert stale(place, 24) == {"complaints": late, "angry": late}


def test_sql_trait_of_unknown_columns(place: Place) -> None:
    """It may be behind every key that no definition has."""
    filled(place, support="SELECT * FROM no_table")
    run_sql(place)
    assert set(stale(place)) == {"complaints", "angry", "payers"}


@pytest.mark.parametrize(("hours", "past", "reasons"), [(1, 0, 0), (2, 0, 1), (99, 1, 0)])
def test_of_a_draft(place: Place, hours: float, past: int, reasons: int) -> None:
    """As the data that it is evaluated on; the past is asked for as the past."""
    space = filled(place)
    draft = Definition("draft", "audience", "users", "trait('plan') = 'pro'")
    found = of_draft(space, draft, as_of=NOW - past * HOUR, now=NOW + hours * HOUR)
    assert len(found.stale) == reasons
