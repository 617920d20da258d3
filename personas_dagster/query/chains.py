"""The functions of a chain: what each name builds, and what it may follow.

What belongs here: `extractor.filter.reducer.comparator`, call by call, for the parser. What does
not: rules about where a chain may stand (`checker`).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NoReturn

from personas_dagster.query import names
from personas_dagster.query.arguments import (
    Argument,
    AsType,
    Link,
    duration_of,
    exactly,
    fail,
    is_parent,
    string_of,
    unnamed,
)
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
        (argument,) = exactly(name, arguments, 1, at)
        if not isinstance(argument.value, Literal):
            fail("literal(...) takes a constant", argument.at, expected="a constant")
        return argument.value
    (argument,) = exactly(name, arguments, 1, at)
    text = string_of(name, argument)
    if name == "event":
        return Stream(text, (), at)
    if "" in segments(text):
        fail(f"`{text}` has an empty part between its dots", argument.at, found=text)
    if name == "trait":
        unnamed(name, argument)
        return Trait(text, at)
    parent = is_parent(name, argument)
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
        exactly("count", arguments, 0, at)
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
        near, far = exactly(name, arguments, 2, at)
        parent = is_parent(name, near)
        if far.name:
            is_parent(name, far)
        first, second = duration_of(name, near), duration_of(name, far)
        if first.delta >= second.delta:
            fail(
                "between(A, B) needs A < B: the nearer end of the window first",
                at,
                expected="A < B",
            )
        return Between(first, second, parent, at)
    (argument,) = exactly(name, arguments, 1, at)
    if name == "where":
        unnamed(name, argument)
        if isinstance(argument.value, Duration):
            fail("where(...) takes a condition", argument.at, expected="a condition")
        return Where(condition(argument.value, argument.at), at)
    kind = Within if name == "within" else ExpiresAfter
    return kind(duration_of(name, argument), is_parent(name, argument), at)


def _excluded(arguments: list[Argument], at: Place) -> tuple[str, ...]:
    if not arguments or arguments[0].name != "exclude":
        fail(
            "sources takes {exclude: ['source id', ...]}",
            at,
            expected="exclude:",
            suggestion="exclude" if arguments and arguments[0].name else None,
        )
    return tuple(string_of("sources", argument) for argument in arguments)


def _reduce(stream: Stream, name: str, arguments: list[Argument], at: Place) -> Reduction:
    if name == "count":
        exactly(name, arguments, 0, at)
        return Reduction(stream, name, at=stream.at)
    at_least = 2 if name == "mode" else 1
    if name == "mode" and len(arguments) == 2:
        at_least = _positive(arguments.pop())
    (argument,) = exactly(name, arguments, 1, at)
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
    exactly(name, arguments, wanted, at)
    if takes == "duration":
        return Comparison(left, name, (duration_of(name, arguments[0]),), left.at)
    values: list[Scalar | Duration] = []
    for argument in arguments:
        unnamed(name, argument)
        if argument.as_type or isinstance(argument.value, Duration):
            fail(f"`{name}` takes a value", argument.at, expected="a value")
        values.append(scalar(argument.value, argument.at))
    return Comparison(left, name, tuple(values), left.at)


def _unknown(name: str, what: str, offers: tuple[str, ...], at: Place) -> NoReturn:
    fail(
        f"`{name}` is not a function of {what}",
        at,
        found=name,
        expected=listed(offers),
        suggestion=nearest(name, offers),
    )
