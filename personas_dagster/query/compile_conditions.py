"""Pass: a condition of the language to a SQL boolean that is never NULL.

What belongs here: junctions, `$`, and handing values to the comparators. Where a value comes from
is the caller's business (`Source`): the row of an event, or the partial results of a profile.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from sqlglot import exp

from personas_dagster.query import sql
from personas_dagster.query.comparators import compare, compare_to_now
from personas_dagster.query.tree import (
    And,
    Comparison,
    Condition,
    Duration,
    Literal,
    Not,
    Or,
    Quantified,
    Scalar,
)
from personas_dagster.query.values import Constant, Json, Value


@dataclass(frozen=True)
class Items:
    """The values that a path with `$` reaches: a SQL list of JSON text."""

    list: exp.Expr


@dataclass(frozen=True)
class Source:
    """Where a condition's leaves come from."""

    value: Callable[[Scalar], Value | Items]
    as_of: datetime
    quantified: Callable[[Quantified], exp.Expr] | None = None


def condition(node: Condition, source: Source) -> exp.Expr:
    match node:
        case And(items):
            return sql.all_of(condition(item, source) for item in items)
        case Or(items):
            return sql.any_of(condition(item, source) for item in items)
        case Not(item):
            return sql.negate(condition(item, source))
        case Quantified():
            assert source.quantified is not None
            return source.quantified(node)
        case Comparison():
            return _comparison(node, source)


def _comparison(node: Comparison, source: Source) -> exp.Expr:
    scalars = [one for one in node.arguments if not isinstance(one, Duration)]
    operands = [_operand(one, source) for one in (node.left, *scalars)]
    durations = [one for one in node.arguments if isinstance(one, Duration)]

    def compared(values: list[Value]) -> exp.Expr:
        if durations:
            return compare_to_now(node.name, values[0], durations[0].delta, source.as_of)
        return compare(node.name, values[0], values[1:])

    return _any(operands, [], compared)


def _operand(scalar: Scalar, source: Source) -> Value | Items:
    return Constant(scalar) if isinstance(scalar, Literal) else source.value(scalar)


def _any(
    operands: list[Value | Items],
    values: list[Value],
    compared: Callable[[list[Value]], exp.Expr],
) -> exp.Expr:
    """True when it is so for any element of each operand that is a list.

    A list without elements is one absent value.
    """
    if not operands:
        return compared(values)
    first, *rest = operands
    if not isinstance(first, Items):
        return _any(rest, [*values, first], compared)
    name = f"x{len(values)}"
    body = _any(rest, [*values, Json(sql.column(name))], compared)
    empty = sql.compare(
        "=", sql.either(sql.call("len", first.list.copy()), sql.number(0)), sql.number(0)
    )
    absent = sql.array([sql.cast(sql.NULL(), "VARCHAR")])
    elements = sql.case((empty, absent), otherwise=first.list.copy())
    return sql.call("list_contains", sql.each(elements, name, body), sql.TRUE())
