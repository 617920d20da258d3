"""Every example of docs/query-language.md, answered for the same four people and three firms.

The names of the tests are the examples as they stand there; one that is added to the docs and not
here fails. What is no query by itself (a stream, a property) is shown in one, `@` being its place.
"""

from __future__ import annotations

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from personas_dagster.query import Definition, parse
from tests.query.oracle import Message, World
from tests.query.running import results, session
from tests.query.shop import NOW, account, days, did, people

DOCS = Path(__file__).parents[2].joinpath("docs", "query-language.md").read_text("utf-8")
ORDERS, ALL = "event('Order Completed')", {"ann", "bob", "cleo", "dora"}
ABANDONED = """event('Product Added').where(
  NOT event('Order Completed').within(parent: 1 day).count() >= 1
).within(7 days).count() >= 1"""
OF_PRODUCT = """event('Product Added').where(
  NOT event('Order Completed').where(
    property('products.$.product_id') = property(parent: 'product_id')
  ).within(parent: 1 day).count() >= 1
).count() >= 1"""
OF_PARENT = "event('Product Added').where(event('Order Completed').where(@.exists()).count() >= 1)"
FUNNEL = "event('Product Added').where(event('Order Completed').@.count() >= 1).count()"

# Each example with its members, or with its values.
USERS: dict[str, set[str] | dict[str, Any]] = {
    f"{ORDERS}.within(30 days).count() >= 3 AND NOT trait('plan') = 'enterprise'": {"ann"},
    "event('X').within(7 days).count() >= 1": {"ann"},
    "event('X').count() = 0": ALL - {"ann"},
    "event('A').count() > event('B').count()": {"ann"},
    ABANDONED: {"bob"},
    OF_PRODUCT: {"bob", "dora"},
    "trait('plan')": {"ann": "pro", "bob": "free", "dora": "enterprise"},
    "trait('address.city')": {"ann": "Ulm"},
    "literal(100)": dict.fromkeys(ALL, 100),
    f"{ORDERS}.count()": {"ann": 4, "bob": 1, "dora": 3},
    f"{ORDERS}.sum(property('total'))": {"ann": 180, "bob": 200},
    f"{ORDERS}.avg(property('total'))": {"ann": 60, "bob": 200},
    f"{ORDERS}.min(property('total'))": {"ann": 30, "bob": 200},
    f"{ORDERS}.max(property('total'))": {"ann": 120, "bob": 200},
    f"{ORDERS}.mode(property('category'), 2)": {"ann": "a"},
    f"{ORDERS}.first(property('coupon'))": {"ann": "X"},
    f"{ORDERS}.last(property('coupon'))": {"ann": "Y"},
    f"{ORDERS}.unique(property('category'))": {"ann": ["a", "b"], "bob": ["c"]},
    "trait('plan').equals('pro')": {"ann"},
    "trait('plan') = 'pro'": {"ann"},
    "trait('plan') == 'pro'": {"ann"},
    "trait('plan') != 'pro'": {"bob", "dora"},
    "NOT trait('plan') = 'pro'": {"bob", "cleo", "dora"},
    "trait('spend') > 100": {"ann"},
    "trait('spend') >= 100": {"ann", "bob"},
    "trait('spend') < 100": {"dora"},
    "trait('spend') <= 100": {"bob", "dora"},
    "trait('plan').absent()": {"cleo"},
    "trait('plan').exists()": ALL - {"cleo"},
    "trait('email').contains('@example.com', '@example.org')": {"ann", "bob"},
    "trait('email').omits('@example.com')": ALL - {"ann"},
    "trait('email').starts_with('info@')": {"ann"},
    "trait('email').ends_with('.org')": {"bob"},
    "trait('plan').one_of('pro', 'team')": {"ann"},
    "trait('plan').none_of('pro', 'team')": {"bob", "dora"},
    "trait('renews_at').before_date('2024-03-01')": {"bob"},
    "trait('renews_at').after_date(2024-03-01T12:00:00Z)": {"ann", "dora"},
    "trait('trial_started').within_last(7 days)": {"ann"},
    "trait('renews_at').within_next(7 days)": {"ann"},
    "trait('last_order').before_last(30 days)": {"ann"},
    "trait('renews_at').after_next(30 days)": {"dora"},
}
ACCOUNTS = {
    "trait('plan') = 'business' AND NOT ANY event('Signed In').within(30 days).count() >= 1":
    {"quiet"},
}  # fmt: skip
PARTS: dict[str, tuple[str, dict[str, Any]]] = {
    ORDERS: ("@.count()", {"ann": 4, "bob": 1, "dora": 3}),
    f"{ORDERS}.where(property('total') > 100 AND property('currency') = 'EUR')":
        ("@.count()", {"ann": 1}),
    f"{ORDERS}.within(7 days)": ("@.count()", {"ann": 1, "bob": 0, "dora": 3}),
    f"{ORDERS}.between(7 days, 10 days)": ("@.count()", {"ann": 1, "bob": 1, "dora": 0}),
    f"{ORDERS}.sources({{exclude: ['web', 'legacy']}})": ("@.count()", {"dora": 3}),
    "event('Page Viewed').expires_after(30 minutes)": ("@.count()", {"ann": 2, "bob": 0}),
    "property('total')": (f"{ORDERS}.where(@.exists()).count()", {"ann": 4, "bob": 1}),
    "property('shipping.city')": (f"{ORDERS}.where(@ = 'Ulm').count()", {"ann": 1}),
    "property('products.$.sku')": (f"{ORDERS}.where(@ = 's2').count()", {"ann": 1}),
    "NOT property('tags.$').contains('sale')":
        (f"{ORDERS}.where(@).count()", {"ann": 3, "bob": 1, "dora": 3}),
    r"property('utm\\.source')": (f"{ORDERS}.where(@ = 'mail').count()", {"ann": 1}),
    "context('page.url')": (f"{ORDERS}.where(@.ends_with('/cart')).count()", {"bob": 1}),
    "within(7 days).within(2 days)": (f"{ORDERS}.@.count()", {"ann": 0, "bob": 0, "dora": 0}),
    "where(property('total') >= trait('average_order'))": (f"{ORDERS}.@.count()", {"ann": 1}),
    "min(property('coupon') as string)": (f"{ORDERS}.@", {"ann": "X"}),
    "max(property('coupon') as string)": (f"{ORDERS}.@", {"ann": "Y"}),
    "unique(property('category')).count()": (f"{ORDERS}.@", {"ann": 2, "bob": 1, "dora": 0}),
    "after_date('2024-03-01')": ("trait('renews_at').@", {"ann": True, "dora": True}),
    "within(parent: 1 day)": (FUNNEL, {"ann": 1, "dora": 1}),
    "between(parent: 1 hour, 1 day)": (FUNNEL, {"ann": 1, "dora": 1}),
    "expires_after(parent: 30 minutes)":
        ("event('Page Viewed').where(event('Page Viewed').@.count() >= 1).count()", {"ann": 1}),
    "property(parent: 'product_id')": (f"{OF_PARENT}.count()", {"ann": 1, "dora": 1}),
}  # fmt: skip
NO_EXAMPLES = {"trait('k')", "literal(x)", "between(10 days, 7 days)"}  # the last is an error


def shown() -> set[str]:
    """The examples of the documentation: blocks, and code in the text that is of the language."""
    blocks = re.findall(r"```\n(.*?)\n```", DOCS, re.S)
    code = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", DOCS, flags=re.S))
    begins = re.compile(r"(NOT )?(event|trait|property|context|literal|where|within|between"
                        r"|expires_after|min|max|unique|after_date)\(")  # fmt: skip
    found = {text for text in (*blocks, *code) if begins.match(text) and "..." not in text}
    return found - NO_EXAMPLES


def test_every_example_is_here() -> None:
    assert shown() == {*USERS, *ACCOUNTS, *PARTS}


@pytest.fixture(scope="module")
def answers() -> dict[str, dict[str, Any]]:
    """Every example to its values by person, all from one plan."""
    asked = {text: ("users", text) for text in USERS}
    asked |= {text: ("accounts", text) for text in ACCOUNTS}
    asked |= {text: ("users", inside.replace("@", text)) for text, (inside, _) in PARTS.items()}
    definitions = [
        Definition(text, "audience" if parse(query).type == "boolean" else "trait",
                   collection, query, include_anonymous=None)
        for text, (collection, query) in asked.items()
    ]  # fmt: skip
    found: dict[str, dict[str, Any]] = {text: {} for text in asked}
    with session() as one:
        for (_, key, who), value in results(one, shop(), definitions, NOW).items():
            found[key][who] = value
    return found


def shop() -> World:
    world = people(
        ann={"plan": "pro", "spend": 150, "email": "info@example.com", "address": {"city": "Ulm"},
             "average_order": 60,
             "renews_at": "2024-06-20", "trial_started": "2024-06-10", "last_order": "2024-05-01"},
        bob={"plan": "free", "spend": 100, "email": "bob@example.org", "last_order": "2024-06-10",
             "renews_at": "2024-02-01T00:00:00Z", "trial_started": "2024-06-01"},
        cleo={},
        dora={"plan": "enterprise", "spend": "20", "email": "dora@other.net",
              "renews_at": "2024-08-01"},
    )  # fmt: skip
    for ago, more in (
        (40, {"total": 30, "currency": "EUR", "category": "a", "coupon": "X",
              "shipping": {"city": "Ulm"}, "utm.source": "mail"}),
        (20, {"total": 120, "currency": "EUR", "category": "b", "tags": ["new", "sale"]}),
        (8, {"total": "30", "currency": "EUR", "category": "a", "coupon": "Y"}),
        (2, {"total": "free", "currency": "USD", "category": "b",
             "products": [{"sku": "s1"}, {"sku": "s2", "product_id": "p1"}]}),
    ):  # fmt: skip
        did(world, "ann", "Order Completed", days(ago), **more)
    paid = {"total": 200, "currency": "USD", "category": "c"}
    world.messages.append(
        Message("Order Completed", "bob", NOW - days(9), "from-legacy", paid,
                {"page": {"url": "https://shop.example/cart"}}, source_id="legacy")
    )  # fmt: skip
    for ago in (3, 4, 5):
        world.messages.append(
            Message("Order Completed", "dora", NOW - days(ago), f"d{ago}", source_id="app")
        )
    did(world, "ann", "Product Added", days(2.5), product_id="p1")
    did(world, "bob", "Product Added", days(3), product_id="p1")
    did(world, "dora", "Product Added", days(3.5), product_id="p9")
    for who, ago in (("ann", 10), ("ann", 25), ("ann", 120), ("bob", 31)):
        did(world, who, "Page Viewed", timedelta(minutes=ago))
    for event in "XAAB":
        did(world, "ann", event, days(1))
    did(world, "ann", "Signed In", days(1))
    did(world, "bob", "Signed In", days(40))
    account(world, "awake", "ann", "cleo", plan="business")
    account(world, "quiet", "bob", plan="business")
    account(world, "small", "cleo", plan="free")
    return world


@pytest.mark.parametrize("example", [*USERS, *ACCOUNTS])
def test_example(example: str, answers: dict[str, dict[str, Any]]) -> None:
    expected = USERS.get(example) or ACCOUNTS[example]
    if isinstance(expected, set):
        expected = dict.fromkeys(expected, True)
    assert decoded(answers[example]) == expected


@pytest.mark.parametrize("part", PARTS)
def test_part(part: str, answers: dict[str, dict[str, Any]]) -> None:
    assert decoded(answers[part]) == PARTS[part][1]


def decoded(values: dict[str, str]) -> dict[str, Any]:
    return {who: json.loads(value) for who, value in values.items()}
