"""Pass: the rows of one event, with just the columns that the plan reads.

What belongs here: one extraction per JSON field per scan, whatever reads it. Passes that compile
conditions ask an `EventColumns` for the views of a field (number, text, JSON, list of values) and
get columns; at the end it knows which to make.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from sqlglot import exp

from personas_dagster.query import paths, sql
from personas_dagster.query.tree import Field, segments
from personas_dagster.query.values import Value, canonical, number_of, text_of

View = Literal["json", "text", "number", "items"]
_JSON_COLUMN = {"property": "properties", "context": "context"}


@dataclass
class EventColumns:
    """The columns that are needed of one event's rows."""

    event: str
    table: str
    as_of: datetime
    views: dict[tuple[str, str, View], str] = field(default_factory=dict)
    plain: set[str] = field(default_factory=set)
    after: list[datetime | None] = field(default_factory=list)

    def view(self, one: Field, view: View, alias: str) -> exp.Expr:
        """A column of this view, in a relation called `alias`."""
        wanted = (one.kind, one.path, view)
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


def select_rows(columns: EventColumns) -> exp.Select:
    """The SELECT over `messages`.

    >>> from datetime import timezone
    >>> columns = EventColumns("X", "rows_x", datetime(2024, 1, 1, tzinfo=timezone.utc))
    >>> _ = columns.view(Field("property", "a.b"), "number", "r")
    >>> print(select_rows(columns).sql("duckdb")[:70])
    SELECT profile_id, CASE WHEN LEFT(j0, 1) <> '"' THEN TRY_CAST(j0 AS DO
    """
    documents: dict[tuple[str, str], str] = {}
    for kind, path, _ in columns.views:
        documents.setdefault((kind, path), f"j{len(documents)}")
    kept = ["profile_id", *sorted(columns.plain)]
    raw = sql.select(
        [
            *(sql.column(name) for name in kept),
            *(
                sql.named(_document(columns, kind, path), name)
                for (kind, path), name in documents.items()
            ),
        ],
        _messages(columns),
    )
    views = [
        sql.named(_view(sql.column(documents[kind, path]), path, view), name)
        for (kind, path, view), name in columns.views.items()
    ]
    if not views:
        return raw
    return sql.select([*(sql.column(name) for name in kept), *views], sql.subquery(raw, "raw"))


def _messages(columns: EventColumns) -> exp.Expr:
    """The event's messages, each JSON column parsed once."""
    stamp = sql.column("timestamp")
    conditions = [
        sql.compare("=", sql.column("event"), sql.text(columns.event)),
        sql.compare("<=", stamp, sql.instant(columns.as_of)),
    ]
    starts = [after for after in columns.after if after is not None]
    if starts and len(starts) == len(columns.after):
        conditions.append(sql.compare(">", stamp.copy(), sql.instant(min(starts))))
    names = ["profile_id", *sorted(columns.plain)]
    parsed = [
        sql.named(
            sql.call(
                "json_extract",
                sql.column(_JSON_COLUMN[kind]),
                sql.array(sql.text(path) for path in found),
            ),
            f"{kind}_values",
        )
        for kind, found in _paths(columns).items()
    ]
    query = sql.select(
        [*(sql.column(name) for name in names), *parsed],
        sql.table("messages"),
        where=sql.all_of(conditions),
    )
    return sql.subquery(query, "found")


def _paths(columns: EventColumns) -> dict[str, list[str]]:
    found: dict[str, dict[str, None]] = {}
    for kind, path, _ in columns.views:
        found.setdefault(kind, {})[_json_path(path)] = None
    return {kind: list(each) for kind, each in found.items()}


def _json_path(path: str) -> str:
    """Up to the first `$`."""
    return paths.json_path(paths.split(segments(path))[0]) or "$"


def _document(columns: EventColumns, kind: str, path: str) -> exp.Expr:
    position = _paths(columns)[kind].index(_json_path(path)) + 1
    return paths.as_text(
        sql.call("list_extract", sql.column(f"{kind}_values"), sql.number(position))
    )


def _view(document: exp.Expr, path: str, view: View) -> exp.Expr:
    match view:
        case "json":
            return canonical(document)
        case "text":
            return text_of(document)
        case "number":
            return number_of(document)
        case "items":
            return items_of(document, paths.split(segments(path))[1:])


def items_of(document: exp.Expr, parts: list[tuple[str, ...]]) -> exp.Expr:
    """The canonical values that a path with `$` reaches; NULL elements are absent values.

    NULL where there is no array.
    """
    is_array = sql.compare("=", sql.call("left", document, sql.number(1)), sql.text("["))
    found = paths.many(document.copy(), parts)
    return sql.case((is_array, sql.each(found, "v", canonical(sql.column("v")))))
