"""Explain: every node says what the evaluation says, and names the messages that decided."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from personas_dagster import asking
from personas_dagster.answers.explain import explain
from personas_dagster.errors import PersonasError
from tests.answers.conftest import DAY
from tests.place import NOW, Place


def nodes(tree: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield tree
    for part in (*tree.get("of", ()), *tree.get("values", ())):
        yield from nodes(part)


def ids(node: Mapping[str, Any], name: str = "messages") -> list[str]:
    return [message["message_id"] for message in node[name]]


@pytest.mark.parametrize("key", ["buyers", "regulars", "viewers"])
@pytest.mark.parametrize("days", [0, 4, 8, 60])
def test_agrees_with_the_evaluation(shop: Place, key: str, days: int) -> None:
    space, as_of = shop.space, NOW - days * DAY
    asked = asking.ask([f"trait('{key}') = true"])
    with asking.answers(space, asked, as_of=as_of) as session:
        members = {row["profile_id"] for row in asking.rows(session, asked)}
    for who in ("user_id:ann", "user_id:bob", "user_id:cleo", "anonymous_id:x"):
        found = explain(space, key, who, as_of=as_of)
        assert found.outcome == (found.profile_id in members), who
        assert found.tree["outcome"] == found.outcome


def test_why_in(shop: Place) -> None:
    found = explain(shop.space, "regulars", "user_id:ann")
    assert (found.outcome, found.as_of, found.member_since) == (True, NOW, NOW)
    assert found.tree["kind"] == "and" and found.tree["outcome"]
    reference, orders = found.tree["of"]
    assert orders["text"] == "event('Order').count() >= 2" and orders["value"] == 2
    assert ids(orders) == ["ann-order-3", "ann-order-9"]
    assert orders["messages"][0]["properties"] == {"revenue": 12.5}
    assert reference["value"] is True
    assert reference["because"]["definition"] == "buyers"
    assert ids(reference["because"]) == ["ann-order-3", "ann-order-9"]


def test_why_not(shop: Place) -> None:
    found = explain(shop.space, "regulars", "user_id:bob")
    assert (found.outcome, found.member_since) == (False, None)
    parts = [(part["outcome"], part["value"]) for part in found.tree["of"]]
    assert parts == [(True, True), (False, 1)]
    assert ids(found.tree["of"][1]) == ["bob-order-5"]


def test_what_left_messages_out(place: Place) -> None:
    place.define({
        "audiences/big": "event('Order').where(property('revenue') > 20 "
                         "AND property('currency') = 'EUR').within(7 days).count() >= 1",
    })  # fmt: skip
    rows = ((1, 10, "EUR"), (2, 30, "USD"), (30, 30, "EUR"), (40, 1, "USD"))
    place.refresh(
        *({"type": "track", "event": "Order", "userId": "ann", "messageId": f"m{days}",
           "timestamp": (NOW - days * DAY).isoformat(),
           "properties": {"revenue": revenue, "currency": currency}}
          for days, revenue, currency in rows)
    )  # fmt: skip
    tree = explain(place.space, "big", "user_id:ann").tree
    assert (tree["outcome"], tree["value"], tree["messages"]) == (False, 0, [])
    revenue, currency = "where(property('revenue') > 20)", "where(property('currency') = 'EUR')"
    assert {one["message_id"]: one["left_out_by"] for one in tree["left_out"]} == {
        "m1": [revenue],
        "m2": [currency],
        "m30": ["within(7 days)"],
        "m40": [revenue, currency, "within(7 days)"],
    }


def test_not_looked_at(place: Place) -> None:
    place.define({"audiences/seen": "event('X').count() >= 1"})
    place.refresh({"type": "track", "event": "X", "anonymousId": "x", "messageId": "m"})
    found = explain(place.space, "seen", "anonymous_id:x", as_of=NOW + DAY)
    looked_at, condition = found.tree["of"]
    assert not found.outcome and not looked_at["outcome"] and condition["outcome"]
    assert looked_at["text"] == "holds a user_id, an email, an android.idfa or an ios.idfa"


def test_which_messages_decide(place: Place) -> None:
    order = "event('Order')"
    place.define({
        "audiences/a": f"{order}.first(property('n')) = 0 AND {order}.max(property('n')) = 9 "
                       f"AND {order}.count() >= 1",
    })  # fmt: skip
    rows = enumerate([0, 3, 9, 1, 2, 5, 4])
    place.refresh(
        *({"type": "track", "event": "Order", "userId": "ann", "messageId": f"n{n}",
           "timestamp": (NOW - (20 - day) * DAY).isoformat(), "properties": {"n": n}}
          for day, n in rows)
    )  # fmt: skip
    first, largest, counted = explain(place.space, "a", "user_id:ann").tree["of"]
    assert ids(first) == ["n0", "n3", "n9", "n1", "n2"]
    assert ids(largest) == ["n9", "n5", "n4", "n3", "n2"]
    assert ids(counted) == ["n4", "n5", "n2", "n1", "n9"] and counted["matched"] == 7


def test_funnel(place: Place) -> None:
    place.define({
        "audiences/carts": "event('Added').where(NOT event('Order').within(parent: 1 day)"
                           ".count() >= 1).count() >= 1",
    })  # fmt: skip
    place.refresh(
        *({"type": "track", "event": event, "userId": user, "messageId": f"{user}-{event}-{days}",
           "timestamp": (NOW - days * DAY).isoformat()}
          for user, event, days in (("ann", "Added", 9), ("ann", "Added", 5.5), ("ann", "Order", 5),
                                    ("bob", "Added", 5.5), ("bob", "Order", 5)))
    )  # fmt: skip
    assert ids(explain(place.space, "carts", "user_id:ann").tree) == ["ann-Added-9"]
    bob = explain(place.space, "carts", "user_id:bob").tree
    assert ids(bob, "left_out") == ["bob-Added-5.5"]
    assert bob["left_out"][0]["left_out_by"][0].startswith("where(NOT event('Order')")


def test_custom_trait_has_its_source(place: Place) -> None:
    place.define({"audiences/pro": "trait('plan') = 'pro' OR NOT trait('plan').exists()"})
    place.refresh({"type": "identify", "userId": "ann", "traits": {"plan": "free"},
                   "timestamp": "2026-02-01T00:00:00Z"})  # fmt: skip
    tree = explain(place.space, "pro", "user_id:ann").tree
    plan, absent = tree["of"]
    assert (tree["kind"], plan["value"], plan["outcome"]) == ("or", "free", False)
    assert plan["source_id"] == "files"
    assert plan["updated_at"] == dt.datetime(2026, 2, 1, tzinfo=dt.UTC)
    assert (absent["kind"], absent["of"][0]["outcome"]) == ("not", True)
    before = explain(
        place.space, "pro", "user_id:ann", as_of=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    )
    assert before.outcome and before.tree["of"][0]["value"] is None


def test_users_of_an_account(shop: Place) -> None:
    tree = explain(shop.space, "firms", "group_id:acme").tree
    assert (tree["kind"], tree["outcome"], tree["value"]) == ("any", True, "1 of 2 users")
    assert [(part["user"], part["outcome"], part["value"]) for part in tree["of"]] == [
        ("ann", True, 2), ("bob", False, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("key", "who", "wanted"),
    [
        ("byers", "user_id:ann", "no audience `byers`.*expected one of: buyers"),
        ("revenue", "user_id:ann", "no audience `revenue`"),
        ("buyers", "user_id:nobody", "no profile holds user_id:nobody"),
        ("buyers", "group_id:acme", "is of accounts, and audience `buyers` is of users"),
    ],
)
def test_refused(shop: Place, key: str, who: str, wanted: str) -> None:
    with pytest.raises(PersonasError, match=wanted):
        explain(shop.space, key, who)
