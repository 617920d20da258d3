"""What stands between the parentheses of a call: constants, durations, named arguments.

What belongs here: reading one argument, and saying what is wrong with it. What does not: which
function takes what (`chains`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NoReturn

from personas_dagster.errors import QueryError
from personas_dagster.query import names
from personas_dagster.query.suggestions import listed, nearest
from personas_dagster.query.tree import (
    Condition,
    Duration,
    Literal,
    Place,
    Scalar,
    Stream,
)

Link = Stream | Scalar | Condition
_LONGEST_DAYS = 36_500


@dataclass(frozen=True)
class AsType:
    name: str
    at: Place


@dataclass(frozen=True)
class Argument:
    value: Link | Duration
    at: Place
    name: str | None = None
    as_type: AsType | None = None


def fail(message: str, at: Place, **facts: Any) -> NoReturn:
    raise QueryError(message, line=at.line, column=at.column, **facts)


def literal(token: str, text: str, at: Place) -> Literal:
    """A constant in its canonical text.

    >>> literal("NUMBER", "15.50", Place()).text, literal("BOOLEAN", "TRUE", Place()).text
    ('15.5', 'true')
    """
    if token == "STRING":
        return Literal("string", re.sub(r"\\([\\'\"])", r"\1", text[1:-1]), at)
    if token == "NUMBER":
        whole, _, fraction = text.partition(".")
        sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
        digits, fraction = digits.lstrip("0") or "0", fraction.rstrip("0")
        canonical = f"{digits}.{fraction}" if fraction else digits
        return Literal("number", canonical if canonical == "0" else sign + canonical, at)
    if token == "BOOLEAN":
        return Literal("boolean", text.lower(), at)
    kind = "date" if token == "DATE" else "timestamp"
    try:
        datetime.fromisoformat(text.replace(",", "."))
    except ValueError:
        fail(f"`{text}` is not a {kind} of the calendar", at, found=text, expected=f"a {kind}")
    return Literal(kind, text, at)  # type: ignore[arg-type]


def duration(amount: str, unit: str, at: Place) -> Duration:
    """`7 days`, whole and not negative."""
    name = unit.lower().removesuffix("s")
    if name not in names.UNITS:
        fail(
            f"`{unit}` is not a unit of time",
            Place(getattr(unit, "line", at.line), getattr(unit, "column", at.column)),
            found=str(unit),
            expected=listed(f"{one}(s)" for one in names.UNITS),
            suggestion=nearest(unit, [*names.UNITS, *(f"{one}s" for one in names.UNITS)]),
        )
    if not amount.isdigit():
        fail(
            f"a duration is a whole number, not `{amount}`; use a smaller unit",
            at,
            found=amount,
            expected="a whole number",
        )
    per_day = {"second": 86_400, "minute": 1_440, "hour": 24, "day": 1}[name]
    if int(amount) > _LONGEST_DAYS * per_day:
        fail(f"a duration is at most {_LONGEST_DAYS} days", at, found=amount)
    return Duration(int(amount), name, at)  # type: ignore[arg-type]


def exactly(name: str, arguments: list[Argument], count: int, at: Place) -> list[Argument]:
    if len(arguments) != count:
        wanted = {0: "no arguments", 1: "one argument"}.get(count, f"{count} arguments")
        fail(
            f"`{name}` takes {wanted}, found {len(arguments)}",
            at,
            found=str(len(arguments)),
            expected=wanted,
        )
    return arguments


def string_of(name: str, argument: Argument) -> str:
    value = argument.value
    if not isinstance(value, Literal) or value.kind != "string":
        fail(f"`{name}` takes a string in quotes", argument.at, expected="a string")
    return value.text


def duration_of(name: str, argument: Argument) -> Duration:
    if not isinstance(argument.value, Duration):
        fail(f"`{name}` takes a duration such as 7 days", argument.at, expected="a duration")
    return argument.value


def is_parent(name: str, argument: Argument) -> bool:
    if argument.name not in (None, "parent"):
        fail(
            f"`{argument.name}:` is not known here",
            argument.at,
            found=argument.name,
            expected="parent:",
            suggestion=nearest(argument.name, ["parent"]),
        )
    return argument.name == "parent"


def unnamed(name: str, argument: Argument) -> None:
    if argument.name:
        fail(f"`{name}` takes no `{argument.name}:`", argument.at, found=argument.name)
