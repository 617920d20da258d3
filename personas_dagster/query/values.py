r"""What a value is: its number, its text, its JSON, its instant; and how two are compared.

What belongs here: the semantics of values, for every place where they occur (an event's property,
a trait, the result of a reducer, a constant). `tests/query/oracle.py` says the same in Python.

A value is held as JSON text and is absent where that is NULL. Numbers are read as doubles, from
JSON numbers and from strings that look like `-?[0-9]+(\.[0-9]+)?`.

>>> Constant(Literal("string", "15")).number().sql("duckdb")
'CAST(15 AS DOUBLE)'
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

from sqlglot import exp

from personas_dagster.query import sql
from personas_dagster.query.sql import call, case, text
from personas_dagster.query.tree import Literal

NUMERIC = r"-?[0-9]+(\.[0-9]+)?"
ISO_8601 = (
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    r"([Tt ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9]([.,][0-9]+)?)?"
    r"([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)?)?"
)
_ZONE = r"([Zz]|[+-][0-9]{2}(:?[0-9]{2})?)$"
_QUOTE, _ESCAPE = text('"'), text("\\")


class Value(Protocol):
    """The views of one value; each is NULL where the value is absent or cannot be read so."""

    def json(self) -> exp.Expr: ...
    def text(self) -> exp.Expr: ...
    def number(self) -> exp.Expr | None:
        """None where no value of this kind is ever a number."""

    def exists(self) -> exp.Expr: ...


@dataclass(frozen=True)
class Json:
    """JSON text in canonical form (`canonical`)."""

    item: exp.Expr

    def json(self) -> exp.Expr:
        return self.item.copy()

    def text(self) -> exp.Expr:
        return text_of(self.item)

    def number(self) -> exp.Expr:
        return number_of(self.item)

    def exists(self) -> exp.Expr:
        return sql.is_not_null(self.item.copy())


@dataclass(frozen=True)
class Number:
    """A SQL number."""

    item: exp.Expr
    whole: bool = False

    def json(self) -> exp.Expr:
        if self.whole:
            return sql.cast(self.item.copy(), "VARCHAR")
        return number_text(self.item)

    text = json

    def number(self) -> exp.Expr:
        return self.item.copy()

    def exists(self) -> exp.Expr:
        return sql.is_not_null(self.item.copy())


@dataclass(frozen=True)
class Text:
    """A SQL string."""

    item: exp.Expr

    def json(self) -> exp.Expr:
        return sql.cast(call("to_json", self.item.copy()), "VARCHAR")

    def text(self) -> exp.Expr:
        return self.item.copy()

    def number(self) -> exp.Expr:
        item = self.item
        return case((_matches(item, NUMERIC), sql.try_cast(item.copy(), "DOUBLE")))

    def exists(self) -> exp.Expr:
        return sql.is_not_null(self.item.copy())


# What a table can hold of a value: one column, and how it is read.
Computed: TypeAlias = Json | Number | Text


@dataclass(frozen=True)
class Constant:
    """A literal of the query."""

    literal: Literal

    def json(self) -> exp.Expr:
        if self.literal.kind in ("number", "boolean"):
            return self.text()
        return Text(self.text()).json()

    def text(self) -> exp.Expr:
        return text(self.literal.text)

    def number(self) -> exp.Expr | None:
        return sql.double(self.literal.text) if self.is_number else None

    def exists(self) -> exp.Expr:
        return sql.TRUE()

    @property
    def is_number(self) -> bool:
        return re.fullmatch(NUMERIC, self.literal.text) is not None


def canonical(item: exp.Expr) -> exp.Expr:
    """JSON text with numbers in their shortest form: 15, not 15.0, inside lists and objects too."""
    return _by_kind(item, item.copy())


def text_of(item: exp.Expr) -> exp.Expr:
    """The text of JSON: a string without its quotes, all else in canonical form."""
    escaped = call("contains", item.copy(), _ESCAPE.copy())
    read = call("json_extract_string", item.copy(), text("$"))
    return _by_kind(item, case((escaped, read), otherwise=_unquoted(item)))


def number_of(item: exp.Expr) -> exp.Expr:
    """The number that JSON text holds, as DOUBLE."""
    first = call("left", item.copy(), sql.number(1))
    numeric_string = _matches(item, f'"{NUMERIC}"')
    return case(
        (sql.compare("<>", first, _QUOTE.copy()), sql.try_cast(item.copy(), "DOUBLE")),
        (numeric_string, sql.try_cast(_unquoted(item), "DOUBLE")),
    )


def number_text(item: exp.Expr) -> exp.Expr:
    """A DOUBLE in its shortest form; absent beyond what a double can hold."""
    size = call("abs", item.copy())
    written = sql.cast(call("to_json", sql.cast(item.copy(), "DOUBLE")), "VARCHAR")
    whole = sql.cast(sql.cast(item.copy(), "BIGINT"), "VARCHAR")
    is_small = sql.compare("<", size, sql.double("1e15"))
    return case(
        (sql.all_of([_is_whole(item), is_small]), whole),
        (is_small.copy(), written),
        (call("isfinite", sql.cast(item.copy(), "DOUBLE")), _without_zero(written)),
    )


def rounded(item: exp.Expr) -> exp.Expr:
    """A DOUBLE to 15 significant digits: 0.3 for 0.1 + 0.2. The oracle's `digits` says the same."""
    magnitude = call("floor", call("log10", call("abs", item.copy())))
    places = exp.Sub(this=sql.number(14), expression=sql.cast(magnitude, "INTEGER"))
    is_large = sql.compare(">=", call("abs", item.copy()), sql.double("1e15"))
    as_it_is = sql.any_of([_is_whole(item), is_large])
    return case((as_it_is, item.copy()), otherwise=call("round", item.copy(), places))


def instant_of(item: exp.Expr) -> exp.Expr:
    """The instant that ISO 8601 text names: UTC without a zone, midnight without a time."""
    has_zone = call("regexp_matches", item.copy(), text(_ZONE))
    dotted = call("replace", call("upper", item.copy()), text(","), text("."))
    complete = case(
        (is_date(item), call("concat", item.copy(), text("T00:00:00Z"))),
        (has_zone, dotted),
        otherwise=call("concat", dotted.copy(), text("Z")),
    )
    return case((_matches(item, ISO_8601), sql.try_cast(complete, "TIMESTAMPTZ")))


def is_date(item: exp.Expr) -> exp.Expr:
    """Whether ISO 8601 text is a date without time of day."""
    return sql.compare("=", call("length", item.copy()), sql.number(10))


def literal_instant(value: str) -> datetime | None:
    """`instant_of` for a constant.

    >>> literal_instant("2024-01-05").isoformat(), literal_instant("soon")
    ('2024-01-05T00:00:00+00:00', None)
    """
    if not re.fullmatch(ISO_8601, value):
        return None
    try:
        moment = datetime.fromisoformat(value.upper().replace(",", "."))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def _by_kind(item: exp.Expr, string: exp.Expr) -> exp.Expr:
    """Canonical JSON, with `string` in place of strings."""
    first = call("left", item.copy(), sql.number(1))
    inside = r'("(?:[^"\\]|\\.)*")|\.0([,\]}])'
    return case(
        (sql.compare("=", first, _QUOTE.copy()), string),
        (
            exp.In(this=first.copy(), expressions=[text("["), text("{")]),
            call("regexp_replace", item.copy(), text(inside), text(r"\1\2"), text("g")),
        ),
        otherwise=_without_zero(item),
    )


def _is_whole(item: exp.Expr) -> exp.Expr:
    return sql.compare("=", item.copy(), call("trunc", item.copy()))


def _unquoted(item: exp.Expr) -> exp.Expr:
    length = exp.Sub(this=call("length", item.copy()), expression=sql.number(2))
    return call("substring", item.copy(), sql.number(2), length)


def _without_zero(item: exp.Expr) -> exp.Expr:
    return call("regexp_replace", item.copy(), text(r"\.0$"), text(""))


def _matches(item: exp.Expr, pattern: str) -> exp.Expr:
    return call("regexp_full_match", item.copy(), text(pattern))
