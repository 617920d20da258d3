"""Pass: which rows of an event a stream takes.

What belongs here: scans over the rows of one event (`compile_events`), the bounds and conditions
of a stream as SQL over a row, and where the leaves of a condition inside `where` come from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlglot import exp

from personas_dagster.query import sql
from personas_dagster.query.compile_conditions import Items, Source, condition
from personas_dagster.query.compile_events import EventColumns
from personas_dagster.query.compile_references import LINKS, References, joins
from personas_dagster.query.paths import EACH
from personas_dagster.query.references import Scope
from personas_dagster.query.sql import column
from personas_dagster.query.streams import Rows, reductions
from personas_dagster.query.tree import Field, Reduction, Scalar, Trait, segments
from personas_dagster.query.values import Value


@dataclass
class EventRows:
    """Scans of events, and what they turn out to need: columns, links."""

    as_of: datetime
    references: References
    events: dict[str, EventColumns] = field(default_factory=dict)
    needs_links: bool = False

    def event(self, name: str) -> EventColumns:
        if name not in self.events:
            table = f"query_rows_{len(self.events) + 1}"
            self.events[name] = EventColumns(name, table, self.as_of)
        return self.events[name]

    def scan(
        self,
        event: str,
        scope: Scope,
        streams: list[Rows],
        read: dict[str, None],
        used: dict[str, None],
        where: exp.Expr,
        extra: Sequence[exp.Expr] = (),
    ) -> exp.Select:
        columns = self.event(event)
        columns.reach(rows.after for rows in streams)
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

    def taken(self, rows: Rows, scope: Scope, used: dict[str, None]) -> exp.Expr:
        """Whether a stream takes a row, children of funnels and session left aside."""
        columns = self.event(rows.event)
        source = self.source(rows, scope, used)
        simple = [one for one in rows.where if not any(reductions(one))]
        return sql.all_of(
            [*self.bounds(rows, columns), *(condition(one, source) for one in simple)]
        )

    def bounds(self, rows: Rows, columns: EventColumns) -> list[exp.Expr]:
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

    def source(
        self,
        rows: Rows,
        scope: Scope,
        used: dict[str, None],
        parent: EventColumns | None = None,
        children: dict[Reduction, Value] | None = None,
    ) -> Source:
        """The leaves of conditions over a row `r`, whose parent, if it has one, is `p`."""
        columns = self.event(rows.event)

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
