"""Small builders of sqlglot expressions, so that the passes read like the SQL they make.

What belongs here: one function per SQL shape, knowing nothing of the language.

>>> all_of([compare("=", column("a", "t"), text("it's")), TRUE()]).sql("duckdb")
"t.a = 'it''s'"
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache

from sqlglot import exp

_OPERATORS: dict[str, type[exp.Binary]] = {
    "=": exp.EQ,
    "<>": exp.NEQ,
    ">": exp.GT,
    ">=": exp.GTE,
    "<": exp.LT,
    "<=": exp.LTE,
}


def TRUE() -> exp.Expr:
    return exp.Boolean(this=True)


def FALSE() -> exp.Expr:
    return exp.Boolean(this=False)


def NULL() -> exp.Expr:
    return exp.Null()


def column(name: str, table: str | None = None) -> exp.Column:
    return exp.Column(
        this=exp.to_identifier(name), table=exp.to_identifier(table) if table else None
    )


def text(value: str) -> exp.Expr:
    return exp.Literal.string(value)


def number(value: str | int) -> exp.Expr:
    return exp.Literal.number(value)


def double(value: str) -> exp.Expr:
    return cast(exp.Literal.number(value), "DOUBLE")


def instant(moment: datetime) -> exp.Expr:
    """A constant TIMESTAMPTZ, the same in every session time zone."""
    utc = moment.astimezone(UTC).replace(tzinfo=None)
    return cast(text(f"{utc.isoformat(sep=' ')}+00:00"), "TIMESTAMPTZ")


def interval(delta: timedelta) -> exp.Expr:
    """
    >>> interval(timedelta(days=1)).sql("duckdb")
    'TO_MICROSECONDS(86400000000)'
    """
    return call("to_microseconds", number(delta // timedelta(microseconds=1)))


def call(name: str, *arguments: exp.Expr) -> exp.Expr:
    return exp.Anonymous(this=name, expressions=list(arguments))


def compare(operator: str, left: exp.Expr, right: exp.Expr) -> exp.Expr:
    return _OPERATORS[operator](this=left, expression=right)


def plus(left: exp.Expr, right: exp.Expr) -> exp.Expr:
    return exp.Add(this=left, expression=right)


def negate(item: exp.Expr) -> exp.Expr:
    if isinstance(item, exp.Boolean):
        return exp.Boolean(this=not item.this)
    return exp.Not(this=exp.Paren(this=item) if isinstance(item, exp.Binary) else item)


def is_null(item: exp.Expr) -> exp.Expr:
    return exp.Is(this=item, expression=exp.Null())


def is_not_null(item: exp.Expr) -> exp.Expr:
    return exp.Not(this=is_null(item))


def either(item: exp.Expr, *otherwise: exp.Expr) -> exp.Expr:
    return exp.Coalesce(this=item, expressions=list(otherwise))


def surely(item: exp.Expr) -> exp.Expr:
    """False where unknown: a comparison with an absent value is false."""
    return item if isinstance(item, exp.Boolean) else either(item, FALSE())


def all_of(items: Iterable[exp.Expr]) -> exp.Expr:
    return _junction(exp.And, items, True)


def any_of(items: Iterable[exp.Expr]) -> exp.Expr:
    return _junction(exp.Or, items, False)


def _junction(kind: type[exp.Connector], items: Iterable[exp.Expr], neutral: bool) -> exp.Expr:
    kept: list[exp.Expr] = []
    for item in items:
        if isinstance(item, exp.Boolean):
            if item.this is not neutral:
                return exp.Boolean(this=not neutral)
            continue
        kept.append(exp.Paren(this=item) if isinstance(item, exp.Connector) else item)
    if not kept:
        return exp.Boolean(this=neutral)
    joined = kept[0]
    for item in kept[1:]:
        joined = kind(this=joined, expression=item)
    return joined


def one_of(name: str, values: Collection[str], table: str | None = None) -> exp.Expr:
    """Whether a column is one of some texts."""
    if not values:
        return FALSE()
    return exp.In(this=column(name, table), expressions=[text(one) for one in values])


def case(*branches: tuple[exp.Expr, exp.Expr], otherwise: exp.Expr | None = None) -> exp.Expr:
    return exp.Case(
        ifs=[exp.If(this=condition, true=value) for condition, value in branches],
        default=otherwise,
    )


def cast(item: exp.Expr, to: str) -> exp.Expr:
    return exp.Cast(this=item, to=_type(to).copy())


def try_cast(item: exp.Expr, to: str) -> exp.Expr:
    return exp.TryCast(this=item, to=_type(to).copy())


@cache
def _type(name: str) -> exp.DataType:
    return exp.DataType.build(name)


def array(items: Iterable[exp.Expr]) -> exp.Expr:
    return exp.Array(expressions=list(items))


def each(items: exp.Expr, name: str, body: exp.Expr) -> exp.Expr:
    """The list of `body` for each element, called `name` in it."""
    function = exp.Lambda(this=body, expressions=[exp.to_identifier(name)])
    return call("list_transform", items, function)


def sort_key(items: Iterable[exp.Expr]) -> exp.Expr:
    """One value that orders as these do, one after the other; cheaper to compare than a row."""
    order = [each for item in items for each in (item, text("ASC NULLS LAST"))]
    return call("create_sort_key", *order)


def where_only(aggregate: exp.Expr, condition: exp.Expr) -> exp.Expr:
    """`aggregate FILTER (WHERE condition)`."""
    if isinstance(condition, exp.Boolean) and condition.this:
        return aggregate
    return exp.Filter(this=aggregate, expression=exp.Where(this=condition))


def count_all() -> exp.Expr:
    return exp.Count(this=exp.Star())


def count_where(condition: exp.Expr) -> exp.Expr:
    """How many rows a condition holds of."""
    if isinstance(condition, exp.Boolean) and condition.this:
        return count_all()
    return exp.Count(this=only_where(number(1), condition))


def only_where(item: exp.Expr, condition: exp.Expr) -> exp.Expr:
    """The item where a condition holds, else NULL: what aggregates leave out, at less cost than a
    FILTER has."""
    if isinstance(condition, exp.Boolean) and condition.this:
        return item
    return case((condition, item))


def over(
    function: exp.Expr, partition: Sequence[exp.Expr] = (), order: Sequence[exp.Expr] = ()
) -> exp.Expr:
    return exp.Window(
        this=function,
        partition_by=list(partition),
        order=ordered(order) if order else None,
    )


def ordered(items: Sequence[exp.Expr], this: exp.Expr | None = None) -> exp.Expr:
    return exp.Order(this=this, expressions=[exp.Ordered(this=item) for item in items])


def named(item: exp.Expr, alias: str) -> exp.Expr:
    return exp.Alias(this=item, alias=exp.to_identifier(alias))


def everything(of: str | None = None, but: Sequence[str] = ()) -> exp.Expr:
    star = exp.Star(except_=[exp.to_identifier(name) for name in but] or None)
    return exp.Column(this=star, table=exp.to_identifier(of)) if of else star


def table(name: str, alias: str | None = None) -> exp.Expr:
    return exp.Table(
        this=exp.to_identifier(name),
        alias=exp.TableAlias(this=exp.to_identifier(alias)) if alias else None,
    )


def subquery(query: exp.Expr, alias: str) -> exp.Expr:
    return exp.Subquery(this=query, alias=exp.TableAlias(this=exp.to_identifier(alias)))


def join(source: exp.Expr, condition: exp.Expr, *, left: bool = False) -> exp.Join:
    return exp.Join(this=source, on=condition, side="LEFT" if left else None)


def select(
    columns: Sequence[exp.Expr],
    source: exp.Expr,
    *,
    joins: Sequence[exp.Join] = (),
    where: exp.Expr | None = None,
    group: Sequence[exp.Expr] = (),
    distinct: bool = False,
) -> exp.Select:
    plain = where is None or (isinstance(where, exp.Boolean) and where.this)
    return exp.Select(
        expressions=list(columns),
        from_=exp.From(this=source),
        joins=list(joins) or None,
        where=None if plain else exp.Where(this=where),
        group=exp.Group(expressions=list(group)) if group else None,
        distinct=exp.Distinct() if distinct else None,
    )


def union(queries: Sequence[exp.Expr]) -> exp.Expr:
    """The rows of all, with their repetitions."""
    first, *others = queries
    for one in others:
        first = exp.Union(this=first, expression=one, distinct=False)
    return first
