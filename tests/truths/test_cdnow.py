"""All orders of a music shop: figures and audiences by date, as pandas has them."""

import datetime as dt
import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from personas_dagster import asking
from personas_dagster.answers.history import backfill, sizes
from personas_dagster.spaces import Space
from tests.place import Place

END = dt.datetime(1998, 7, 1, tzinfo=dt.UTC)
ORDERS = "event('Order Completed')"
DEFINITIONS = {
    "computed_traits/orders": f"{ORDERS}.count()",
    "computed_traits/revenue": f"{ORDERS}.sum(property('revenue'))",
    "computed_traits/cds": f"{ORDERS}.sum(property('quantity'))",
    "audiences/active": f"{ORDERS}.within(90 days).count() >= 1",
    "audiences/customers": f"{ORDERS}.count() >= 1",
}
# Of all orders, at the end of the data.
CUSTOMERS = {
    "customers_ge_2_orders": "trait('orders') >= 2",
    "customers_ge_5_orders": f"{ORDERS}.count() >= 5",
    "customers_ge_10_orders": f"{ORDERS}.count() >= 10",
    "customers_revenue_ge_100": "trait('revenue') >= 100",
    "customers_revenue_ge_500": f"{ORDERS}.sum(property('revenue')) >= 500",
    "customers_zero_revenue": "trait('revenue') = 0",
}
# The truth's names for its audiences, and what they are in the query language.
AUDIENCES = {
    "ordered_in_last_90_days (ts >= 1998-04-02)": f"{ORDERS}.within(90 days).count() >= 1",
    "ordered_in_last_30_days (ts >= 1998-06-01)": f"{ORDERS}.within(30 days).count() >= 1",
    ">=2 orders in last 90 days": f"{ORDERS}.within(90 days).count() >= 2",
    "lapsed: >=3 orders ever, none in last 180 days (ts < 1998-01-02)": (
        f"{ORDERS}.count() >= 3 AND NOT {ORDERS}.within(180 days).count() >= 1"
    ),
    "revenue >= 100 and >=2 orders": (
        f"{ORDERS}.sum(property('revenue')) >= 100 AND {ORDERS}.count() >= 2"
    ),
    "exactly 1 order": f"{ORDERS}.count() = 1",
}
KEYS = [f"truth_{number}" for number in range(len(AUDIENCES))]


@pytest.fixture(scope="module")
def truth(real_data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((real_data / "cdnow.truth.json").read_text())
    return found


@pytest.fixture(scope="module")
def cdnow(new_place: Callable[[], Place], real_data: Path) -> Space:
    place = new_place()
    place.define(DEFINITIONS)
    place.define(
        {f"audiences/{key}": text for key, text in zip(KEYS, AUDIENCES.values(), strict=True)}
    )
    place.define({f"audiences/{key}": text for key, text in CUSTOMERS.items()})
    space = place.space
    space.landing.land([real_data / "cdnow.jsonl.gz"], now=END)
    return place.refresh(as_of=END, space=space)


def rows(space: Space, query: str) -> list[dict[str, Any]]:
    with space.session() as session:
        session.view("raw_events")
        found: list[dict[str, Any]] = session.fetch(query).to_pylist()
    return found


def counts(space: Space, *queries: str, as_of: dt.datetime = END) -> list[int]:
    asked = asking.ask(queries)
    with asking.answers(space, asked, as_of=as_of) as session:
        return [row["count"] for row in asking.counts(session, asked)]


def test_messages_and_profiles(cdnow: Space, truth: dict[str, Any]) -> None:
    by_type = {
        row["type"]: row["n"]
        for row in rows(cdnow, "SELECT type, count(*) AS n FROM raw_events GROUP BY ALL")
    }
    assert by_type == {"identify": truth["identify_events"], "track": truth["track_events"]}
    assert sum(by_type.values()) == truth["events"]
    assert rows(cdnow, "SELECT count(*) AS n FROM graph_profiles")[0]["n"] == truth["profiles"]


def test_totals(cdnow: Space, truth: dict[str, Any]) -> None:
    totals = {
        row["key"]: row["total"]
        for row in rows(
            cdnow,
            "SELECT key, sum(value::DECIMAL(18, 2))::DOUBLE AS total FROM trait_values "
            "WHERE class = 'computed_trait' GROUP BY key",
        )
    }
    assert totals == {
        "orders": truth["orders"],
        "revenue": truth["total_revenue"],
        "cds": truth["total_cds"],
    }


def test_first_and_last_order(cdnow: Space, truth: dict[str, Any]) -> None:
    span = rows(
        cdnow,
        "SELECT min(timestamp)::DATE::VARCHAR AS first, max(timestamp)::DATE::VARCHAR AS last "
        "FROM raw_events WHERE event = 'Order Completed'",
    )[0]
    assert (span["first"], span["last"]) == (truth["first_order"], truth["last_order"])


def test_customers_by_orders_and_revenue(cdnow: Space, truth: dict[str, Any]) -> None:
    found = dict(zip(CUSTOMERS, counts(cdnow, *CUSTOMERS.values()), strict=True))
    assert found == {name: truth[name] for name in CUSTOMERS}


def test_best_customers(cdnow: Space, truth: dict[str, Any]) -> None:
    best = """SELECT i.value AS "userId", r.value::DOUBLE AS revenue, o.value::BIGINT AS orders
        FROM trait_values r
        JOIN trait_values o ON o.profile_id = r.profile_id AND o.key = 'orders'
        JOIN graph_identifiers i ON i.profile_id = r.profile_id AND i.type = 'user_id'
        WHERE r.key = 'revenue' ORDER BY {} DESC LIMIT {}"""
    assert rows(cdnow, best.format("revenue", 10)) == truth["top10_by_revenue"]
    most = rows(cdnow, best.format("orders", 1))[0]
    assert {"userId": most["userId"], "orders": most["orders"]} == truth["max_orders"]


def test_new_customers_by_month(cdnow: Space, truth: dict[str, Any]) -> None:
    months = rows(
        cdnow,
        "SELECT strftime(created_at, '%Y-%m') AS month, count(*) AS n FROM graph_profiles "
        "GROUP BY ALL",
    )
    assert {row["month"]: row["n"] for row in months} == truth["new_customers_by_month"]


def test_audiences_at_the_end(cdnow: Space, truth: dict[str, Any]) -> None:
    wanted = truth["audiences_as_of_1998_07_01"]
    assert set(wanted) == set(AUDIENCES)
    found = dict(zip(AUDIENCES, counts(cdnow, *AUDIENCES.values()), strict=True))
    assert found == wanted


def test_active_by_quarter(cdnow: Space, truth: dict[str, Any]) -> None:
    wanted = truth["audience_sizes_by_quarter_end_active_90d"]
    query = DEFINITIONS["audiences/active"]
    found = {
        day: counts(cdnow, query, as_of=dt.datetime.fromisoformat(f"{day}T00:00:00Z"))[0]
        for day in wanted
    }
    assert found == wanted


def test_history_of_each_quarter(cdnow: Space, truth: dict[str, Any]) -> None:
    """The same figures through the backfill, with the knowledge of then as of now."""
    wanted = truth["audience_sizes_by_quarter_end_active_90d"]
    days = [dt.date.fromisoformat(day) for day in wanted]
    found = backfill(cdnow, days, owner="test", keys=["active", *KEYS, *CUSTOMERS])
    assert {str(day): n for day, n in found.audiences["active"].items()} == wanted
    last = [found.audiences[key][END.date()] for key in KEYS]
    assert last == [truth["audiences_as_of_1998_07_01"][name] for name in AUDIENCES]
    assert {str(day): n for day, n in sizes(cdnow, "active").items()} == wanted
    ever = {name: found.audiences[name][END.date()] for name in CUSTOMERS}
    assert ever == {name: truth[name] for name in CUSTOMERS}


@pytest.mark.parametrize("knowledge", ["now", "then"])
def test_history_of_new_customers(cdnow: Space, truth: dict[str, Any], knowledge: Any) -> None:
    """Each month's new customers are in on the first day of the next; a range of days in one."""
    starts = [dt.date(1997, month, 1) for month in (1, 2, 3, 4)]
    found = backfill(cdnow, starts, owner="test", keys=["customers"], knowledge=knowledge)
    had = [found.audiences["customers"][day] for day in starts]
    months = zip(starts, pairwise(had), strict=False)
    new = {f"{day:%Y-%m}": after - before for day, (before, after) in months}
    assert new == truth["new_customers_by_month"]
    asked = [
        counts(cdnow, DEFINITIONS["audiences/customers"],
               as_of=dt.datetime.combine(day, dt.time(), dt.UTC))[0]
        for day in starts
    ]  # fmt: skip
    assert had == asked


def test_history_as_known_then(cdnow: Space, truth: dict[str, Any]) -> None:
    """Who had not ordered yet was not known; who had is the same person since."""
    day = dt.date(1997, 7, 1)
    then = backfill(cdnow, [day], owner="test", keys=["active"], knowledge="then")
    assert (
        then.audiences["active"][day] == truth["audience_sizes_by_quarter_end_active_90d"][str(day)]
    )


def test_history_of_traits(cdnow: Space, truth: dict[str, Any]) -> None:
    backfill(cdnow, [END.date()], owner="test", audiences=False)
    with cdnow.engine.session(cdnow.lake) as session:
        session.view("trait_history")
        totals = session.fetch(
            "SELECT key, sum(value::DECIMAL(18, 2))::DOUBLE AS total FROM trait_history "
            "WHERE history_date = '1998-07-01' GROUP BY key"
        ).to_pylist()
    assert {row["key"]: row["total"] for row in totals} == {
        "orders": truth["orders"],
        "revenue": truth["total_revenue"],
        "cds": truth["total_cds"],
    }


def test_repeated_rows_are_orders(cdnow: Space, truth: dict[str, Any]) -> None:
    same = """SELECT count(*) AS n FROM (
        SELECT row_number() OVER (PARTITION BY user_id, timestamp{}) AS nth
        FROM raw_events WHERE event = 'Order Completed') WHERE nth > 1"""
    found = {
        "rows_same_customer_and_day": rows(cdnow, same.format(""))[0]["n"],
        "identical_rows": rows(
            cdnow, same.format(", properties ->> '$.revenue', properties ->> '$.quantity'")
        )[0]["n"],
    }
    assert found == truth["duplicates"]
