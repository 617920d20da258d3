"""Pass: the rows of one event, with just the columns that the plan reads.

What belongs here: one extraction per JSON field per scan, whatever reads it. Passes that compile
conditions ask an `EventColumns` for the views of a field (number, text, JSON, list of values) and
get columns; at the end it knows which to make.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlglot import exp

from personas_dagster.query import sql, typed
from personas_dagster.query.tree import Field
from personas_dagster.query.typed import Typed, View
from personas_dagster.query.values import Value


@dataclass(frozen=True)
class Layer:
    """Messages in one relation, and the typed columns that it holds."""

    relation: str = "messages"
    held: frozenset[str] = frozenset()


MESSAGES = (Layer(),)


@dataclass
class EventColumns:
    """The columns that are needed of one event's rows."""

    event: str
    table: str
    as_of: datetime
    views: dict[Typed, str] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)
    after: list[datetime | None] = field(default_factory=list)

    def view(self, one: Field, view: View, alias: str) -> exp.Expr:
        """A column of this view, in a relation called `alias`."""
        wanted = Typed(one.kind, one.path, view)
        name = self.views.setdefault(wanted, f"{view[0]}{len(self.views)}")
        return sql.column(name, alias)

    def value(self, one: Field, alias: str) -> Value:
        return _FieldValue(self, one, alias)

    def own(self, name: str, alias: str) -> exp.Expr:
        """A column of the message itself."""
        self.plain.add(name)
        return sql.column(name, alias)

    def moment(self, alias: str) -> list[exp.Expr]:
        """What orders events: timestamp, then receivedAt, then messageId."""
        return [self.own(name, alias) for name in ("timestamp", "received_at", "message_id")]


@dataclass(frozen=True)
class _FieldValue:
    columns: EventColumns
    field: Field
    alias: str

    def json(self) -> exp.Expr:
        return self.columns.view(self.field, "json", self.alias)

    def text(self) -> exp.Expr:
        return self.columns.view(self.field, "text", self.alias)

    def number(self) -> exp.Expr:
        return self.columns.view(self.field, "number", self.alias)

    def exists(self) -> exp.Expr:
        return sql.is_not_null(self.json())


def select_rows(columns: EventColumns, layers: Sequence[Layer] = MESSAGES) -> exp.Select:
    """The SELECT over the messages of all layers.

    >>> from datetime import timezone
    >>> columns = EventColumns("X", "rows_x", datetime(2024, 1, 1, tzinfo=timezone.utc))
    >>> _ = columns.view(Field("property", "a.b"), "number", "r")
    >>> print(select_rows(columns).sql("duckdb")[:70])
    SELECT profile_id, CASE WHEN LEFT(j0, 1) <> '"' THEN TRY_CAST(j0 AS DO
    >>> held = Layer("messages_1", frozenset({"typed_property_number_a%2eb"}))
    >>> print(select_rows(columns, [held]).sql("duckdb")[:64])
    SELECT profile_id, "typed_property_number_a%2eb" AS n0 FROM mess
    """
    parts = [_of_layer(columns, layer) for layer in layers]
    union: exp.Expr = parts[0]
    for part in parts[1:]:
        union = exp.Union(this=union, expression=part, distinct=False)
    if isinstance(union, exp.Select):
        return union
    return sql.select([sql.everything()], sql.subquery(union, "layers"))


def _of_layer(columns: EventColumns, layer: Layer) -> exp.Select:
    """Columns that the layer holds as they are, the others out of its JSON, each parsed once."""
    kept = [sql.column(name) for name in ("profile_id", *sorted(columns.plain))]
    held = {one for one in columns.views if one.name in layer.held}
    missing = [one for one in columns.views if one not in held]
    messages, where = sql.table(layer.relation), _wanted(columns)
    if not missing:
        views = [sql.named(sql.column(one.name), name) for one, name in columns.views.items()]
        return sql.select([*kept, *views], messages, where=where)
    kept += [sql.column(one.name) for one in columns.views if one in held]
    found = sql.select([*kept, *typed.parsed(missing)], messages, where=where)
    documents: dict[tuple[str, str], str] = {}
    for one in missing:
        documents.setdefault((one.kind, one.path), f"j{len(documents)}")
    texts = [
        sql.named(typed.document(kind, path, missing), name)
        for (kind, path), name in documents.items()
    ]
    raw = sql.select([*kept, *texts], sql.subquery(found, "found"))
    views = [
        sql.named(
            sql.column(one.name)
            if one in held
            else typed.read(sql.column(documents[one.kind, one.path]), one),
            name,
        )
        for one, name in columns.views.items()
    ]
    return sql.select([*kept[: len(kept) - len(held)], *views], sql.subquery(raw, "raw"))


def _wanted(columns: EventColumns) -> exp.Expr:
    """The event's messages up to `as_of`, not older than every stream's window."""
    stamp = sql.column("timestamp")
    conditions = [
        sql.compare("=", sql.column("event"), sql.text(columns.event)),
        sql.compare("<=", stamp, sql.instant(columns.as_of)),
    ]
    starts = [after for after in columns.after if after is not None]
    if starts and len(starts) == len(columns.after):
        conditions.append(sql.compare(">", stamp.copy(), sql.instant(min(starts))))
    return sql.all_of(conditions)
