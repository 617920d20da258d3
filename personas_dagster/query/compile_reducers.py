"""Pass: reducers to aggregates over the rows of a stream.

What belongs here: which SELECTs reduce rows that were already selected. Reducers that read one
number or one text per row share one SELECT, with a condition each; those that count values (mode,
unique) first group by value; paths with `$` first make a row of each element.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial

from sqlglot import exp

from personas_dagster.query import sql
from personas_dagster.query.compile_events import EventColumns
from personas_dagster.query.paths import EACH
from personas_dagster.query.sql import call, column
from personas_dagster.query.streams import Partial
from personas_dagster.query.tree import As, Field, segments
from personas_dagster.query.values import Json, Number, Text, Value, number_text, rounded

_BY_VALUE = ("mode", "unique", "unique_count")
_COUNTS = ("count", "unique_count")
_NUMBERS = ("sum", "avg")


@dataclass(frozen=True)
class Wanted:
    """A partial, the column it becomes, and the rows it takes (a column of the source)."""

    partial: Partial
    name: str
    taken: str | None  # None: all rows


@dataclass(frozen=True)
class Derived:
    """What is not aggregated but follows from other aggregates: more of these (`helpers`), and
    the columns as they are in the end (`finals`)."""

    helpers: dict[str, exp.Expr] = field(default_factory=dict)
    finals: dict[str, exp.Expr] = field(default_factory=dict)


Relation = Callable[[Sequence[exp.Expr]], exp.Expr]


def value_of(one: Partial, item: exp.Expr) -> Value:
    """What a partial's column holds, for a profile that may have no row of it."""
    if one.reducer in _COUNTS:
        return Number(sql.either(item, sql.number(0)), whole=True)
    if one.reducer in _NUMBERS or (one.reducer in ("min", "max") and one.as_type is None):
        return Number(item)
    if one.reducer in ("min", "max"):
        return Text(item)
    return Json(item)


def type_of(one: Partial) -> str:
    """The SQL type of a partial's column."""
    if one.reducer in _COUNTS:
        return "BIGINT"
    if one.reducer in _NUMBERS or (one.reducer in ("min", "max") and one.as_type is None):
        return "DOUBLE"
    return "VARCHAR"


def family(one: Partial) -> object:
    """Partials of one family can share a SELECT over the same rows."""
    if one.reducer in _BY_VALUE:
        return (one.field, one.as_type)
    return one.field if _has_each(one) else None


def reduce(
    some: Sequence[Wanted], columns: EventColumns, key: str, relation: Relation
) -> exp.Select:
    """One family over one relation: `key` and a column per partial.

    `relation(extra)` is the rows, called `s`, with the columns `extra` added (they may name the
    columns of the event as those of `r`).
    """
    first = some[0].partial
    if first.reducer in _BY_VALUE:
        return _by_values(some, columns, key, relation)
    if _has_each(first):
        return _elements(some, columns, key, relation)
    return _plain(some, columns, key, relation)


def reduce_over(
    some: Sequence[Wanted],
    columns: EventColumns,
    key: str,
    source: exp.Expr,
    over: Callable[[exp.Expr], exp.Expr],
) -> exp.Select:
    """Like `reduce`, for each row of `source` that has a `key`, over the window around it.

    Only of reducers that read one value per row.
    """
    aggregates = _aggregates(some, columns)
    return _grouped(some, list(aggregates.values()), source, key, over=over)


def _has_each(one: Partial) -> bool:
    return one.field is not None and EACH in segments(one.field.path)


def _grouped(
    some: Sequence[Wanted],
    values: Sequence[exp.Expr],
    source: exp.Expr,
    key: str,
    derived: Derived | None = None,
    over: Callable[[exp.Expr], exp.Expr] | None = None,
) -> exp.Select:
    derived = derived or Derived()
    of = over or (lambda aggregate: aggregate)
    named = [sql.named(of(value), one.name) for one, value in zip(some, values, strict=True)]
    counts = [
        sql.named(of(_count_of(value)), f"n_{one.name}")
        for one, value in zip(some, values, strict=True)
        if one.partial.reducer == "avg"
    ]
    helpers = [sql.named(value, name) for name, value in derived.helpers.items()]
    columns = [column(key, "s"), *named, *counts, *helpers]
    query = sql.select(columns, source, group=[] if over else [column(key, "s")])
    if over:
        query.set("qualify", exp.Qualify(this=sql.is_not_null(column(key, "s"))))
    if derived.finals or any(one.partial.reducer in _NUMBERS for one in some):
        query = _finished(some, query, key, derived.finals)
    return query


def _count_of(total: exp.Expr) -> exp.Expr:
    """How many numbers went into a sum: COUNT in place of FSUM, of the same."""
    return exp.Count(this=total.expressions[0].copy())


def _finished(
    some: Sequence[Wanted], totals: exp.Select, key: str, finals: Mapping[str, exp.Expr]
) -> exp.Select:
    """Round sums to 15 digits, then divide the averages, so that no result depends on order."""
    averages = [one for one in some if one.partial.reducer == "avg"]
    sums = [
        sql.named(rounded(column(one.name)), one.name)
        if one.partial.reducer in _NUMBERS
        else sql.named(finals[one.name], one.name)
        if one.name in finals
        else column(one.name)
        for one in some
    ]
    kept = [column(f"n_{one.name}") for one in averages]
    summed = sql.select([column(key), *sums, *kept], sql.subquery(totals, "totals"))
    if not averages:
        return summed
    divided = [
        sql.named(exp.Div(this=column(one.name), expression=column(f"n_{one.name}")), one.name)
        if one in averages
        else column(one.name)
        for one in some
    ]
    quotients = sql.select([column(key), *divided], sql.subquery(summed, "sums"))
    final = [
        sql.named(rounded(column(one.name)), one.name) if one in averages else column(one.name)
        for one in some
    ]
    return sql.select([column(key), *final], sql.subquery(quotients, "quotients"))


def _plain(
    some: Sequence[Wanted], columns: EventColumns, key: str, relation: Relation
) -> exp.Select:
    derived = Derived()
    aggregates = _aggregates(some, columns)
    for nested in _nested(some):
        field = nested[0].partial.field
        assert field is not None
        there, stamp = columns.value(field, "s").exists(), columns.own("timestamp", "s")
        _of_nested(nested, aggregates, derived, there, stamp)
    return _grouped(some, list(aggregates.values()), relation([]), key, derived)


def _aggregates(some: Sequence[Wanted], columns: EventColumns) -> dict[str, exp.Expr]:
    found = {}
    for one in some:
        field = one.partial.field
        value = columns.value(field, "s") if field else None
        found[one.name] = _aggregate(one, value, partial(columns.moment, "s"), _taken(one))
    return found


def _nested(some: Sequence[Wanted]) -> list[list[Wanted]]:
    """first and last of streams that differ only in how far back they reach, the nearest first."""
    found: dict[Partial, list[Wanted]] = {}
    for one in some:
        if one.partial.reducer in ("first", "last"):
            alike = replace(one.partial, rows=replace(one.partial.rows, after=None))
            found.setdefault(alike, []).append(one)
    return [
        sorted(each, key=lambda one: _start(one.partial), reverse=True)
        for each in found.values()
        if len(each) > 1
    ]


def _start(one: Partial) -> datetime:
    return one.rows.after or datetime.min.replace(tzinfo=UTC)


def _of_nested(
    nested: Sequence[Wanted],
    aggregates: dict[str, exp.Expr],
    derived: Derived,
    there: exp.Expr,
    stamp: exp.Expr,
) -> None:
    """The last of all is the last of each window that reaches as far as it; the first of a window
    is that of the part which no nearer window covers, else that of the nearer one."""
    *nearer, widest = nested
    if widest.partial.reducer == "last":
        latest = f"l_{widest.name}"
        there = sql.all_of([_taken(widest), there])
        derived.helpers[latest] = call("max", sql.only_where(stamp, there))
        for one in nearer:
            begins = sql.instant(_start(one.partial))
            aggregates[one.name] = sql.cast(sql.NULL(), "VARCHAR")
            inside = sql.compare(">", column(latest), begins)
            derived.finals[one.name] = sql.case((inside, column(widest.name)))
        return
    for number, one in enumerate(nested[1:], 1):
        until = sql.compare("<=", stamp.copy(), sql.instant(_start(nested[number - 1].partial)))
        aggregate = aggregates[one.name]
        assert isinstance(aggregate, exp.Filter)
        condition = aggregate.expression.this
        aggregate.set("expression", exp.Where(this=sql.all_of([condition, until])))
        reached = [column(each.name) for each in reversed(nested[: number + 1])]
        derived.finals[one.name] = sql.either(reached[0], *reached[1:])


def _elements(
    some: Sequence[Wanted], columns: EventColumns, key: str, relation: Relation
) -> exp.Select:
    """A row for each element that `$` reaches; within an event they stay in order."""
    field = some[0].partial.field
    assert field is not None
    value = Json(column("item", "s"))

    def order() -> exp.Expr:
        return call("row", columns.moment("s"), column("position", "s"))

    aggregates = [_aggregate(one, value, order, _taken(one)) for one in some]
    return _grouped(some, aggregates, relation(_unnested(columns, field)), key)


def _unnested(columns: EventColumns, field: Field) -> list[exp.Expr]:
    items = columns.view(field, "items", "r")
    return [
        sql.named(call("unnest", items), "item"),
        sql.named(call("generate_subscripts", items.copy(), sql.number(1)), "position"),
    ]


def _taken(one: Wanted) -> exp.Expr:
    return column(one.taken, "s") if one.taken else sql.TRUE()


def _aggregate(
    one: Wanted, value: Value | None, order: Callable[[], exp.Expr], taken: exp.Expr
) -> exp.Expr:
    reducer, as_type = one.partial.reducer, one.partial.as_type
    if reducer == "count" or value is None:
        return sql.count_where(taken)
    if reducer in ("first", "last"):
        function = "arg_min" if reducer == "first" else "arg_max"
        there = sql.all_of([taken, value.exists()])
        return sql.where_only(call(function, value.json(), order()), there)
    if reducer in ("min", "max"):
        item = value.text() if as_type == "string" else value.number()
        assert item is not None
        return call(reducer, sql.only_where(item, taken))
    number = value.number()
    assert number is not None
    return call("fsum", sql.only_where(number, taken))


def _by_values(
    some: Sequence[Wanted], columns: EventColumns, key: str, relation: Relation
) -> exp.Select:
    """mode and unique: how often each value occurs, then one row per key."""
    field = some[0].partial.field
    assert field is not None
    text, json, extra = _counted(field, some[0].partial.as_type, columns)
    filters = [_taken(one) for one in some]
    inner_columns: list[exp.Expr] = [column(key, "s"), sql.named(text, "t")]
    for index, (one, taken) in enumerate(zip(some, filters, strict=True)):
        inner_columns.append(sql.named(sql.count_where(taken), f"c{index}"))
        if one.partial.reducer != "unique_count":  # counts values without saying which
            smallest = call("min", sql.only_where(json.copy(), taken.copy()))
            inner_columns.append(sql.named(smallest, f"v{index}"))
    there = sql.all_of([sql.is_not_null(text.copy()), sql.any_of(f.copy() for f in filters)])
    inner = sql.select(
        inner_columns, relation(extra), where=there, group=[column(key, "s"), text.copy()]
    )
    values = [_of_values(one.partial, index) for index, one in enumerate(some)]
    return _grouped(some, values, sql.subquery(inner, "s"), key)


def _counted(
    field: Field, as_type: As | None, columns: EventColumns
) -> tuple[exp.Expr, exp.Expr, list[exp.Expr]]:
    """What is counted: its text, its JSON, and the columns that the rows need for it."""
    extra: list[exp.Expr] = []
    value: Value
    if EACH not in segments(field.path):
        value = columns.value(field, "s")
    elif as_type == "array":
        extra = [sql.named(_whole(columns.view(field, "items", "r")), "item")]
        return column("item", "s"), Text(column("item", "s")).json(), extra
    else:
        extra = _unnested(columns, field)
        value = Json(column("item", "s"))
    if as_type == "number":
        number = value.number()
        assert number is not None
        return number_text(number), number_text(number), extra
    if as_type is None:
        return value.text(), value.json(), extra
    return value.text(), Text(value.text()).json(), extra


def _whole(items: exp.Expr) -> exp.Expr:
    """A list of JSON texts as one compact JSON text; NULL when there is no list."""
    known = sql.each(items.copy(), "v", sql.either(column("v"), sql.text("null")))
    joined = call("array_to_string", known, sql.text(","))
    return sql.case(
        (sql.is_not_null(items.copy()), call("concat", sql.text("["), joined, sql.text("]")))
    )


def _of_values(one: Partial, index: int) -> exp.Expr:
    count, value, text = column(f"c{index}", "s"), column(f"v{index}", "s"), column("t", "s")
    enough = sql.compare(">=", count, sql.number(one.at_least))
    if one.reducer == "mode":
        rank = call("row", exp.Neg(this=count.copy()), text)
        return sql.where_only(call("arg_min", value, rank), enough)
    if one.reducer == "unique_count":
        return sql.count_where(enough)
    is_number = sql.compare("<>", call("left", value.copy(), sql.number(1)), sql.text('"'))
    number = sql.case((is_number, sql.try_cast(value.copy(), "DOUBLE")))
    separated = [value, sql.ordered([number, text], this=sql.text(","))]
    listed = sql.where_only(call("string_agg", *separated), enough)
    return exp.DPipe(
        this=exp.DPipe(this=sql.text("["), expression=listed), expression=sql.text("]")
    )
