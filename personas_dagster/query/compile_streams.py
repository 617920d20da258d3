"""Pass: normalised streams to statements, one scan per event name and kind of stream.

What belongs here: which rows a stream takes, and the statements that reduce them. Streams that
are only filters share one scan with a FILTER each; session windows and funnels have their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain, repeat

from sqlglot import exp

from personas_dagster.query import sql
from personas_dagster.query.compile_conditions import Items, Source, condition
from personas_dagster.query.compile_events import EventColumns
from personas_dagster.query.compile_reducers import Wanted, reduce, value_of
from personas_dagster.query.compile_references import LINKS, References, joins
from personas_dagster.query.compile_sessions import latest_session, session_of_parent
from personas_dagster.query.paths import EACH
from personas_dagster.query.references import Scope
from personas_dagster.query.sql import column
from personas_dagster.query.streams import Partial, Rows, partial, reductions
from personas_dagster.query.tree import Field, Reduction, Scalar, Trait, segments, walk
from personas_dagster.query.values import Value


@dataclass(frozen=True)
class Statement:
    """A table to be made; `events` are the tables of rows that it reads."""

    name: str
    query: exp.Select
    events: frozenset[str] = frozenset()


@dataclass
class Streams:
    """Compiles partials, and remembers where each was put."""

    as_of: datetime
    references: References
    statements: list[Statement] = field(default_factory=list)
    events: dict[str, EventColumns] = field(default_factory=dict)
    placed: dict[Partial, tuple[str, str]] = field(default_factory=dict)
    needs_links: bool = False

    def compile(self, partials: Sequence[Partial]) -> None:
        """Add the statements that compute `partials`, all of one level."""
        groups: dict[object, list[Partial]] = {}
        for one in partials:
            if one not in self.placed:
                groups.setdefault(_group(one), []).append(one)
        for group in groups.values():
            self._compile_group(group)

    def value(self, one: Partial, used: dict[str, None]) -> Value:
        """A profile's value of a partial, from the relation it was put into."""
        table, name = self.placed[one]
        used[table] = None
        return value_of(one, column(name, table))

    def _compile_group(self, group: list[Partial]) -> None:
        scope, event = group[0].scope, group[0].rows.event
        streams = list(dict.fromkeys(one.rows for one in group))
        read: dict[str, None] = {}
        if len(streams) == 1:
            rows = self._rows_of(streams[0], scope, read)
            wanted = [Wanted(one, f"a{index}", None) for index, one in enumerate(group)]
        else:
            rows, flags = self._flagged(streams, scope, read)
            wanted = [Wanted(one, f"a{index}", flags[one.rows]) for index, one in enumerate(group)]
        self.placed |= self._reduce(wanted, event, "profile_id", rows, read, f"query_{scope}")

    def _reduce(
        self,
        wanted: list[Wanted],
        event: str,
        key: str,
        rows: exp.Select,
        read: dict[str, None],
        prefix: str,
    ) -> dict[Partial, tuple[str, str]]:
        """Statements that reduce `rows`; returns where each partial was put."""

        copies = chain([rows], (rows.copy() for _ in repeat(None)))

        def relation(extra: Sequence[exp.Expr]) -> exp.Expr:
            if not extra:
                return sql.subquery(next(copies), "s")
            source = sql.subquery(next(copies), "r")
            return sql.subquery(sql.select([sql.everything("r"), *extra], source), "s")

        by_name = {one.name: one.partial for one in wanted}
        placed: dict[Partial, tuple[str, str]] = {}
        for reduced in reduce(wanted, self._event(event), key, relation):
            table = self._add(prefix, reduced.query, read)
            placed |= {by_name[name]: (table, name) for name in reduced.names}
        return placed

    def _add(self, prefix: str, query: exp.Select, read: dict[str, None]) -> str:
        name = f"{prefix}_{len(self.statements) + 1}"
        self.statements.append(Statement(name, query, frozenset(read)))
        return name

    def _event(self, name: str) -> EventColumns:
        if name not in self.events:
            table = f"query_rows_{len(self.events) + 1}"
            self.events[name] = EventColumns(name, table, self.as_of)
        return self.events[name]

    # Which rows a stream takes.

    def _rows_of(self, rows: Rows, scope: Scope, read: dict[str, None]) -> exp.Select:
        """The rows of one stream: profile_id and the event's columns."""
        if rows.children:
            taken = self._funnel(rows, scope, read)
        else:
            used: dict[str, None] = {}
            taken = self._scan(
                rows.event, scope, [rows], read, used, self._taken(rows, scope, used)
            )
        if rows.session is None:
            return taken
        self._event(rows.event).own("timestamp", "r")
        return latest_session(taken, "profile_id", rows.session, rows.as_of)

    def _flagged(
        self, streams: list[Rows], scope: Scope, read: dict[str, None]
    ) -> tuple[exp.Select, dict[Rows, str | None]]:
        """All rows of an event, with a column per stream that says whether it takes the row."""
        used: dict[str, None] = {}
        flags: dict[Rows, str | None] = {}
        extra: list[exp.Expr] = []
        for rows in streams:
            taken = self._taken(rows, scope, used)
            everything = isinstance(taken, exp.Boolean) and bool(taken.this)
            flags[rows] = None if everything else f"f{len(extra)}"
            if not everything:
                extra.append(sql.named(taken, f"f{len(extra)}"))
        query = self._scan(streams[0].event, scope, streams, read, used, sql.TRUE(), extra)
        return query, flags

    def _scan(
        self,
        event: str,
        scope: Scope,
        streams: list[Rows],
        read: dict[str, None],
        used: dict[str, None],
        where: exp.Expr,
        extra: Sequence[exp.Expr] = (),
    ) -> exp.Select:
        columns = self._event(event)
        columns.after.extend(rows.after for rows in streams)
        read[columns.table] = None
        key, links = column("profile_id", "r"), []
        stars = [sql.everything("r")]
        if scope == "accounts":
            links.append(self._links(key))
            key = column("account_profile_id", "l")
            stars = [
                sql.named(key, "profile_id"),
                sql.everything("r", but=("profile_id",)),
            ]
        return sql.select(
            [*stars, *extra],
            sql.table(columns.table, "r"),
            joins=[*links, *joins(used, key)],
            where=where,
        )

    def _links(self, user: exp.Expr) -> exp.Join:
        self.needs_links = True
        same = sql.compare("=", column("user_profile_id", "l"), user.copy())
        return sql.join(sql.table(LINKS, "l"), same)

    def _taken(self, rows: Rows, scope: Scope, used: dict[str, None]) -> exp.Expr:
        """Whether a stream takes a row, children of funnels and session left aside."""
        columns = self._event(rows.event)
        source = self._source(rows, scope, used)
        simple = [one for one in rows.where if not any(reductions(one))]
        return sql.all_of(
            [*self._bounds(rows, columns), *(condition(one, source) for one in simple)]
        )

    def _bounds(self, rows: Rows, columns: EventColumns) -> list[exp.Expr]:
        found: list[exp.Expr] = []
        if rows.after is not None:
            stamp = columns.own("timestamp", "r")
            found.append(sql.compare(">", stamp, sql.instant(rows.after)))
        if rows.until < rows.as_of:
            stamp = columns.own("timestamp", "r")
            found.append(sql.compare("<=", stamp, sql.instant(rows.until)))
        if rows.exclude:
            origin = columns.own("source_id", "r")
            excluded = exp.In(
                this=origin.copy(), expressions=[sql.text(one) for one in sorted(rows.exclude)]
            )
            found.append(sql.any_of([sql.is_null(origin), sql.negate(excluded)]))
        if rows.received_after is not None:
            received = columns.own("received_at", "r")
            found.append(sql.compare(">", received, sql.instant(rows.received_after)))
        return found

    def _source(
        self,
        rows: Rows,
        scope: Scope,
        used: dict[str, None],
        parent: EventColumns | None = None,
        children: dict[Reduction, Value] | None = None,
    ) -> Source:
        """The leaves of conditions over a row `r`, whose parent, if it has one, is `p`."""
        columns = self._event(rows.event)

        def value(scalar: Scalar) -> Value | Items:
            match scalar:
                case Trait():
                    return self.references.value(scope, scalar, used)
                case Field():
                    of, alias = (parent, "p") if scalar.parent and parent else (columns, "r")
                    if EACH in segments(scalar.path):
                        return Items(of.view(scalar, "items", alias))
                    return of.value(scalar, alias)
                case Reduction():
                    assert children is not None
                    return children[scalar]
            raise AssertionError(scalar)

        return Source(value, rows.as_of)

    # Funnels.

    def _funnel(self, rows: Rows, scope: Scope, read: dict[str, None]) -> exp.Select:
        """The parents whose children are as the conditions want them."""
        columns = self._event(rows.event)
        columns.own("timestamp", "r")
        used: dict[str, None] = {}
        numbered = [sql.named(sql.over(sql.call("row_number")), "parent_id")]
        own: dict[str, None] = {}
        parents = self._scan(
            rows.event, scope, [rows], own, used, self._taken(rows, scope, used), numbered
        )
        table = self._add("query_parents", parents, own)
        values, tables = self._children(rows, scope, table)
        used = {}
        source = self._source(rows, scope, used, children=values)
        kept = [condition(one, source) for one in rows.where if any(reductions(one))]
        by_parent = [
            sql.join(
                sql.table(name),
                sql.compare("=", column("parent_id", name), column("parent_id", "r")),
                left=True,
            )
            for name in tables
        ]
        return sql.select(
            [sql.everything("r", but=("parent_id",))],
            sql.table(table, "r"),
            joins=[*by_parent, *joins(used, column("profile_id", "r"))],
            where=sql.all_of(kept),
        )

    def _children(
        self, rows: Rows, scope: Scope, parents: str
    ) -> tuple[dict[Reduction, Value], dict[str, None]]:
        """What each child's reducer gives for each parent, and the relations that hold it."""
        assert rows.bounds is not None
        wanted = {node: partial(node, scope, rows.bounds) for node in rows.children}
        groups: dict[Rows, dict[Partial, None]] = {}
        for one in wanted.values():
            groups.setdefault(one.rows, {})[one] = None
        places: dict[Partial, tuple[str, str]] = {}
        for child, some in groups.items():
            read: dict[str, None] = {}
            query = self._child_rows(child, scope, parents, self._event(rows.event), read)
            names = [Wanted(one, f"a{index}", None) for index, one in enumerate(some)]
            places |= self._reduce(names, child.event, "parent_id", query, read, "query_children")
        tables = {table: None for table, _ in places.values()}
        values = {
            node: value_of(one, column(*reversed(places[one]))) for node, one in wanted.items()
        }
        return values, tables

    def _child_rows(
        self, child: Rows, scope: Scope, parents: str, parent: EventColumns, read: dict[str, None]
    ) -> exp.Select:
        """Parents joined with the children that follow them."""
        stamp = self._event(child.event).own("timestamp", "r")
        used: dict[str, None] = {}
        source = self._source(child, scope, used, parent=parent)
        conditions = [
            *self._bounds(child, self._event(child.event)),
            *(condition(one, source) for one in child.where),
        ]
        rows = self._scan(child.event, scope, [child], read, {}, sql.TRUE())
        start = column("timestamp", "p")
        after = sql.plus(start, sql.interval(child.near)) if child.near else start
        follows = [
            sql.compare("=", column("profile_id", "r"), column("profile_id", "p")),
            sql.compare(">", stamp, after),
        ]
        if child.far is not None:
            end = sql.plus(start.copy(), sql.interval(child.far))
            follows.append(sql.compare("<=", stamp.copy(), end))
        joined = sql.select(
            [
                column("parent_id", "p"),
                sql.named(start.copy(), "parent_timestamp"),
                sql.everything("r", but=("profile_id",)),
            ],
            sql.table(parents, "p"),
            joins=[
                sql.join(sql.subquery(rows, "r"), sql.all_of(follows)),
                *joins(used, column("profile_id", "p")),
            ],
            where=sql.all_of(conditions),
        )
        if child.session is None:
            return joined
        if child.session_from_parent:
            return session_of_parent(joined, "parent_id", child.session)
        return latest_session(joined, "parent_id", child.session, child.as_of)


def _group(one: Partial) -> object:
    """Partials of one group share their rows' scan."""
    if one.rows.session is not None or one.rows.children:
        return (one.scope, one.rows)
    reads_traits = any(isinstance(node, Trait) for item in one.rows.where for node in walk(item))
    return (one.scope, one.rows.event, reads_traits)
