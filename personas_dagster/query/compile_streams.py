"""Pass: normalised streams to statements, one scan per event name and kind of stream.

What belongs here: which rows a stream takes, and the statements that reduce them. Streams that
are only filters share one scan with a condition each; session windows and funnels have their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from sqlglot import exp

from personas_dagster.query import sql
from personas_dagster.query.compile_conditions import condition
from personas_dagster.query.compile_events import NOTHING, Reading
from personas_dagster.query.compile_following import (
    IS_CHILD,
    Following,
    both,
    following,
    is_framed,
    keyed,
    over,
)
from personas_dagster.query.compile_reducers import (
    Wanted,
    family,
    reduce,
    reduce_over,
    type_of,
    value_of,
)
from personas_dagster.query.compile_references import joins
from personas_dagster.query.compile_rows import EventRows
from personas_dagster.query.compile_sessions import latest_session, session_of_parent
from personas_dagster.query.references import Scope
from personas_dagster.query.sql import column
from personas_dagster.query.streams import Partial, Rows, of_reduction, reductions
from personas_dagster.query.tree import Reduction, Trait, walk
from personas_dagster.query.values import Value

_PARENTS, _CHILDREN = "query_parents", "query_children"


@dataclass(frozen=True)
class Statement:
    """A table to be made; `events` are the tables of rows that it reads, and what of them.

    One that is a `part` only serves other statements' making.
    """

    name: str
    query: exp.Select
    events: Mapping[str, Reading] = field(default_factory=dict)
    part: bool = False


@dataclass
class Streams:
    """Compiles partials, and remembers where each was put."""

    rows: EventRows
    statements: list[Statement] = field(default_factory=list)
    placed: dict[Partial, tuple[str, str]] = field(default_factory=dict)
    confined: set[str] = field(default_factory=set)

    def compile(self, partials: Sequence[Partial]) -> None:
        """Add the statements that compute `partials`, all of one level."""
        groups: dict[object, list[Partial]] = {}
        for one in partials:
            if one not in self.placed:
                groups.setdefault(_group(one), []).append(one)
        for group in groups.values():
            start = len(self.statements)
            self._compile_group(group)
            self._note_readings(start)

    def value(self, one: Partial, used: dict[str, None]) -> Value:
        """A profile's value of a partial, from the relation it was put into."""
        table, name = self.placed[one]
        used[table] = None
        return value_of(one, column(name, table))

    def confine(self, table: str, scope: Scope) -> None:
        """Keep a table to profiles that are in `profiles`: values are read from it directly."""
        if table in self.confined:
            return
        self.confined.add(table)
        index = next(i for i, one in enumerate(self.statements) if one.name == table)
        one = self.statements[index]
        query = sql.select(
            [sql.everything("q")],
            sql.subquery(one.query, "q"),
            joins=[
                sql.join(
                    sql.table("profiles", "p"),
                    sql.compare("=", column("profile_id", "p"), column("profile_id", "q")),
                )
            ],
            where=sql.compare("=", column("collection", "p"), sql.text(scope)),
        )
        self.statements[index] = replace(one, query=query)

    @property
    def types(self) -> dict[tuple[str, str], str]:
        """The SQL types of the columns that partials were put into."""
        return {place: type_of(one) for one, place in self.placed.items()}

    def _compile_group(self, group: list[Partial]) -> None:
        scope = group[0].scope
        streams = list(dict.fromkeys(one.rows for one in group))
        read: dict[str, None] = {}
        flags: dict[Rows, str | None] = {}
        if len(streams) == 1:
            rows = self._rows_of(streams[0], scope, read)
        else:
            rows, flags = self._flagged(streams, scope, read)
        wanted = [Wanted(one, f"a{index}", flags.get(one.rows)) for index, one in enumerate(group)]
        self.placed |= self._reduce(wanted, "profile_id", rows, read, f"query_{scope}")

    def _note_readings(self, start: int) -> None:
        """The statements from `start` on read what was asked for since the last ones."""
        readings = {one.table: one.reading() for one in self.rows.events.values()}
        for index, one in enumerate(self.statements[start:], start):
            read = {table: readings[table] for table in one.events}
            self.statements[index] = replace(one, events=read)

    def _reduce(
        self,
        wanted: list[Wanted],
        key: str,
        rows: exp.Select,
        read: dict[str, None],
        prefix: str,
    ) -> dict[Partial, tuple[str, str]]:
        """Statements that reduce `rows`, one per family; returns where each partial was put."""
        families: dict[object, list[Wanted]] = {}
        for one in wanted:
            families.setdefault(family(one.partial), []).append(one)
        placed: dict[Partial, tuple[str, str]] = {}
        for some in families.values():
            columns = self.rows.event(some[0].partial.rows.event)
            query = reduce(some, columns, key, partial(_relation, rows.copy()))
            table = self._add(prefix, query, read)
            placed |= {one.partial: (table, one.name) for one in some}
        return placed

    def _add(self, prefix: str, query: exp.Select, read: dict[str, None]) -> str:
        name = f"{prefix}_{len(self.statements) + 1}"
        part = prefix in (_PARENTS, _CHILDREN)
        self.statements.append(Statement(name, query, dict.fromkeys(read, NOTHING), part))
        return name

    def _rows_of(self, rows: Rows, scope: Scope, read: dict[str, None]) -> exp.Select:
        """The rows of one stream: profile_id and the event's columns."""
        if rows.children:
            taken = self._funnel(rows, scope, read)
        else:
            used: dict[str, None] = {}
            taken = self.rows.scan(
                rows.event, scope, [rows], read, used, self.rows.taken(rows, scope, used)
            )
        if rows.session is None:
            return taken
        self.rows.event(rows.event).own("timestamp", "r")
        return latest_session(taken, "profile_id", rows.session, rows.as_of)

    def _flagged(
        self, streams: list[Rows], scope: Scope, read: dict[str, None]
    ) -> tuple[exp.Select, dict[Rows, str | None]]:
        """All rows of an event, with a column per stream that says whether it takes the row."""
        used: dict[str, None] = {}
        flags: dict[Rows, str | None] = {}
        extra: list[exp.Expr] = []
        for rows in streams:
            taken = self.rows.taken(rows, scope, used)
            everything = isinstance(taken, exp.Boolean) and bool(taken.this)
            flags[rows] = None if everything else f"f{len(extra)}"
            if not everything:
                extra.append(sql.named(taken, f"f{len(extra)}"))
        query = self.rows.scan(streams[0].event, scope, streams, read, used, sql.TRUE(), extra)
        return query, flags

    # Funnels.

    def _funnel(self, rows: Rows, scope: Scope, read: dict[str, None]) -> exp.Select:
        """The parents whose children are as the conditions want them."""
        columns = self.rows.event(rows.event)
        columns.own("timestamp", "r")
        used: dict[str, None] = {}
        numbered = [sql.named(sql.over(sql.call("row_number")), "parent_id")]
        own: dict[str, None] = {}
        parents = self.rows.scan(
            rows.event, scope, [rows], own, used, self.rows.taken(rows, scope, used), numbered
        )
        table = self._add(_PARENTS, parents, own)
        values, tables = self._children(rows, scope, table)
        used = {}
        source = self.rows.source(rows, scope, used, children=values)
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
        wanted = {node: of_reduction(node, scope, rows.bounds) for node in rows.children}
        groups: dict[Rows, dict[Partial, None]] = {}
        for one in wanted.values():
            groups.setdefault(one.rows, {})[one] = None
        places: dict[Partial, tuple[str, str]] = {}
        for child, some in groups.items():
            asked = following(_no_earlier(child, rows))
            framed = [one for one in some if asked and is_framed(one)]
            if asked and framed:
                places |= self._framed(framed, asked, rows, scope, parents)
            read: dict[str, None] = {}
            query = self._child_rows(child, rows, scope, parents, read)
            names = [
                Wanted(one, f"a{index}", None)
                for index, one in enumerate(some)
                if one not in framed
            ]
            places |= self._reduce(names, "parent_id", query, read, _CHILDREN)
        tables = {table: None for table, _ in places.values()}
        values = {
            node: value_of(one, column(*reversed(places[one]))) for node, one in wanted.items()
        }
        return values, tables

    def _framed(
        self, some: list[Partial], asked: Following, rows: Rows, scope: Scope, parents: str
    ) -> dict[Partial, tuple[str, str]]:
        """Children reduced in windows around their parents (`rows`); those of parents whose values
        have no key, in a join."""
        child = _no_earlier(some[0].rows, rows)
        columns, parent = self.rows.event(child.event), self.rows.event(rows.event)
        columns.own("timestamp", "r")
        read: dict[str, None] = {}
        used: dict[str, None] = {}
        taken = self.rows.taken(replace(child, where=asked.own), scope, used)
        events = self.rows.scan(child.event, scope, [child], read, used, taken)
        of_child, plain, _ = keyed([one for one, _ in asked.same], columns, "r")
        of_parent, plain_parent, unusual = keyed([one for _, one in asked.same], parent, "p")
        same = sql.compare("=", column("profile_id", "p"), column("profile_id", "r"))
        children = sql.select(
            [sql.everything("r"), *of_child],
            sql.subquery(events, "r"),
            joins=[exp.Join(this=sql.table(parents, "p"), on=same, kind="SEMI")],
            where=plain,
        )
        own = [column(name, "p") for name in ("parent_id", "profile_id", "timestamp")]
        before = sql.select([*own, *of_parent], sql.table(parents, "p"), where=plain_parent)
        wanted = [Wanted(one, f"a{index}", IS_CHILD) for index, one in enumerate(some)]
        window = partial(over, child=child, pairs=len(asked.same))
        query = reduce_over(wanted, columns, "parent_id", both(before, children), window)
        if asked.same:
            joined = self._child_rows(some[0].rows, rows, scope, parents, read, only=unusual)
            others = [replace(one, taken=None) for one in wanted]
            unkeyed = reduce(others, columns, "parent_id", partial(_relation, joined))
            union = exp.Union(this=query, expression=unkeyed, distinct=False)
            query = sql.select([sql.everything()], sql.subquery(union, "children"))
        table = self._add(_CHILDREN, query, read)
        return {one.partial: (table, one.name) for one in wanted}

    def _child_rows(
        self,
        child: Rows,
        rows: Rows,
        scope: Scope,
        parents: str,
        read: dict[str, None],
        only: exp.Expr | None = None,
    ) -> exp.Select:
        """Parents (`rows`) joined with the children that follow them; `only` some parents."""
        parent = self.rows.event(rows.event)
        stamp = self.rows.event(child.event).own("timestamp", "r")
        child = _no_earlier(child, rows)
        used: dict[str, None] = {}
        source = self.rows.source(child, scope, used, parent=parent)
        conditions = [
            *([only] if only else []),
            *self.rows.bounds(child, self.rows.event(child.event)),
            *(condition(one, source) for one in child.where),
        ]
        events = self.rows.scan(child.event, scope, [child], read, {}, sql.TRUE())
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
                sql.join(sql.subquery(events, "r"), sql.all_of(follows)),
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
    return (one.scope, one.rows.event, reads_traits, family(one))


def _no_earlier(child: Rows, parents: Rows) -> Rows:
    """Children follow their parents, so the start of the parents' window is theirs too."""
    starts = [after for after in (child.after, parents.after) if after is not None]
    return replace(child, after=max(starts, default=None))


def _relation(rows: exp.Select, extra: Sequence[exp.Expr]) -> exp.Expr:
    """The rows, called `s`, with more columns."""
    if not extra:
        return sql.subquery(rows, "s")
    source = sql.subquery(rows, "r")
    return sql.subquery(sql.select([sql.everything("r"), *extra], source), "s")
