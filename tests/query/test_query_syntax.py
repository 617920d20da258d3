"""Text to tree and back, and what an error says."""

from random import Random

import pytest

from personas_dagster.errors import QueryError
from personas_dagster.query import parse, unparse
from personas_dagster.query.names import COMPARATORS, FILTERS, REDUCERS
from tests.query import chance


@pytest.mark.parametrize("seed", range(20))
def test_parse_print_parse(seed: int) -> None:
    for one in chance.definitions(Random(seed), 50):
        tree = parse(one.query)
        assert parse(unparse(tree)) == tree
        assert unparse(parse(unparse(tree))) == unparse(tree)


@pytest.mark.parametrize(
    ("written", "printed"),
    [
        ("event('X').count() at_least 1".replace(" at_least 1", ".at_least(1)"),
         "event('X').count() >= 1"),
        ('trait("a") == "b"', "trait('a') = 'b'"),
        ("trait('a') = literal(1.50)", "trait('a') = 1.5"),
        ("trait('a')=TRUE or trait('b')=1 And not trait('c').exists()",
         "trait('a') = true OR trait('b') = 1 AND NOT trait('c').exists()"),
        ("(trait('a') = 1 OR trait('b') = 1) AND trait('c') = 1",
         "(trait('a') = 1 OR trait('b') = 1) AND trait('c') = 1"),
        ("NOT (trait('a') = 1)", "NOT trait('a') = 1"),
        ("NOT (trait('a') = 1 AND trait('b') = 1)", "NOT (trait('a') = 1 AND trait('b') = 1)"),
        ("all not ANY(trait('a') = 1)", "ALL NOT ANY trait('a') = 1"),
        ("Event('X') -- the event\n .COUNT()", "event('X').count()"),
        ("event('X').where({ property('a') > -1.0 }).count()",
         "event('X').where(property('a') > -1).count()"),
        ("event('X').sources({exclude: 'a', 'b'}).count()",
         "event('X').sources({exclude: ['a', 'b']}).count()"),
        ("event('X').sources(exclude: ['a']).count()",
         "event('X').sources({exclude: ['a']}).count()"),
        ("event('X').within(1 days).within(24 HOUR).count()",
         "event('X').within(1 day).within(24 hours).count()"),
        ("event('X').mode(property('a'))", "event('X').mode(property('a'), 2)"),
        ("event('X').max(property('a') AS Number)", "event('X').max(property('a') as number)"),
        (r"trait('it\'s') = '\\'", r"trait('it\'s') = '\\'"),
        (r"trait('a\.b') = '\n'", r"trait('a\\.b') = '\\n'"),
        ("trait('d').before_date(2024-01-05T10:00+02:00)",
         "trait('d').before_date(2024-01-05T10:00+02:00)"),
    ],
)  # fmt: skip
def test_printed(written: str, printed: str) -> None:
    assert unparse(parse(written)) == printed
    assert parse(printed) == parse(written)


def test_and_binds_tighter_than_or() -> None:
    a, b, c = (f"trait('{name}') = 1" for name in "abc")
    assert parse(f"{a} OR {b} AND {c}") == parse(f"{a} OR ({b} AND {c})")
    assert parse(f"{a} OR {b} AND {c}") != parse(f"({a} OR {b}) AND {c}")
    assert parse(f"NOT {a} AND {b}") == parse(f"(NOT {a}) AND {b}")


@pytest.mark.parametrize("name", [*FILTERS, *REDUCERS, *COMPARATORS])
def test_near_names_are_suggested(name: str) -> None:
    start = "trait('x')" if name in COMPARATORS else "event('x')"
    with pytest.raises(QueryError) as caught:
        parse(f"{start}.{name}q()")
    assert caught.value.suggestion == name
    assert str(caught.value).endswith(f"did you mean `{name}`?")


ERRORS = {
    "event('X').wihtin(7 days).count()": (1, 12, "wihtin", "within"),
    "evnt('X').count()": (1, 1, "evnt", "event"),
    "trait('a') = 1 ADN trait('b') = 2": (1, 16, "ADN", "AND"),
    "trait('a') = 1\n  AND foo('x') = 1": (2, 7, "foo", None),
    "event('X').within(7 dys).count()": (1, 21, "dys", "days"),
    "event('X').max(property('a') as nummer)": (1, 33, "nummer", "number"),
    "event('X').within(parnt: 7 days).count()": (1, 19, "parnt", "parent"),
    "event('X'": (1, 10, "end of the query", None),
    "": (1, 1, "end of the query", None),
    "trait('a": (1, 7, "'", None),
    "trait('a') = #": (1, 14, "#", None),
    "trait('a') = 1 = 2": (1, 16, "=", None),
    "event('X').within(1.5 days).count()": (1, 19, "1.5", None),
    "trait('a') = 2024-02-30": (1, 14, "2024-02-30", None),
    "trait('a..b') = 1": (1, 7, "a..b", None),
    "event('X').count().count()": (1, 20, "count", None),
    "trait('a').sum(property('b'))": (1, 12, "sum", None),
    "count()": (1, 1, "count", None),
    "entity('account').count() >= 1": (1, 1, "entity", None),
}


@pytest.mark.parametrize("text", ERRORS)
def test_error_says_where_and_what(text: str) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)
    error = caught.value
    assert (error.line, error.column, error.found, error.suggestion) == ERRORS[text]
    assert str(error).startswith(f"{error.line}:{error.column}: ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("event('X')", "a reducer"),
        ("event('X') > 1", "a reducer"),
        ("event('X').at_least(1)", "a reducer"),
        ("trait('a') AND trait('b') = 1", "a condition"),
        ("(trait('a') = 1) = 2", "a value"),
        ("event('X').where(property('a')).count()", "a condition"),
        ("event('X').sum(5)", "property(...) or context(...)"),
        ("event('X').within(7).count()", "a duration"),
        ("event(5).count()", "a string"),
        ("event(Shoes Bought).count()", "a name or text in quotes"),
        ("trait(plan) = 1", "a name or text in quotes"),
        ("event('X').between(7 days, 7 days).count()", "A < B"),
        ("event('X').between(10 days, 7 days).count()", "A < B"),
        ("event('X').count(1)", "no arguments"),
        ("trait('a').contains()", "a value"),
        ("event('X').mode(property('a'), 0)", None),
        ("event('X').mode(property('a'), 'x')", "a number"),
        ("event('X').sources('a').count()", "exclude:"),
        ("trait('a') = 1 trait('b') = 1", "the end of the query, AND, OR or `.`"),
        ("event('X').sum(property('a') as number)", None),
        ("event('X').within(99999 days).count()", None),
        ("trait('a').within_last(5)", "a duration"),
        ("trait('a').one_of(5 days)", "a value"),
    ],
)
def test_error_says_what_was_expected(text: str, expected: str | None) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)
    assert caught.value.expected == expected


def test_linked_entities_are_refused() -> None:
    with pytest.raises(QueryError, match="linked entities are not part of the platform yet"):
        parse("entity('account').where(property('a') = 1).count() >= 1")
