"""The functions of a chain: what each name builds, and what it may follow.

What belongs here: `extractor.filter.reducer.comparator`, call by call, for the parser. What does
not: rules about where a chain may stand (`checker`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, NoReturn

from personas_dagster.errors import QueryError
from personas_dagster.query import names
from personas_dagster.query.suggestions import listed, nearest
from personas_dagster.query.tree import (
    Between,
    Comparison,
    Condition,
    Duration,
    ExpiresAfter,
    Field,
    Filter,
    Literal,
    Place,
    Reduction,
    Scalar,
    Sources,
    Stream,
    Trait,
    Where,
    Within,
    segments,
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


def complete(value: Link) -> Condition | Scalar:
    """What a whole query may be: everything but a stream that nothing reduces."""
    if isinstance(value, Stream):
        fail(
            f"event('{value.event}') is a stream of events, which needs a reducer such as count()",
            value.at,
            expected="a reducer",
        )
    return value


def condition(value: Link, at: Place) -> Condition:
    value = complete(value)
    if not isinstance(value, Condition):
        fail(
            "expected a condition here, found a value; compare it, for example `= true` or "
            "`.exists()`",
            at,
            expected="a condition",
        )
    return value


def scalar(value: Link, at: Place) -> Scalar:
    value = complete(value)
    if isinstance(value, Condition):
        fail(
            "expected a value here, found a condition; conditions are joined by AND and OR",
            at,
            expected="a value",
        )
    return value


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


def extract(name: str, arguments: list[Argument], at: Place) -> Link:
    """The start of a chain."""
    if name == "entity":
        fail("linked entities are not part of the platform yet; remove entity(...)", at, found=name)
    if name not in names.EXTRACTORS:
        known = name in names.EVERYTHING
        fail(
            f"`{name}` needs something before it, such as event('...')"
            if known
            else f"`{name}` is not a function that a query can start with",
            at,
            found=name,
            expected=listed(one for one in names.EXTRACTORS if one != "entity"),
            suggestion=None if known else nearest(name, names.EXTRACTORS),
        )
    if name == "literal":
        (argument,) = _exactly(name, arguments, 1, at)
        if not isinstance(argument.value, Literal):
            fail("literal(...) takes a constant", argument.at, expected="a constant")
        return argument.value
    (argument,) = _exactly(name, arguments, 1, at)
    text = _string(name, argument)
    if name == "event":
        return Stream(text, (), at)
    if "" in segments(text):
        fail(f"`{text}` has an empty part between its dots", argument.at, found=text)
    if name == "trait":
        _unnamed(name, argument)
        return Trait(text, at)
    parent = _is_parent(name, argument)
    return Field(name, text, parent, at)  # type: ignore[arg-type]


def link(value: Link, name: str, arguments: list[Argument], at: Place) -> Link:
    """One call further along a chain."""
    known = name.lower()
    if isinstance(value, Stream):
        if known in names.FILTERS:
            return replace(value, filters=(*value.filters, _filter(known, arguments, at)))
        if known in names.REDUCERS:
            return _reduce(value, known, arguments, at)
        if known in names.COMPARATORS:
            fail(
                f"`{known}` compares a value, and this is a stream of events; reduce it first, "
                "for example .count()",
                at,
                found=name,
                expected="a reducer",
            )
        offers = (*names.FILTERS, *names.REDUCERS)
        _unknown(name, "an event stream", offers, at)
    if isinstance(value, Condition):
        fail(f"a comparison ends the chain, `.{name}(...)` cannot follow", at, found=name)
    if known in names.COMPARATORS:
        return _compare(value, known, arguments, at)
    if known == "count" and isinstance(value, Reduction) and value.name == "unique":
        _exactly("count", arguments, 0, at)
        return replace(value, name="unique_count")
    if known in names.REDUCERS or known in names.FILTERS:
        fail(
            f"`{known}` needs an event stream, and this is a single value",
            at,
            found=name,
            expected="a comparator",
        )
    _unknown(name, "a value", tuple(names.COMPARATORS), at)


def _filter(name: str, arguments: list[Argument], at: Place) -> Filter:
    if name == "sources":
        return Sources(_excluded(arguments, at), at)
    if name == "between":
        near, far = _exactly(name, arguments, 2, at)
        parent = _is_parent(name, near)
        if far.name:
            _is_parent(name, far)
        first, second = _duration(name, near), _duration(name, far)
        if first.delta >= second.delta:
            fail(
                "between(A, B) needs A < B: the nearer end of the window first",
                at,
                expected="A < B",
            )
        return Between(first, second, parent, at)
    (argument,) = _exactly(name, arguments, 1, at)
    if name == "where":
        _unnamed(name, argument)
        if isinstance(argument.value, Duration):
            fail("where(...) takes a condition", argument.at, expected="a condition")
        return Where(condition(argument.value, argument.at), at)
    kind = Within if name == "within" else ExpiresAfter
    return kind(_duration(name, argument), _is_parent(name, argument), at)


def _excluded(arguments: list[Argument], at: Place) -> tuple[str, ...]:
    if not arguments or arguments[0].name != "exclude":
        fail(
            "sources takes {exclude: ['source id', ...]}",
            at,
            expected="exclude:",
            suggestion="exclude" if arguments and arguments[0].name else None,
        )
    return tuple(_string("sources", argument) for argument in arguments)


def _reduce(stream: Stream, name: str, arguments: list[Argument], at: Place) -> Reduction:
    if name == "count":
        _exactly(name, arguments, 0, at)
        return Reduction(stream, name, at=stream.at)
    at_least = 2 if name == "mode" else 1
    if name == "mode" and len(arguments) == 2:
        at_least = _positive(arguments.pop())
    (argument,) = _exactly(name, arguments, 1, at)
    field = argument.value
    if not isinstance(field, Field) or argument.name:
        fail(
            f"`{name}` reduces a property: {name}(property('...'))",
            argument.at,
            expected="property(...) or context(...)",
        )
    return Reduction(stream, name, field, _as_type(name, argument.as_type), at_least, stream.at)


def _positive(argument: Argument) -> int:
    value = argument.value
    if not isinstance(value, Literal) or value.kind != "number" or not value.text.isdigit():
        fail("the second argument of mode is a whole number", argument.at, expected="a number")
    if int(value.text) < 1:
        fail("a value is seen at least once; use 1 or more", argument.at, found=value.text)
    return int(value.text)


def _as_type(name: str, as_type: AsType | None) -> Any:
    if as_type is None:
        return None
    allowed = names.AS_TYPES.get(name)
    if not allowed:
        fail(f"`{name}` takes no `as`", as_type.at, found=as_type.name)
    if as_type.name.lower() not in allowed:
        fail(
            f"`{name}` cannot read values as `{as_type.name}`",
            as_type.at,
            found=as_type.name,
            expected=listed(allowed),
            suggestion=nearest(as_type.name, allowed),
        )
    return as_type.name.lower()


def _compare(left: Scalar, name: str, arguments: list[Argument], at: Place) -> Comparison:
    takes = names.COMPARATORS[name]
    if takes == "values" and not arguments:
        fail(f"`{name}` takes at least one value", at, expected="a value")
    wanted = {"nothing": 0, "values": len(arguments)}.get(takes, 1)
    _exactly(name, arguments, wanted, at)
    if takes == "duration":
        return Comparison(left, name, (_duration(name, arguments[0]),), left.at)
    values: list[Scalar | Duration] = []
    for argument in arguments:
        _unnamed(name, argument)
        if argument.as_type or isinstance(argument.value, Duration):
            fail(f"`{name}` takes a value", argument.at, expected="a value")
        values.append(scalar(argument.value, argument.at))
    return Comparison(left, name, tuple(values), left.at)


def _exactly(name: str, arguments: list[Argument], count: int, at: Place) -> list[Argument]:
    if len(arguments) != count:
        wanted = {0: "no arguments", 1: "one argument"}.get(count, f"{count} arguments")
        fail(
            f"`{name}` takes {wanted}, found {len(arguments)}",
            at,
            found=str(len(arguments)),
            expected=wanted,
        )
    return arguments


def _string(name: str, argument: Argument) -> str:
    value = argument.value
    if not isinstance(value, Literal) or value.kind != "string":
        fail(f"`{name}` takes a string in quotes", argument.at, expected="a string")
    return value.text


def _duration(name: str, argument: Argument) -> Duration:
    if not isinstance(argument.value, Duration):
        fail(f"`{name}` takes a duration such as 7 days", argument.at, expected="a duration")
    return argument.value


def _is_parent(name: str, argument: Argument) -> bool:
    if argument.name not in (None, "parent"):
        fail(
            f"`{argument.name}:` is not known here",
            argument.at,
            found=argument.name,
            expected="parent:",
            suggestion=nearest(argument.name, ["parent"]),
        )
    return argument.name == "parent"


def _unnamed(name: str, argument: Argument) -> None:
    if argument.name:
        fail(f"`{name}` takes no `{argument.name}:`", argument.at, found=argument.name)


def _unknown(name: str, what: str, offers: tuple[str, ...], at: Place) -> NoReturn:
    fail(
        f"`{name}` is not a function of {what}",
        at,
        found=name,
        expected=listed(offers),
        suggestion=nearest(name, offers),
    )
