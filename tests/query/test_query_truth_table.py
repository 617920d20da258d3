"""Each comparator over absent, empty and ordinary values: who is told true."""

import re
from collections.abc import Iterable
from typing import Any

import pytest

from personas_dagster.query import Definition
from personas_dagster.query.names import COMPARATORS, SYMBOLS
from tests.query.running import answer, results, session
from tests.query.shop import NOW, days, did, people

VALUES: dict[str, Any] = {
    "missing": ...,
    "null": None,
    "empty": "",
    "a": "a",
    "ab": "ab",
    "A": "A",
    "15": 15,
    "15.0": 15.0,
    "'15'": "15",
    "'1e1'": "1e1",
    "2": 2,
    "true": True,
    "'true'": "true",
    "false": False,
    "[]": [],
    "{}": {},
    "list": ["a", 15.0],
    "object": {"a": 1.0},
}
ABSENT = {"missing", "null"}
HERE = VALUES.keys() - ABSENT
FIFTEEN = {"15", "15.0", "'15'"}
NUMBERS = FIFTEEN | {"2"}

TRUE_FOR: dict[str, set[str]] = {
    "x = 'a'": {"a"},
    "x = ''": {"empty"},
    "x = 15": FIFTEEN,
    "x = '15.0'": FIFTEEN,
    "x = true": {"true", "'true'"},
    "x = 'true'": {"true", "'true'"},
    "x = false": {"false"},
    "x = '[\"a\",15]'": {"list"},
    "x = '{\"a\":1}'": {"object"},
    "x = trait('missing')": set(),
    "x != 'a'": HERE - {"a"},
    "x != 15": HERE - FIFTEEN,
    "x != trait('missing')": set(),
    "NOT x = 'a'": VALUES.keys() - {"a"},
    "x != 'a' OR x.absent()": VALUES.keys() - {"a"},
    "x > 2": FIFTEEN,
    "x >= 2": NUMBERS,
    "x < 15": {"2"},
    "x <= '15'": NUMBERS,
    "x > 'a'": set(),
    "x < trait('missing')": set(),
    "x > trait('missing')": set(),
    "x >= trait('missing')": set(),
    "x <= trait('missing')": set(),
    "x >= ''": set(),
    "NOT x > 2": VALUES.keys() - FIFTEEN,
    "x.absent()": ABSENT,
    "x.exists()": HERE,
    "NOT x.exists()": ABSENT,
    "x.contains('a')": {"a", "ab", "false", "list", "object"},
    "x.contains('5', 'b')": FIFTEEN | {"ab", "list"},
    "x.contains('')": HERE,
    "x.contains(trait('missing'))": set(),
    "x.omits('a')": VALUES.keys() - {"a", "ab", "false", "list", "object"},
    "x.omits('5', 'b')": VALUES.keys() - FIFTEEN - {"ab", "list"},
    "x.omits('')": ABSENT,
    "x.omits(trait('missing'))": set(VALUES),
    "NOT x.omits('a')": {"a", "ab", "false", "list", "object"},
    "x.starts_with('a')": {"a", "ab"},
    "x.starts_with('')": HERE,
    "x.starts_with('15')": FIFTEEN,
    "x.starts_with(trait('missing'))": set(),
    "x.ends_with(trait('missing'))": set(),
    "x.ends_with('b')": {"ab"},
    "x.ends_with('5.0')": set(),
    "x.ends_with('e')": {"true", "'true'", "false"},
    "x.one_of('a', 'b', 15)": {"a"} | FIFTEEN,
    "x.one_of('')": {"empty"},
    "x.one_of(trait('missing'), 'a')": {"a"},
    "x.none_of('a', 'b', 15)": HERE - {"a"} - FIFTEEN,
    "x.none_of('')": HERE - {"empty"},
    "x.none_of(trait('missing'), 'a')": HERE - {"a"},
    "NOT x.one_of('a', 'b', 15)": VALUES.keys() - {"a"} - FIFTEEN,
    "x.before_date('2024-01-01')": set(),
    "x.before_date(trait('missing'))": set(),
    "x.after_date('2024-01-01')": set(),
    "x.within_last(7 days)": set(),
    "x.within_next(7 days)": set(),
    "x.before_last(7 days)": set(),
    "x.after_next(7 days)": set(),
}

# As of 2024-06-15T12:00:00Z.
DATES: dict[str, Any] = {
    "now": "2024-06-15T12:00:00Z",
    "next_moment": "2024-06-15T12:00:00.000001Z",
    "today": "2024-06-15",
    "week_ago": "2024-06-08T12:00:00Z",
    "before_week_ago": "2024-06-08T11:59:59.999999Z",
    "week_ago_day": "2024-06-08",
    "eight_days_ago": "2024-06-07",
    "in_a_week": "2024-06-22T14:00:00+02:00",
    "in_a_week_day": "2024-06-22",
    "in_eight_days": "2024-06-23",
    "no_zone": "2024-06-15T12:00",
    "number": 20240615,
    "basic_form": "20240615",
    "impossible": "2024-06-31",
    "words": "yesterday",
    "missing": ...,
}
PAST_EDGE = {"week_ago", "week_ago_day"}
FUTURE_EDGE = {"in_a_week", "in_a_week_day"}
NOWS = {"now", "today", "no_zone"}
TRUE_FOR_DATES: dict[str, set[str]] = {
    "x.within_last(7 days)": NOWS | PAST_EDGE,
    "x.within_next(7 days)": NOWS | FUTURE_EDGE | {"next_moment"},
    "x.before_last(7 days)": PAST_EDGE | {"before_week_ago", "eight_days_ago"},
    "x.after_next(7 days)": FUTURE_EDGE | {"in_eight_days"},
    "x.within_last(0 days)": NOWS,
    "x.before_date('2024-06-08')": {"eight_days_ago"},
    "x.before_date(2024-06-08T12:00:00Z)": {"eight_days_ago", "week_ago_day", "before_week_ago"},
    "x.after_date(2024-06-22)": {"in_a_week", "in_eight_days"},
    "x.after_date('2024-06-22T12:00:00Z')": {"in_eight_days"},
    "x.after_date('yesterday')": set(),
    "x.after_date(trait('missing'))": set(),
    "x = 2024-06-15": {"today"},
}


Told = dict[str, set[str]]


@pytest.fixture(scope="module", params=["trait('x')", "property('x')"])
def told(request: pytest.FixtureRequest) -> Told:
    """Each condition with those for whom it is true, all asked in one plan."""
    return _ask(TRUE_FOR, VALUES, request.param)


@pytest.fixture(scope="module", params=["trait('x')", "property('x')"])
def told_of_dates(request: pytest.FixtureRequest) -> Told:
    return _ask(TRUE_FOR_DATES, DATES, request.param)


@pytest.mark.parametrize("condition", TRUE_FOR)
def test_of_values(condition: str, told: Told) -> None:
    assert told[condition] == TRUE_FOR[condition]


@pytest.mark.parametrize("condition", TRUE_FOR_DATES)
def test_of_dates(condition: str, told_of_dates: Told) -> None:
    assert told_of_dates[condition] == TRUE_FOR_DATES[condition]


@pytest.mark.parametrize("name", COMPARATORS)
def test_every_comparator_has_its_rows(name: str) -> None:
    """With an ordinary value on the right, and with an absent one where there is a value."""
    rows = [one for one in (*TRUE_FOR, *TRUE_FOR_DATES) if name == _comparator(one)]
    assert rows
    if COMPARATORS[name] not in ("nothing", "duration"):
        absent = [one for one in rows if "trait('missing')" in one]
        assert absent and len(absent) < len(rows)


def _comparator(condition: str) -> str:
    """The name of the comparator in a condition that begins with `x`."""
    found = re.match(r"x(?:\.(\w+)\(| (\S+) )", condition)
    return found[1] or SYMBOLS[found[2]] if found else ""


def test_of_constants_on_both_sides() -> None:
    world = people("somebody")
    conditions = ("1 = 1.0", "'a' = 'a'", "'15' > 2", "5.one_of(4, 5)", "'ab'.contains('b')")
    assert answer(" AND ".join(conditions), world, NOW) == {"somebody": True}
    assert answer("'a' = 'A'", world, NOW) == {}


def _ask(conditions: Iterable[str], values: dict[str, Any], x: str) -> Told:
    traits = {who: {} if value is ... else {"x": value} for who, value in values.items()}
    world = people(**traits)
    for who, some in traits.items():
        did(world, who, "X", days(1), **some)
    definitions = []
    for condition in conditions:
        query = re.sub(r"\bx\b", lambda _: x, condition)
        if x.startswith("property"):
            query = f"event('X').where({query}).count() >= 1"
        definitions.append(Definition(condition, "audience", "users", query))
    told: Told = {condition: set() for condition in conditions}
    with session() as one:
        for _, condition, who in results(one, world, definitions, NOW):
            told[condition].add(who)
    return told
