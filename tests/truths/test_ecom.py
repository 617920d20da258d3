"""The clickstream of a shop: what comes out is what the source's rows say."""

import datetime as dt
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from personas_dagster import asking
from personas_dagster.answers.history import backfill
from personas_dagster.digests import digests
from personas_dagster.spaces import Space
from tests.place import Place

AS_OF = dt.datetime(2024, 7, 1, tzinfo=dt.UTC)
DEFINITIONS = {
    "computed_traits/orders": "event('Order Completed').count()",
    "computed_traits/views": "event('Product Viewed').count()",
    "computed_traits/added": "event('Product Added').count()",
    "audiences/buyers": "event('Order Completed').count() >= 1",
    "audiences/buyers_ge_2": "trait('orders') >= 2",
    "audiences/no_order": (
        "query: event('Product Added').count() >= 1 AND event('Order Completed').count() = 0\n"
        "include_anonymous: true\n"
    ),
}
# Steps that are tracked events; the others are pages of that name.
TRACKED = {
    "product_view": "Product Viewed",
    "add_to_cart": "Product Added",
    "wishlist_add": "Product Added to Wishlist",
    "shipping_details": "Checkout Step Completed",
    "payment_details": "Payment Info Entered",
    "payment_error": "Payment Failed",
    "support_chat": "Support Chat Opened",
    "checkout_bug": "Checkout Bug",
    "purchase": "Order Completed",
}


def fill(place: Place, *files: Path) -> Space:
    place.define(DEFINITIONS)
    space = place.space
    space.landing.land(files, now=AS_OF)
    return place.refresh(as_of=AS_OF, space=space)


@pytest.fixture(scope="module")
def truth(real_data: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((real_data / "ecom.truth.json").read_text())
    return found


@pytest.fixture(scope="module")
def ecom(new_place: Callable[[], Place], real_data: Path) -> Space:
    return fill(new_place(), real_data / "ecom.jsonl.gz")


def one(space: Space, query: str) -> Any:
    with space.session() as session:
        session.view("raw_events")
        return session.fetch(query).column(0)[0].as_py()


def sizes(space: Space) -> Mapping[str, int]:
    with space.session() as session:
        rows = session.fetch("SELECT audience, count(*) AS n FROM members GROUP BY ALL")
    return {row["audience"]: row["n"] for row in rows.to_pylist()}


def test_messages_and_profiles(ecom: Space, truth: dict[str, Any]) -> None:
    assert one(ecom, "SELECT count(*) FROM raw_events") == truth["events"]
    assert (
        one(ecom, "SELECT count(*) FROM raw_events WHERE type = 'identify'")
        == truth["identify_added"]
    )
    assert (
        one(ecom, "SELECT count(*) FROM raw_events WHERE user_id IS NULL")
        == truth["events_without_userId"]
    )
    assert one(ecom, "SELECT count(*) FROM graph_profiles") == truth["profiles_expected"]
    kinds = "SELECT count(*) FROM graph_identifiers WHERE type = '{}'".format
    assert one(ecom, kinds("anonymous_id")) == truth["anonymous_ids"]
    assert one(ecom, kinds("user_id")) == truth["users_ever_known"]


def test_devices_never_known(ecom: Space, truth: dict[str, Any]) -> None:
    unknown = """SELECT count(*) FROM graph_identifiers i WHERE type = 'anonymous_id' AND NOT EXISTS
        (SELECT 1 FROM graph_identifiers u
         WHERE u.profile_id = i.profile_id AND u.type = 'user_id')"""
    assert one(ecom, unknown) == truth["devices_never_known"]


def test_traits_add_up(ecom: Space, truth: dict[str, Any]) -> None:
    total = "SELECT sum(value::BIGINT)::BIGINT FROM trait_values WHERE key = '{}'".format
    assert one(ecom, total("orders")) == truth["orders"]
    assert one(ecom, total("views")) == truth["product_viewed"]
    assert one(ecom, total("added")) == truth["product_added"]


def test_audiences(ecom: Space, truth: dict[str, Any]) -> None:
    found = sizes(ecom)
    assert found["buyers"] == truth["buyers"]
    assert found["buyers_ge_2"] == truth["buyers_ge_2"]


def test_added_and_never_ordered(ecom: Space, truth: dict[str, Any]) -> None:
    assert sizes(ecom)["no_order"] == truth["profiles_with_add_and_no_order"]


def test_events_by_step(ecom: Space, truth: dict[str, Any]) -> None:
    """Each step's count, through the query language: the sum over all profiles."""
    steps = sorted(truth["event_counts"])
    asked = asking.ask(
        [
            f"event('{TRACKED[step]}').count()"
            if step in TRACKED
            else f"event('Page Viewed').where(property('page_name') = '{step}').count()"
            for step in steps
        ]
    )
    with asking.answers(ecom, asked, as_of=AS_OF) as session:
        totals = session.fetch(
            "SELECT key, sum(value::BIGINT)::BIGINT AS n FROM results GROUP BY 1"
        )
    lines = {one.definition.key: steps[one.line - 1] for one in asked}
    assert {lines[r["key"]]: r["n"] for r in totals.to_pylist()} == truth["event_counts"]


def test_step_is_kept(ecom: Space, truth: dict[str, Any]) -> None:
    with ecom.session() as session:
        session.view("events")
        rows = session.fetch(
            "SELECT properties ->> '$.step' AS step, count(*) AS n FROM events GROUP BY ALL"
        )
    found = {row["step"]: row["n"] for row in rows.to_pylist() if row["step"]}
    assert found == {step: truth["event_counts"][step] for step in TRACKED if step != "purchase"}


def test_same_input_same_digests(
    ecom: Space, new_place: Callable[[], Place], real_data: Path
) -> None:
    again = fill(new_place(), real_data / "ecom.jsonl.gz")
    assert digests(again) == digests(ecom)


def test_history(ecom: Space, truth: dict[str, Any]) -> None:
    """What the refresh found, through the backfill."""
    day = AS_OF.date()
    found = backfill(ecom, [day], owner="test")
    assert {key: by_day[day] for key, by_day in found.audiences.items()} == {
        "buyers": truth["buyers"],
        "buyers_ge_2": truth["buyers_ge_2"],
        "no_order": truth["profiles_with_add_and_no_order"],
    }
    with ecom.engine.session(ecom.lake) as session:
        session.view("trait_history")
        query = "SELECT key, sum(value::BIGINT)::BIGINT AS n FROM trait_history GROUP BY key"
        totals = {row["key"]: row["n"] for row in session.fetch(query).to_pylist()}
    assert totals == {
        "orders": truth["orders"],
        "views": truth["product_viewed"],
        "added": truth["product_added"],
    }
