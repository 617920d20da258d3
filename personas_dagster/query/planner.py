"""From definitions to the statements of a plan, level by level.

What belongs here: what is computed at which level, the tables of values (of a level, where a later
one reads them; of the rest), and the order of all statements. What does not: how streams,
references and conditions are compiled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from sqlglot import exp

from personas_dagster.query import compile_references as refs
from personas_dagster.query import sql
from personas_dagster.query.checker import check
from personas_dagster.query.compile_conditions import Items, Source, condition
from personas_dagster.query.compile_events import MESSAGES, Layer, is_held, select_rows
from personas_dagster.query.compile_levels import narrowed
from personas_dagster.query.compile_references import References
from personas_dagster.query.compile_rows import EventRows
from personas_dagster.query.compile_streams import Statement, Streams
from personas_dagster.query.definition import Definition
from personas_dagster.query.parts import tables_within, wholes
from personas_dagster.query.references import Scope, known, ordered, resolve, scoped_traits
from personas_dagster.query.sql import column
from personas_dagster.query.streams import Bounds, Partial, of_reduction, seen
from personas_dagster.query.tree import (
    Condition,
    Literal,
    Quantified,
    Query,
    Reduction,
    Scalar,
    Trait,
    children,
)
from personas_dagster.query.values import Computed, Constant, Json, Number, Text, Value

RESULTS = "results"
_SCOPES: tuple[Scope, ...] = ("users", "accounts")


@dataclass
class _Values:
    """A table of values to be: a column per definition, a row per profile of a scope."""

    name: str
    scope: Scope
    columns: list[exp.Expr] = field(default_factory=list)
    used: dict[str, None] = field(default_factory=dict)
    has_audience: bool = False


@dataclass
class Planner:
    definitions: Sequence[Definition]
    as_of: datetime
    audiences: Collection[str]
    layers: Sequence[Layer] = MESSAGES
    streams: Streams = field(init=False)
    queries: dict[tuple[Scope, str], Query] = field(init=False)
    places: dict[tuple[Scope, str], tuple[str, Computed]] = field(default_factory=dict)
    types: dict[tuple[str, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.as_of.tzinfo is None:
            raise ValueError(f"as_of {self.as_of} has no time zone; use UTC")
        self.as_of = self.as_of.astimezone(UTC)
        self.queries = {(one.collection, one.key): check(one).query for one in self.definitions}
        if len(self.queries) < len(self.definitions):
            raise ValueError("two definitions have the same collection and key")
        self.references = References(known(self.definitions), self.audiences)
        self.rows = EventRows(self.as_of, self.references)
        self.streams = Streams(self.rows)

    def statements(self) -> Iterator[tuple[str, exp.Select]]:
        """Name and SELECT of each table, in order."""
        levels = ordered(self.definitions, self.queries)
        self.references.depth = {
            (one.collection, one.key): depth for depth, level in enumerate(levels) for one in level
        }
        awaited = self._awaited()
        # What nothing else reads is joined once for all levels.
        last = {scope: _Values(f"query_values_{scope}", scope) for scope in _SCOPES}
        marks = []
        for depth, level in enumerate(levels):
            self._compile_streams(depth, levels)
            for scope in _SCOPES:
                some = [one for one in level if one.collection == scope]
                own = _Values(f"query_level_{depth}_{scope}", scope)
                for definition in some:
                    waiting = (scope, definition.key) in awaited
                    self._place(definition, own if waiting else last[scope])
                self._make(own)
            marks.append(len(self.streams.statements))
        for values in last.values():
            self._make(values)
        return self._assembled(levels, marks)

    def _compile_streams(self, depth: int, levels: list[list[Definition]]) -> None:
        partials = [
            one
            for later in levels[depth:]
            for definition in later
            for one in self._partials(definition)
            if self._level_of(one) == depth
        ]
        self.streams.compile(list(dict.fromkeys(partials)))

    def _partials(self, definition: Definition) -> Iterator[Partial]:
        query = self.queries[definition.collection, definition.key]
        bounds = _bounds(definition, self.as_of)
        for scope, node in _reductions(query.body, definition.collection):
            yield of_reduction(node, scope, bounds)
        if _is_count(query.body):
            assert isinstance(query.body, Reduction)
            yield seen(of_reduction(query.body, definition.collection, bounds))

    def _level_of(self, one: Partial) -> int:
        traits = [pair for item in one.rows.where for pair in scoped_traits(item, one.scope)]
        return max((self.references.level(scope, t.key) for scope, t in traits), default=0)

    # Values.

    def _awaited(self) -> set[tuple[Scope, str]]:
        """The definitions that others read from a table of values. What a reducer gives they
        read where it was reduced."""
        found: set[tuple[Scope, str]] = set()
        for (collection, _), query in self.queries.items():
            for scope, trait in scoped_traits(query.body, collection):
                target = resolve(scope, trait.key, self.references.among)
                if target is None:
                    continue
                name = (target.collection, target.key)
                if not (self._is_reduced(target) and (scope, trait.path) == name):
                    found.add(name)
        return found

    def _is_reduced(self, one: Definition) -> bool:
        body = self.queries[one.collection, one.key].body
        return one.kind == "trait" and isinstance(body, Reduction)

    def _place(self, definition: Definition, values: _Values) -> None:
        """Where the value of a definition is: most traits where their streams were reduced, all
        else in a table of values."""
        scope, key = definition.collection, definition.key
        read: dict[str, None] = {}
        value = self._value(definition, read)
        if self._is_reduced(definition):
            self.references.computed[scope, key] = (tuple(read), value)
        if self._is_reduced(definition) and len(read) == 1:
            (table,) = read
            self.streams.confine(table, scope)
            self.places[scope, key] = (table, value)
            return
        item = f"v{len(values.columns)}"
        values.used |= read
        values.columns.append(sql.named(value.item, item))
        values.has_audience |= definition.kind == "audience"
        placed = replace(value, item=column(item, values.name))
        self.types[values.name, item] = _type(value, self.queries[scope, key].body)
        self.places[scope, key] = (values.name, placed)
        if definition.kind == "trait":
            self.references.computed.setdefault((scope, key), ((values.name,), placed))

    def _make(self, values: _Values) -> None:
        """The statement of a table of values."""
        if not values.columns:
            return
        query = sql.select(
            [column("profile_id", "p"), *values.columns],
            sql.table("profiles", "p"),
            joins=refs.joins(values.used, column("profile_id", "p")),
            where=sql.compare("=", column("collection", "p"), sql.text(values.scope)),
        )
        conditions = {
            item
            for (table, item), kind in self.types.items()
            if (table, kind) == (values.name, "BOOLEAN")
        }
        query = narrowed(query, self.streams.types | self.types, conditions)
        if len(values.columns) == 1 and values.has_audience:
            (_, member) = query.expressions  # a row for the members only
            query = query.where(member.this, copy=False)
            member.set("this", sql.TRUE())
        self._state(values.name, query)

    def _state(self, name: str, query: exp.Select) -> None:
        self.streams.statements.append(Statement(name, query))

    def _value(self, definition: Definition, used: dict[str, None]) -> Computed:
        """A trait's value in the kind it has (numbers stay numbers), an audience's as a boolean."""
        scope = definition.collection
        body = self.queries[scope, definition.key].body
        bounds = _bounds(definition, self.as_of)
        source = self._source(scope, bounds, used)
        if isinstance(body, Condition):
            return Json(sql.all_of([*_eligible(definition), condition(body, source)]))
        value = Constant(body) if isinstance(body, Literal) else source.value(body)
        if not isinstance(value, Json | Number | Text):
            assert isinstance(value, Constant)
            return Json(value.json())
        if not _is_count(body):
            return _finite(value)
        assert isinstance(body, Reduction)
        happened = self.streams.value(seen(of_reduction(body, scope, bounds)), used).number()
        assert happened is not None
        happened = sql.compare(">", happened, sql.number(0))
        return replace(value, item=sql.case((happened, value.item)))

    def _source(self, scope: Scope, bounds: Bounds, used: dict[str, None]) -> Source:
        def value(scalar: Scalar) -> Value | Items:
            if isinstance(scalar, Trait):
                return self.references.value(scope, scalar, used)
            assert isinstance(scalar, Reduction)
            return self.streams.value(of_reduction(scalar, scope, bounds), used)

        def quantified(node: Quantified) -> exp.Expr:
            return self._quantified(node, bounds, used)

        return Source(value, self.as_of, quantified)

    def _quantified(self, node: Quantified, bounds: Bounds, used: dict[str, None]) -> exp.Expr:
        """ANY and ALL: a relation of its own, from links to what each user's condition says."""
        self.rows.needs_links = True
        inner: dict[str, None] = {}
        holds = condition(node.item, self._source("users", bounds, inner))
        function = "bool_or" if node.quantifier == "ANY" else "bool_and"
        query = sql.select(
            [
                sql.named(column("account_profile_id", "l"), "profile_id"),
                sql.named(sql.call(function, holds), "holds"),
            ],
            sql.table(refs.LINKS, "l"),
            joins=refs.joins(inner, column("user_profile_id", "l")),
            group=[column("account_profile_id", "l")],
        )
        name = f"query_quantified_{len(self.streams.statements) + 1}"
        self._state(name, query)
        used[name] = None
        return sql.surely(column("holds", name))

    # Assembly.

    def _assembled(
        self, levels: list[list[Definition]], marks: list[int]
    ) -> Iterator[tuple[str, exp.Select]]:
        """All statements in order: links, stored traits, rows of events, then level by level."""
        late = dict(self._known(levels))
        origins = self.references.origins
        through = any(name.endswith("_of_accounts") for name in origins)
        if self.rows.needs_links or through:
            yield refs.LINKS, refs.links()
        for scope in _SCOPES:
            if f"query_stored_{scope}" in origins:
                name = f"query_stored_{scope}"
                yield name, refs.stored(scope, origins[name])
        if "query_stored_of_accounts" in origins:
            name = "query_stored_of_accounts"
            yield name, refs.stored_of_accounts(origins[name])
        readers: dict[str, int] = {}
        for statement in self.streams.statements:
            for table in statement.events:
                readers[table] = readers.get(table, 0) + 1
        events = {one.table: one for one in self.rows.events.values()}
        kept = {
            table
            for table, one in events.items()
            if readers.get(table, 0) > 1 and not is_held(one, self.layers)
        }
        yield from ((table, select_rows(events[table], self.layers)) for table in sorted(kept))
        made_in = wholes(self.streams.statements)
        parts: dict[str, dict[str, exp.Select]] = {}
        for index, statement in enumerate(self.streams.statements, 1):
            query = statement.query
            inline = {
                table: select_rows(events[table], self.layers, reading)
                for table, reading in sorted(statement.events.items())
                if table not in kept
            }
            within = parts.pop(statement.name, {})
            if inline or within:
                query.set("with_", tables_within(inline, within))
            whole = made_in[statement.name]
            if whole == statement.name:
                yield statement.name, query
            else:
                parts.setdefault(whole, {})[statement.name] = query
            for depth in (depth for depth, mark in enumerate(marks) if mark == index):
                yield from ((name, late[name]) for name in late if f"_known_{depth}_" in name)
        yield RESULTS, self._results()

    def _known(self, levels: list[list[Definition]]) -> Iterator[tuple[str, exp.Select]]:
        """For each level, what later levels read of it."""
        origins = self.references.origins
        for depth in range(len(levels)):
            for scope in _SCOPES:
                values = {
                    one.key: (one, *self.places[scope, one.key])
                    for one in levels[depth]
                    if one.collection == scope
                }
                own, through = f"query_known_{depth}_{scope}", f"query_known_{depth}_of_accounts"
                if own in origins:
                    yield own, refs.known(origins[own], scope, values)
                if scope == "accounts" and through in origins:
                    states = refs.known(origins[through], scope, values)
                    yield through, refs.known_of_accounts(origins[through], states)

    def _results(self) -> exp.Select:
        parts = [self._result(one) for one in self.definitions]
        if not parts:
            return _no_results()
        if len(parts) == 1:
            return parts[0]
        return sql.select([sql.everything()], sql.subquery(sql.union(parts), "all_results"))

    def _result(self, definition: Definition) -> exp.Select:
        table, value = self.places[definition.collection, definition.key]
        is_audience = definition.kind == "audience"
        return sql.select(
            [
                sql.named(sql.text(definition.key), "key"),
                sql.named(sql.text(definition.kind), "kind"),
                sql.named(sql.text(definition.collection), "collection"),
                column("profile_id"),
                sql.named(sql.text("true") if is_audience else value.json(), "value"),
            ],
            sql.table(table),
            where=value.item.copy() if is_audience else value.exists(),
        )


def _bounds(definition: Definition, as_of: datetime) -> Bounds:
    return Bounds(as_of, definition.lookback, definition.received_after)


def _eligible(definition: Definition) -> list[exp.Expr]:
    """Whom an audience of users is evaluated over."""
    if definition.collection == "accounts" or definition.include_anonymous is None:
        return []
    is_known = column("is_known", "p")
    if not definition.include_anonymous:
        return [is_known]
    return [sql.any_of([is_known, column("has_anonymous_id", "p")])]


def _is_count(body: Condition | Scalar) -> bool:
    """A trait that is 0 for those who did it once, and absent for those who never did."""
    return isinstance(body, Reduction) and body.name in ("count", "unique_count")


def _type(value: Computed, body: Condition | Scalar) -> str:
    """The SQL type of a column that holds a value."""
    if isinstance(body, Condition):
        return "BOOLEAN"
    if isinstance(value, Number):
        return "BIGINT" if value.whole else "DOUBLE"
    return "VARCHAR"


def _finite(value: Computed) -> Computed:
    """A number that a double cannot hold is absent."""
    if not isinstance(value, Number) or value.whole:
        return value
    is_finite = sql.call("isfinite", value.item)
    return replace(value, item=sql.case((is_finite, value.item.copy())))


def _reductions(node: object, scope: Scope) -> Iterator[tuple[Scope, Reduction]]:
    """The reductions of a query's own streams (not the children of funnels), with their scope."""
    if isinstance(node, Reduction):
        yield scope, node
        return
    for child in children(node):
        yield from _reductions(child, "users" if isinstance(node, Quantified) else scope)


def _no_results() -> exp.Select:
    """The empty result, with its columns."""
    names = ("key", "kind", "collection", "profile_id", "value")
    empty = [sql.named(sql.cast(sql.NULL(), "VARCHAR"), name) for name in names]
    return exp.Select(expressions=empty, where=exp.Where(this=sql.FALSE()))
