"""The tree of a parsed query: frozen dataclasses, equal when they mean the same text.

What belongs here: shapes and their smallest properties. What does not: how they are written
(`printer`), whether they make sense (`checker`), what they compute (`streams` and the compiler).

>>> Trait("plan") == Trait("plan", at=Place(3, 7))
True
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import cached_property
from typing import Literal as Choice


@dataclass(frozen=True)
class Place:
    """Where something was written; lines and columns start at 1."""

    line: int = 1
    column: int = 1


_NOWHERE = Place()


def _place() -> Place:
    return field(default=_NOWHERE, compare=False, repr=False)


@dataclass(frozen=True)
class Literal:
    """A constant. `text` is its canonical text: `15` for 15.0, `true` for TRUE."""

    kind: Choice["number", "string", "boolean", "date", "timestamp"]
    text: str
    at: Place = _place()


@dataclass(frozen=True)
class Duration:
    """`7 days`. Units are kept as written (24 hours is not printed as 1 day)."""

    amount: int
    unit: Choice["second", "minute", "hour", "day"]
    at: Place = _place()

    @property
    def delta(self) -> timedelta:
        return timedelta(**{f"{self.unit}s": self.amount})


@dataclass(frozen=True)
class Trait:
    path: str
    at: Place = _place()

    @cached_property
    def key(self) -> str:
        return segments(self.path)[0]


@dataclass(frozen=True)
class Field:
    """A property or a context field of an event; of the parent's event when `parent`."""

    kind: Choice["property", "context"]
    path: str
    parent: bool = False
    at: Place = _place()


@dataclass(frozen=True)
class Within:
    duration: Duration
    parent: bool = False
    at: Place = _place()


@dataclass(frozen=True)
class Between:
    near: Duration
    far: Duration
    parent: bool = False
    at: Place = _place()


@dataclass(frozen=True)
class ExpiresAfter:
    duration: Duration
    parent: bool = False
    at: Place = _place()


@dataclass(frozen=True)
class Sources:
    exclude: tuple[str, ...]
    at: Place = _place()


@dataclass(frozen=True)
class Where:
    condition: Condition
    at: Place = _place()


Filter = Where | Within | Between | ExpiresAfter | Sources
As = Choice["number", "string", "array"]


@dataclass(frozen=True)
class Stream:
    event: str
    filters: tuple[Filter, ...] = ()
    at: Place = _place()


@dataclass(frozen=True)
class Reduction:
    """One value out of a stream. `name` is a reducer, or `unique_count` for unique(p).count()."""

    stream: Stream
    name: str
    field: Field | None = None
    as_type: As | None = None
    at_least: int = 1
    at: Place = _place()


Scalar = Literal | Trait | Field | Reduction


@dataclass(frozen=True)
class Comparison:
    """`left` compared by a function named in `names.COMPARATORS`; symbols are sugar for these."""

    left: Scalar
    name: str
    arguments: tuple[Scalar | Duration, ...] = ()
    at: Place = _place()


@dataclass(frozen=True)
class And:
    items: tuple[Condition, ...]
    at: Place = _place()


@dataclass(frozen=True)
class Or:
    items: tuple[Condition, ...]
    at: Place = _place()


@dataclass(frozen=True)
class Not:
    item: Condition
    at: Place = _place()


@dataclass(frozen=True)
class Quantified:
    """`ANY (c)` or `ALL (c)` over the users of an account."""

    quantifier: Choice["ANY", "ALL"]
    item: Condition
    at: Place = _place()


Condition = And | Or | Not | Quantified | Comparison


@dataclass(frozen=True)
class Query:
    body: Condition | Scalar

    @property
    def type(self) -> Choice["boolean", "value"]:
        return "boolean" if isinstance(self.body, Condition) else "value"


def children(node: object) -> Iterator[object]:
    """The nodes directly below: tuples are looked through, places left out."""
    for one in fields(node):  # type: ignore[arg-type]
        value = getattr(node, one.name)
        for item in value if isinstance(value, tuple) else (value,):
            if hasattr(item, "__dataclass_fields__") and not isinstance(item, Place):
                yield item


def walk(node: object) -> Iterator[object]:
    """The node and all below it, top down, left to right.

    >>> [type(node).__name__ for node in walk(Not(Comparison(Trait("a"), "exists")))]
    ['Not', 'Comparison', 'Trait']
    """
    yield node
    for child in children(node):
        yield from walk(child)


def segments(path: str) -> tuple[str, ...]:
    r"""The keys of a dotted path; a dot behind one or two backslashes is part of a key.

    >>> segments("products.$.sku"), segments(r"utm\\.source.x"), segments(r"a\.b")
    (('products', '$', 'sku'), ('utm.source', 'x'), ('a.b',))
    """
    parts, part, index = [], "", 0
    while index < len(path):
        escaped = next((e for e in ("\\\\.", "\\.") if path.startswith(e, index)), None)
        if escaped:
            part += "."
            index += len(escaped)
            continue
        if path[index] == ".":
            parts.append(part)
            part = ""
        else:
            part += path[index]
        index += 1
    return (*parts, part)
