"""Typed columns: properties that definitions read, kept beside the JSON of `events`.

What belongs here: which columns those are, how they are called, and the SQL that fills them from
the JSON. It is the same SQL that reads the JSON where there is no column, so that both say the
same. A file tells by `MARK`, a hash of the names, that its typed columns are filled: a writer
that knows nothing of them leaves the mark NULL, and its rows are read from the JSON.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from sqlglot import exp

from personas_dagster.query import paths, sql
from personas_dagster.query.tree import segments
from personas_dagster.query.values import canonical, number_of, text_of

View = Literal["json", "text", "number", "items"]
KEPT: tuple[View, ...] = ("json", "text", "number")
PREFIX = "typed_"
MARK = "typed_columns"
_JSON_COLUMN = {"property": "properties", "context": "context"}


@dataclass(frozen=True, order=True)
class Typed:
    """One view of one field of an event: `kind` is property or context, `path` as in a query."""

    kind: str
    path: str
    view: View

    @property
    def name(self) -> str:
        """Lower-case letters, digits and underscores as they are, all else as %XX.

        >>> Typed("property", "total", "number").name, Typed("context", "page.URL", "text").name
        ('typed_property_number_total', 'typed_context_text_page%2e%55%52%4c')
        """
        path = re.sub(r"[^a-z0-9_]", _escaped, self.path)
        return f"{PREFIX}{self.kind}_{self.view}_{path}"

    def __str__(self) -> str:
        return f"{self.kind}('{self.path}') as {self.view}"


def named(name: str) -> Typed | None:
    """The typed column of that name.

    >>> named("typed_context_text_page%2e%55%52%4c")
    Typed(kind='context', path='page.URL', view='text')
    """
    found = re.fullmatch(rf"{PREFIX}(property|context)_(json|text|number)_(.+)", name)
    if not found:
        return None
    kind, view, path = found.groups()
    data = re.sub(rb"%([0-9a-f]{2})", lambda m: bytes.fromhex(m[1].decode()), path.encode())
    return Typed(kind, data.decode(), view)  # type: ignore[arg-type]


def mark(names: Iterable[str]) -> int:
    """What stands in `MARK` of rows whose typed columns are these."""
    text = "\n".join(sorted(names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


def filled(columns: Sequence[Typed], relation: str, held: Collection[str] = ()) -> exp.Select:
    """All of a relation's columns, the typed ones, and the mark.

    Those that the relation holds already (`held`) are taken from it, the others from its JSON.
    """
    missing = [one for one in columns if one.name not in held]
    values = [
        sql.named(sql.column(one.name) if one.name in held else of_json(one, missing), one.name)
        for one in columns
    ]
    marked = sql.named(sql.cast(sql.number(mark(one.name for one in columns)), "BIGINT"), MARK)
    source = sql.table(relation)
    if missing:
        source = sql.subquery(
            sql.select([sql.everything(), *parsed(missing)], sql.table(relation)), "parsed"
        )
    but = [*held, *(f"{kind}_values" for kind in sorted({one.kind for one in missing}))]
    return sql.select([sql.everything(but=but), *values, marked], source)


def parsed(fields: Sequence[Typed]) -> list[exp.Expr]:
    """Each JSON column parsed once: `<kind>_values`, the list of what is read of it."""
    return [
        sql.named(
            sql.call(
                "json_extract",
                sql.column(_JSON_COLUMN[kind]),
                sql.array(sql.text(path) for path in found),
            ),
            f"{kind}_values",
        )
        for kind, found in _paths(fields).items()
    ]


def document(kind: str, path: str, fields: Sequence[Typed]) -> exp.Expr:
    """The JSON text at a path up to its first `$`, out of what `parsed(fields)` found."""
    position = _paths(fields)[kind].index(_json_path(path)) + 1
    return paths.as_text(
        sql.call("list_extract", sql.column(f"{kind}_values"), sql.number(position))
    )


def of_json(one: Typed, fields: Sequence[Typed]) -> exp.Expr:
    return read(document(one.kind, one.path, fields), one)


def read(item: exp.Expr, one: Typed) -> exp.Expr:
    """A view of a document."""
    match one.view:
        case "json":
            return canonical(item)
        case "text":
            return text_of(item)
        case "number":
            return number_of(item)
        case "items":
            return items_of(item, paths.split(segments(one.path))[1:])


def items_of(item: exp.Expr, parts: list[tuple[str, ...]]) -> exp.Expr:
    """The canonical values that a path with `$` reaches; NULL elements are absent values.

    NULL where there is no array.
    """
    is_array = sql.compare("=", sql.call("left", item, sql.number(1)), sql.text("["))
    found = paths.many(item.copy(), parts)
    return sql.case((is_array, sql.each(found, "v", canonical(sql.column("v")))))


def _paths(fields: Sequence[Typed]) -> dict[str, list[str]]:
    found: dict[str, dict[str, None]] = {}
    for one in fields:
        found.setdefault(one.kind, {})[_json_path(one.path)] = None
    return {kind: list(each) for kind, each in found.items()}


def _json_path(path: str) -> str:
    """Up to the first `$`."""
    return paths.json_path(paths.split(segments(path))[0]) or "$"


def _escaped(found: re.Match[str]) -> str:
    return "".join(f"%{byte:02x}" for byte in found[0].encode())
