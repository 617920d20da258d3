"""The type rules of the language: `check`.

What belongs here: what is refused, and what is legal but worth a warning. What does not: syntax
(`parser`), meaning (`values`, the compiler).

>>> from personas_dagster.query.definition import Definition
>>> check(Definition("k", "trait", "users", "event('X').count()")).type
'value'
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal as Choice

from personas_dagster.query.arguments import fail
from personas_dagster.query.definition import Definition
from personas_dagster.query.names import COMPARATORS
from personas_dagster.query.parser import parse
from personas_dagster.query.paths import EACH
from personas_dagster.query.tree import (
    Between,
    Comparison,
    Duration,
    ExpiresAfter,
    Field,
    Literal,
    Place,
    Quantified,
    Query,
    Reduction,
    Scalar,
    Stream,
    Trait,
    Where,
    Within,
    children,
    segments,
    walk,
)
from personas_dagster.query.values import Constant, literal_instant

MOST_PRIMARIES = 50
_ORDERING = ("greater_than", "at_least", "less_than", "at_most")
_TEXTUAL = ("contains", "omits", "starts_with", "ends_with")
_DATED = ("before_date", "after_date", "within_last", "within_next", "before_last", "after_next")
_NUMBERS = ("count", "unique_count", "sum", "avg")


@dataclass(frozen=True)
class Checked:
    """A query that holds, and what it touches. `references` are the keys that trait(...) names."""

    query: Query
    type: Choice["boolean", "value"]
    references: frozenset[str]
    events: frozenset[str]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Around:
    """What encloses a node."""

    accounts: bool
    quantified: bool = False
    events: int = 0  # how many event streams' `where` (or reducer) it stands in


@lru_cache(maxsize=4096)
def check(definition: Definition) -> Checked:
    """Parse a definition's query and hold it against the rules; `QueryError` if one is broken."""
    query = parse(definition.query)
    _check_type(definition, query)
    _check_size(query)
    _check(query.body, _Around(definition.collection == "accounts"))
    nodes = list(walk(query.body))
    return Checked(
        query,
        query.type,
        frozenset(node.key for node in nodes if isinstance(node, Trait)),
        frozenset(node.event for node in nodes if isinstance(node, Stream)),
        tuple(_warnings(nodes)),
    )


def _check_type(definition: Definition, query: Query) -> None:
    if definition.kind == "audience" and query.type != "boolean":
        fail(
            "an audience needs a condition, and this query ends in a value; compare it, for "
            "example `>= 1`",
            query.body.at,
            expected="a condition",
        )
    if definition.kind == "trait" and query.type != "value":
        fail(
            "a trait needs a value, and this query ends in a condition; make it an audience",
            query.body.at,
            expected="a value",
        )
    if isinstance(query.body, Trait) and EACH in segments(query.body.path):
        fail("`$` gives many values; a trait needs one", query.body.at, found=query.body.path)


def _check_size(query: Query) -> None:
    primaries = [node for node in walk(query.body) if isinstance(node, Comparison)]
    if len(primaries) > MOST_PRIMARIES:
        fail(
            f"a query has at most {MOST_PRIMARIES} comparisons, this one has {len(primaries)}; "
            "split it into audiences and reference them by trait('key') = true",
            primaries[MOST_PRIMARIES].at,
            found=str(len(primaries)),
            expected=f"at most {MOST_PRIMARIES}",
        )


def _check(node: object, around: _Around) -> None:
    match node:
        case Field():
            _check_field(node, around)
        case Quantified():
            around = _check_quantified(node, around)
        case Reduction():
            _check_reduction(node, around)
            return
        case Trait(path) if "" in segments(path):
            fail(f"`{path}` has an empty part between its dots", node.at, found=path)
    for child in children(node):
        _check(child, around)


def _check_field(field: Field, around: _Around) -> None:
    if not around.events:
        fail(
            f"{field.kind}('{field.path}') belongs to an event; use it inside where(...) or a "
            "reducer",
            field.at,
            found=field.kind,
        )
    if field.parent and around.events < 2:
        _fail_parent(field.at)


def _check_quantified(node: Quantified, around: _Around) -> _Around:
    if not around.accounts:
        fail(
            f"{node.quantifier} is about the users of an account; this query is over users",
            node.at,
            found=node.quantifier,
        )
    if around.quantified or around.events:
        fail(
            f"{node.quantifier} cannot stand inside "
            f"{'another ANY or ALL' if around.quantified else 'where(...)'}",
            node.at,
            found=node.quantifier,
        )
    return replace(around, quantified=True)


def _check_reduction(node: Reduction, around: _Around) -> None:
    if around.events >= 2:
        fail(
            f"event('{node.stream.event}') is nested too deep: a child event inside where(...) "
            "cannot have child events of its own",
            node.at,
            found=node.stream.event,
        )
    inside = replace(around, events=around.events + 1)
    sessions = [one for one in node.stream.filters if isinstance(one, ExpiresAfter)]
    if len(sessions) > 1:
        fail("a stream has one session window; remove an expires_after", sessions[1].at)
    for one in node.stream.filters:
        if isinstance(one, Within | Between | ExpiresAfter) and one.parent and inside.events < 2:
            _fail_parent(one.at)
        if isinstance(one, Where):
            _check(one.condition, inside)
    if node.field:
        _check_field(node.field, inside)


def _fail_parent(at: Place) -> None:
    fail(
        "parent: is only known to a child event, one inside the where(...) of another event",
        at,
        found="parent",
    )


def _warnings(nodes: list[object]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, Comparison):
            for warning in dict.fromkeys(_unlike(node)):
                yield f"{node.at.line}:{node.at.column}: {warning}"


def _unlike(node: Comparison) -> Iterator[str]:
    """Comparisons that are legal and cannot say much."""
    left = _kind(node.left)
    kinds = [left, *(_kind(one) for one in node.arguments if not isinstance(one, Duration))]
    if node.name in _ORDERING and any(kind not in ("number", "") for kind in kinds):
        yield f"`{node.name}` compares numbers only; this is never true"
    elif node.name in _TEXTUAL and left in ("number", "boolean"):
        yield f"`{node.name}` reads the {left} on its left as text"
    elif node.name in _DATED:
        if left in ("number", "boolean", "list"):
            yield f"a {left} is not a date; this is never true"
        for one in node.arguments:
            if isinstance(one, Literal) and literal_instant(one.text) is None:
                yield f"`{one.text}` is not an ISO 8601 date; this is never true"
    elif COMPARATORS[node.name] != "nothing":
        for kind in kinds[1:]:
            if left and kind and kind != left:
                yield f"a {left} is compared with a {kind}, as texts"


def _kind(scalar: Scalar) -> str:
    """What a value is known to be before anything runs; "" when it can be anything."""
    match scalar:
        case Literal(kind, _):
            if Constant(scalar).is_number:
                return "number"
            return "string" if kind in ("date", "timestamp") else kind
        case Reduction(_, name, _, as_type):
            if name in _NUMBERS or (name in ("min", "max") and as_type != "string"):
                return "number"
            if name == "unique":
                return "list"
            if name in ("min", "max"):
                return ""
            return "number" if as_type == "number" else ""
    return ""
