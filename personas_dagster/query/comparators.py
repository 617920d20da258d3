"""The comparators over two or more values, as SQL that is never NULL.

What belongs here: one function per comparator of the language. A comparison with an absent value
is false, except `absent` and `omits`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

from sqlglot import exp

from personas_dagster.query import sql
from personas_dagster.query.values import (
    Constant,
    Value,
    instant_of,
    is_date,
    literal_instant,
)

_ORDER = {"greater_than": ">", "at_least": ">=", "less_than": "<", "at_most": "<="}
_PARTS = {"contains": "contains", "starts_with": "starts_with", "ends_with": "ends_with"}


def compare(name: str, left: Value, right: Sequence[Value]) -> exp.Expr:
    """`left.name(right...)` for every comparator but those that take a duration."""
    if name in _ORDER:
        return _ordered(_ORDER[name], left, right[0])
    if name in _PARTS:
        return sql.any_of(_part(_PARTS[name], left, one) for one in right)
    return _OTHERS[name](left, right)


def compare_to_now(name: str, left: Value, delta: timedelta, as_of: datetime) -> exp.Expr:
    """within_last, within_next, before_last, after_next.

    A date without time of day is compared with dates: then now is the midnight that began the
    UTC day of `as_of`.
    """
    moment = as_of.astimezone(UTC)
    midnight = moment.replace(hour=0, minute=0, second=0, microsecond=0)
    text = left.text()
    value = instant_of(text)
    by_date = _around(name, value, delta, midnight)
    by_instant = _around(name, value.copy(), delta, moment)
    return sql.surely(sql.case((is_date(text), by_date), otherwise=by_instant))


def _around(name: str, value: exp.Expr, delta: timedelta, now: datetime) -> exp.Expr:
    earlier, later = sql.instant(shift(now, -delta)), sql.instant(shift(now, delta))
    match name:
        case "within_last":
            return exp.Between(this=value, low=earlier, high=sql.instant(now))
        case "within_next":
            return exp.Between(this=value, low=sql.instant(now), high=later)
        case "before_last":
            return sql.compare("<=", value, earlier)
        case _:
            return sql.compare(">=", value, later)


def shift(moment: datetime, delta: timedelta) -> datetime:
    """`moment + delta`, at the calendar's end where it would lie beyond."""
    try:
        return moment + delta
    except OverflowError:
        end = datetime.min if delta < timedelta(0) else datetime.max
        return end.replace(tzinfo=UTC)


def _equal(left: Value, right: Value) -> exp.Expr:
    """By number where both are numbers, else by text. NULL where either is absent."""
    if isinstance(left, Constant) and not isinstance(right, Constant):
        left, right = right, left
    right_number = right.number()
    if isinstance(right, Constant) and right_number is None:
        return sql.compare("=", left.text(), right.text())
    left_number = left.number()
    if isinstance(right, Constant):
        assert right_number is not None
        return sql.FALSE() if left_number is None else sql.compare("=", left_number, right_number)
    if left_number is None or right_number is None:
        return sql.compare("=", left.text(), right.text())
    both = sql.all_of([sql.is_not_null(left_number.copy()), sql.is_not_null(right_number.copy())])
    return sql.case(
        (both, sql.compare("=", left_number, right_number)),
        otherwise=sql.compare("=", left.text(), right.text()),
    )


def _equals(left: Value, right: Sequence[Value]) -> exp.Expr:
    return sql.any_of(sql.surely(_equal(left, one)) for one in right)


def _differs(left: Value, right: Sequence[Value]) -> exp.Expr:
    there = [left.exists(), *(one.exists() for one in right)]
    return sql.all_of([*there, sql.negate(_equals(left, right))])


def _none_of(left: Value, right: Sequence[Value]) -> exp.Expr:
    return sql.all_of([left.exists(), sql.negate(_equals(left, right))])


def _ordered(operator: str, left: Value, right: Value) -> exp.Expr:
    left_number, right_number = left.number(), right.number()
    if left_number is None or right_number is None:
        return sql.FALSE()
    return sql.surely(sql.compare(operator, left_number, right_number))


def _part(function: str, left: Value, right: Value) -> exp.Expr:
    return sql.surely(sql.call(function, left.text(), right.text()))


def _omits(left: Value, right: Sequence[Value]) -> exp.Expr:
    return sql.negate(sql.any_of(_part("contains", left, one) for one in right))


def _instant(value: Value) -> exp.Expr:
    if isinstance(value, Constant):
        moment = literal_instant(value.literal.text)
        return sql.NULL() if moment is None else sql.instant(moment)
    return instant_of(value.text())


def _dated(operator: str) -> Callable[[Value, Sequence[Value]], exp.Expr]:
    return lambda left, right: sql.surely(sql.compare(operator, _instant(left), _instant(right[0])))


_OTHERS: dict[str, Callable[[Value, Sequence[Value]], exp.Expr]] = {
    "equals": _equals,
    "one_of": _equals,
    "differs": _differs,
    "none_of": _none_of,
    "omits": _omits,
    "absent": lambda left, _: sql.negate(left.exists()),
    "exists": lambda left, _: left.exists(),
    "before_date": _dated("<"),
    "after_date": _dated(">"),
}
