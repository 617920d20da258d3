"""The type rules, references and the order of evaluation."""

from typing import Any

import pytest

from personas_dagster.errors import QueryError
from personas_dagster.query import Definition, check, order


def audience(query: str, key: str = "k", collection: Any = "users") -> Definition:
    return Definition(key, "audience", collection, query)


def trait(query: str, key: str = "k", collection: Any = "users") -> Definition:
    return Definition(key, "trait", collection, query)


FUNNEL = "event('A').where(event('B'){}.count() >= 1).count() >= 1"


@pytest.mark.parametrize(
    ("definition", "message"),
    [
        (audience("event('A').count()"), "an audience needs a condition"),
        (trait("event('A').count() > 1"), "a trait needs a value"),
        (audience("property('a') = 1"), "belongs to an event"),
        (audience("context('a') = 1"), "belongs to an event"),
        (trait("property('a')"), "belongs to an event"),
        (audience("ANY trait('a') = 1"), "ANY is about the users of an account"),
        (audience("NOT ALL trait('a') = 1"), "ALL is about the users of an account"),
        (audience("ANY ALL trait('a') = 1", collection="accounts"), "inside another ANY or ALL"),
        (
            audience("event('A').where(ANY trait('a') = 1).count() = 1", collection="accounts"),
            r"inside where\(\.\.\.\)",
        ),
        (audience("event('A').within(parent: 1 day).count() > 1"), "only known to a child event"),
        (trait("event('A').where(property(parent: 'a') = 1).count()"), "only known to a child"),
        (trait("event('A').sum(property(parent: 'a'))"), "only known to a child"),
        (trait("trait('a.$')"), "a trait needs one"),
        (trait("event('A').expires_after(1 day).expires_after(2 days).count()"), "one session"),
        (
            audience(FUNNEL.format(".where(event('C').count() >= 1)")),
            "nested too deep",
        ),
    ],
)
def test_refused(definition: Definition, message: str) -> None:
    with pytest.raises(QueryError, match=message):
        check(definition)


@pytest.mark.parametrize(
    "definition",
    [
        audience(FUNNEL.format(".within(parent: 1 day)")),
        audience(FUNNEL.format(".where(property('a') = property(parent: 'a'))")),
        audience(FUNNEL.format(".where(context('a') = context(parent: 'a'))")),
        audience("ANY (trait('a') = 1 AND event('A').count() > 1)", collection="accounts"),
        audience("ALL NOT trait('a') = 1 OR NOT ANY trait('b') = 1", collection="accounts"),
        trait("5"),
        trait("trait('a.b')"),
    ],
)
def test_accepted(definition: Definition) -> None:
    assert not check(definition).warnings


def test_fifty_comparisons_and_no_more() -> None:
    one = "trait('a') = 1"
    check(audience(" OR ".join([one] * 50)))
    with pytest.raises(QueryError, match="at most 50 comparisons, this one has 51") as caught:
        check(audience(" OR\n".join([one] * 51)))
    assert (caught.value.line, caught.value.column) == (51, 1)


def test_comparisons_inside_where_count() -> None:
    inner = " AND ".join(["property('a') = 1"] * 50)
    with pytest.raises(QueryError, match="at most 50"):
        check(audience(f"event('A').where({inner}).count() > 1"))


def test_what_a_query_touches() -> None:
    checked = check(
        audience(
            "event('A').where(property('x') > trait('spend.eur') AND event('B').count() = 1)"
            ".count() > 1 OR trait('vip') = true"
        )
    )
    assert checked.type == "boolean"
    assert checked.references == {"spend", "vip"}
    assert checked.events == {"A", "B"}


@pytest.mark.parametrize(
    ("query", "warning"),
    [
        ("event('A').count() = 'many'", "1:1: a number is compared with a string, as texts"),
        (
            "event('A').count().contains('1')",
            "1:1: `contains` reads the number on its left as text",
        ),
        ("trait('a') > 'b'", "1:1: `greater_than` compares numbers only; this is never true"),
        ("trait('a') > true", "1:1: `greater_than` compares numbers only; this is never true"),
        ("trait('a').before_date('soon')", "`soon` is not an ISO 8601 date; this is never true"),
        ("event('A').count().within_last(1 day)", "a number is not a date; this is never true"),
    ],
)
def test_unlike_kinds_warn(query: str, warning: str) -> None:
    (found,) = check(audience(query)).warnings
    assert warning in found


@pytest.mark.parametrize(
    "query",
    ["event('A').count() = '1'", "trait('a') = true", "trait('a') > '15.0'", "trait('a') = 'x'"],
)
def test_like_kinds_do_not_warn(query: str) -> None:
    assert check(audience(query)).warnings == ()


def keys(levels: list[list[Definition]]) -> list[list[str]]:
    return [[one.key for one in level] for level in levels]


def test_order_follows_references() -> None:
    top = audience("trait('left') = true AND trait('right') = true", "top")
    left = audience("trait('base') > 1", "left")
    right = audience("event('A').where(property('x') > trait('base')).count() > 1", "right")
    base = trait("event('A').count()", "base")
    free = trait("trait('custom')", "free")
    assert keys(order([top, left, right, base, free])) == [
        ["base", "free"],
        ["left", "right"],
        ["top"],
    ]


def test_order_across_collections() -> None:
    user = trait("event('A').count()", "active")
    account = audience("ANY trait('active') > 1", "busy", "accounts")
    through = audience("trait('busy') = true", "at_work")
    assert keys(order([through, account, user])) == [["active"], ["busy"], ["at_work"]]


def test_account_traits_are_not_reached() -> None:
    account = trait("event('A').count()", "active", "accounts")
    user = audience("trait('active') > 1", "u")
    own = audience("trait('u') = true", "own", "accounts")
    assert len(order([user, account, own])) == 1


def test_cycle_names_the_chain() -> None:
    cycle = [audience(f"trait('{of}') = true", key) for key, of in ("ab", "bc", "ca")]
    with pytest.raises(QueryError, match=r"a -> b -> c -> a"):
        order(cycle)
    with pytest.raises(QueryError, match=r"a -> a"):
        order([trait("trait('a')", "a")])


def test_chain_before_a_cycle_is_left_out() -> None:
    into = audience("trait('a') = true", "into")
    cycle = [audience(f"trait('{of}') = true", key) for key, of in ("ab", "ba")]
    with pytest.raises(QueryError) as caught:
        order([into, *cycle])
    assert "a -> b -> a" in str(caught.value) and "into" not in str(caught.value)
