"""Pass: children of a funnel reduced for each parent without pairing the two.

What belongs here: when a window over parents and children in order of time says the same as a
join, and the rows of that window. n events of a profile cost n log n then, and not n squared.
What is left to the join: sessions, reducers that count by value, paths with `$`, and conditions
that compare a child with its parent other than by `property('a') = property(parent: 'b')`.

A window needs a key that is equal when the values are. `=` offers none for all values: the number
1e25 equals the string '1e25' by its text and the string '10000000000000000000000000' as a number.
Values that are far from such forms (`is_plain`) have one, and equal no other value; parents with
other values are joined.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlglot import exp

from personas_dagster.query import sql
from personas_dagster.query.compile_events import EventColumns
from personas_dagster.query.paths import EACH
from personas_dagster.query.sql import call, column
from personas_dagster.query.streams import Partial, Rows
from personas_dagster.query.tree import Comparison, Condition, Field, segments, walk
from personas_dagster.query.values import Value

IS_CHILD = "is_child"
_REDUCERS = ("count", "sum", "avg", "min", "max", "first", "last")
_EXPONENT = r"-?[0-9][0-9.]*[eE].*"


@dataclass(frozen=True)
class Following:
    """What a child asks: conditions on itself (`own`), and fields that equal the parent's."""

    own: tuple[Condition, ...]
    same: tuple[tuple[Field, Field], ...]  # of the child, of the parent


def following(child: Rows) -> Following | None:
    """None when only a join can tell which children follow."""
    empty = child.far is not None and child.far <= child.near
    if child.session is not None or empty:
        return None
    own, same = list[Condition](), list[tuple[Field, Field]]()
    for one in child.where:
        fields = [node for node in walk(one) if isinstance(node, Field)]
        if not any(field.parent for field in fields):
            own.append(one)
            continue
        pair = _equal_fields(one)
        if pair is None:
            return None
        same.append(pair)
    return Following(tuple(own), tuple(same))


def _equal_fields(one: Condition) -> tuple[Field, Field] | None:
    """The child's field and the parent's, where a condition says no more than `=` of the two."""
    if not isinstance(one, Comparison) or one.name not in ("equals", "one_of"):
        return None
    fields = [item for item in (one.left, *one.arguments) if isinstance(item, Field)]
    fields.sort(key=lambda field: field.parent)
    if len(one.arguments) != 1 or [field.parent for field in fields] != [False, True]:
        return None
    return None if any(map(_has_each, fields)) else (fields[0], fields[1])


def is_framed(one: Partial) -> bool:
    """Whether a reducer can be computed over a window."""
    return one.reducer in _REDUCERS and not (one.field and _has_each(one.field))


def keyed(
    fields: Sequence[Field], columns: EventColumns, alias: str
) -> tuple[list[exp.Expr], exp.Expr, exp.Expr]:
    """Columns that are equal when the fields are; whether they can tell (`all_plain`), and
    whether they cannot though all values are there (`unusual`)."""
    values = [columns.value(field, alias) for field in fields]
    named = [
        sql.named(item, f"k{index}")
        for index, item in enumerate(item for value in values for item in _key(value))
    ]
    all_plain = sql.all_of(is_plain(value) for value in values)
    there = [sql.is_not_null(value.text()) for value in values]
    return named, all_plain, sql.all_of([*there, sql.negate(all_plain.copy())])


def is_plain(value: Value) -> exp.Expr:
    """Numbers that are written without an exponent, and texts that look like none with one."""
    number = value.number()
    assert number is not None
    size = call("abs", number)
    usual = exp.Between(this=size, low=sql.double("1e-3"), high=sql.double("1e15"))
    is_zero = sql.compare("=", size.copy(), sql.number(0))
    exponent = call("regexp_full_match", value.text(), sql.text(_EXPONENT))
    return sql.surely(
        sql.case(
            (sql.is_not_null(number.copy()), sql.any_of([usual, is_zero])),
            otherwise=sql.negate(exponent),
        )
    )


def both(parents: exp.Select, children: exp.Select) -> exp.Expr:
    """Parents, which have a `parent_id`, and children in one relation `s`."""
    for select, is_child in ((parents, sql.FALSE()), (children, sql.TRUE())):
        select.append("expressions", sql.named(is_child, IS_CHILD))
    union = exp.Union(this=parents, expression=children, distinct=False, by_name=True)
    return sql.subquery(union, "s")


def over(aggregate: exp.Expr, child: Rows, pairs: int) -> exp.Expr:
    """An aggregate over what follows each row of `both`, with as many keys as there are pairs."""
    names = ["profile_id", *(f"k{index}" for index in range(2 * pairs))]
    far = "UNBOUNDED" if child.far is None else sql.number(_micros(child.far))
    frame = exp.WindowSpec(
        kind="RANGE",
        start=sql.number(_micros(child.near) + 1),
        start_side="FOLLOWING",
        end=far,
        end_side="FOLLOWING",
    )
    return exp.Window(
        this=aggregate,
        partition_by=[column(name, "s") for name in names],
        order=sql.ordered([call("epoch_us", column("timestamp", "s"))]),
        spec=frame,
    )


def _key(value: Value) -> list[exp.Expr]:
    """Two columns: a plain value's number, or its text."""
    number = value.number()
    assert number is not None
    is_zero = sql.compare("=", number.copy(), sql.number(0))  # 0 and -0
    unsigned = sql.case((is_zero, sql.double("0")), otherwise=number)
    return [unsigned, sql.case((sql.is_null(number.copy()), value.text()))]


def _has_each(field: Field) -> bool:
    return EACH in segments(field.path)


def _micros(delta: timedelta) -> int:
    return delta // timedelta(microseconds=1)
