"""Pass: conditions over the values of a level, evaluated before the values are joined.

What belongs here: a profile's conditions read columns of many relations. Those that read one
relation alone are evaluated in it, so that a join moves booleans and not values.

>>> from sqlglot import parse_one
>>> query = parse_one("SELECT t.a > 1 AND u.b IS NULL AS v FROM profiles p "
...     "LEFT JOIN t ON t.profile_id = p.profile_id LEFT JOIN u ON u.profile_id = p.profile_id")
>>> types = {("t", "a"): "BIGINT", ("u", "b"): "VARCHAR"}
>>> for line in narrowed(query, types, {"v"}).sql("duckdb").split(" LEFT ")[:2]:
...     print(line[:71])
SELECT COALESCE(t.b0, CAST(NULL AS BIGINT) > 1) AND COALESCE(u.b0, CAST
JOIN (SELECT t.profile_id, t.a > 1 AS b0 FROM t) AS t ON t.profile_id =
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlglot import exp

from personas_dagster.query import sql

Types = Mapping[tuple[str, str], str]


def narrowed(query: exp.Select, types: Types, conditions: Collection[str]) -> exp.Select:
    """The same SELECT, whose LEFT JOINs bring what is needed of each relation and no more.

    `conditions` are the columns that are conditions, made of parts that are never NULL. `types`:
    of the columns (relation, name) whose absence can be written as a NULL.
    """
    joins: list[exp.Join] = query.args.get("joins") or []
    brought: dict[str, dict[str, exp.Expr]] = {join.this.name: {} for join in joins}
    for one in query.expressions:
        if one.alias in conditions:
            one.set("this", _narrow(one.this, brought, types))
        for found in one.find_all(exp.Column):
            if found.table in brought and found.name not in brought[found.table]:
                brought[found.table][found.name] = sql.column(found.name, found.table)
    for join in joins:
        name = join.this.name
        if all(isinstance(item, exp.Column) for item in brought[name].values()):
            continue
        columns = [sql.named(item, alias) for alias, item in brought[name].items()]
        inner = sql.select([sql.column("profile_id", name), *columns], sql.table(name))
        join.set("this", sql.subquery(inner, name))
    return query


def _narrow(item: exp.Expr, brought: dict[str, dict[str, exp.Expr]], types: Types) -> exp.Expr:
    """A condition with its parts over one relation moved there."""
    columns = list(item.find_all(exp.Column))
    tables = {one.table for one in columns}
    if len(tables) > 1 and isinstance(item, exp.Connector | exp.Not | exp.Paren):
        for part in ("this", "expression"):
            if part in item.args:
                item.set(part, _narrow(item.args[part], brought, types))
        return item
    if len(tables) != 1 or not tables <= brought.keys():
        return item
    if any((one.table, one.name) not in types for one in columns):
        return item
    (table,) = tables
    there = brought[table]
    name = next((name for name, known in there.items() if known == item), f"b{len(there)}")
    there.setdefault(name, item)
    return sql.either(sql.column(name, table), _absent(item, types))


def _absent(item: exp.Expr, types: Types) -> exp.Expr:
    """What a condition is for a profile without a row."""

    def empty(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Column):
            return sql.cast(sql.NULL(), types[node.table, node.name])
        return node

    return item.copy().transform(empty)
