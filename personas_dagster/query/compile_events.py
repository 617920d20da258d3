"""Pass: the rows of one event, with just the columns that the plan reads.

What belongs here: one extraction per JSON field per scan, whatever reads it. Passes that compile
conditions ask an `EventColumns` for the views of a field (number, text, JSON, list of values) and
get columns; at the end it knows which to make.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
_MOMENT, _ORDER = "moment", ("timestamp", "received_at", "message_id")


@dataclass(frozen=True)
class Reading:
    """What is read of an event's rows: names of columns, and rows after an instant (None: all)."""

    columns: frozenset[str]
    after: datetime | None


NOTHING = Reading(frozenset(), None)


@dataclass
class EventColumns:
    """The columns that are needed of one event's rows, by all readers, and by one at a time."""

    event: str
    table: str
    as_of: datetime
    views: dict[Typed, str] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)
    after: list[datetime | None] = field(default_factory=list)
    _read: set[str] = field(default_factory=set)
    _after: list[datetime | None] = field(default_factory=list)

    def view(self, one: Field, view: View, alias: str) -> exp.Expr:
        """A column of this view, in a relation called `alias`."""
        wanted = Typed(one.kind, one.path, view)
        name = self.views.setdefault(wanted, f"{view[0]}{len(self.views)}")
        self._read.add(name)
        return sql.column(name, alias)

    def value(self, one: Field, alias: str) -> Value:
        return _FieldValue(self, one, alias)

    def own(self, name: str, alias: str) -> exp.Expr:
        """A column of the message itself."""
        self.plain.add(name)
        self._read.add(name)
        return sql.column(name, alias)

    def moment(self, alias: str) -> exp.Expr:
        """What orders events: timestamp, then receivedAt, then messageId, as one column."""
        return self.own(_MOMENT, alias)

    def reach(self, after: Iterable[datetime | None]) -> None:
        """Streams that are read begin after these instants."""
        self._after += after

    def reading(self) -> Reading:
        """What was asked for since the last reading; there the next one begins."""
        found = Reading(frozenset(self._read), _earliest(self._after))
        if self._after:
            self.after.append(found.after)
        self._read, self._after = set(), []
        return found

    @property
    def whole(self) -> Reading:
        """What all readings take."""
        return Reading(frozenset({*self.plain, *self.views.values()}), _earliest(self.after))


def _earliest(starts: Sequence[datetime | None]) -> datetime | None:
    known = [one for one in starts if one is not None]
    return min(known) if known and len(known) == len(starts) else None


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


def select_rows(
    columns: EventColumns, layers: Sequence[Layer] = MESSAGES, reading: Reading | None = None
) -> exp.Select:
    """The SELECT over the messages of all layers, for one reading or for all.

    >>> from datetime import timezone
    >>> columns = EventColumns("X", "rows_x", datetime(2024, 1, 1, tzinfo=timezone.utc))
    >>> _ = columns.view(Field("property", "a.b"), "number", "r")
    >>> print(select_rows(columns).sql("duckdb")[:70])
    SELECT profile_id, CASE WHEN LEFT(j0, 1) <> '"' THEN TRY_CAST(j0 AS DO
    >>> held = Layer("messages_1", frozenset({"typed_property_number_a%2eb"}))
    >>> print(select_rows(columns, [held]).sql("duckdb")[:64])
    SELECT profile_id, "typed_property_number_a%2eb" AS n0 FROM mess
    """
    reading = reading or columns.whole
    parts = [_of_layer(columns, layer, reading) for layer in layers]
    union: exp.Expr = parts[0]
    for part in parts[1:]:
        union = exp.Union(this=union, expression=part, distinct=False)
    if isinstance(union, exp.Select):
        return union
    return sql.select([sql.everything()], sql.subquery(union, "layers"))


def _of_layer(columns: EventColumns, layer: Layer, reading: Reading) -> exp.Select:
    """Columns that the layer holds as they are, the others out of its JSON, each parsed once."""
    plain = sorted((columns.plain - {_MOMENT}) & reading.columns)
    own: list[exp.Expr] = [sql.column(name) for name in ("profile_id", *plain)]
    ordering = _ORDER if _MOMENT in reading.columns else ()
    if ordering:
        own.append(sql.named(sql.sort_key([sql.column(name) for name in ordering]), _MOMENT))
    named = {one: name for one, name in columns.views.items() if name in reading.columns}
    held = {one for one in named if one.name in layer.held}
    missing = [one for one in named if one not in held]
    messages, where = sql.table(layer.relation), _wanted(columns, reading)
    if not missing:
        views = [sql.named(sql.column(one.name), name) for one, name in named.items()]
        return sql.select([*own, *views], messages, where=where)
    kept = [sql.column(name) for name in ("profile_id", *sorted({*plain, *ordering}))]
    kept += [sql.column(one.name) for one in named if one in held]
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
        for one, name in named.items()
    ]
    return sql.select([*own, *views], sql.subquery(raw, "raw"))


def is_held(columns: EventColumns, layers: Sequence[Layer]) -> bool:
    """Whether the layers hold all that is read of an event, so that reading it again is cheap."""
    return all(one.name in layer.held for one in columns.views for layer in layers)


def _wanted(columns: EventColumns, reading: Reading) -> exp.Expr:
    """The event's messages up to `as_of`, not older than every stream's window."""
    stamp = sql.column("timestamp")
    conditions = [
        sql.compare("=", sql.column("event"), sql.text(columns.event)),
        sql.compare("<=", stamp, sql.instant(columns.as_of)),
    ]
    if reading.after is not None:
        conditions.append(sql.compare(">", stamp.copy(), sql.instant(reading.after)))
    return sql.all_of(conditions)
