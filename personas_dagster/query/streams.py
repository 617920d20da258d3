"""Logical plan: event streams in one normal form, so that equal ones are computed once.

What belongs here: windows as instants, conditions sorted, children of funnels told apart. What
does not: SQL.

>>> from datetime import datetime, timezone
>>> from personas_dagster.query.parser import parse
>>> bounds = Bounds(datetime(2024, 1, 8, tzinfo=timezone.utc))
>>> one = parse("event('X').where(property('a') = 1 AND property('b') = 2).within(7 days).count()")
>>> two = parse("event('X').within(168 hours).where(property('b') = 2).where(property('a') = 1)"
...     ".count()")
>>> of_reduction(one.body, "users", bounds) == of_reduction(two.body, "users", bounds)
True
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

from personas_dagster.query.comparators import shift
from personas_dagster.query.references import Scope
from personas_dagster.query.tree import (
    And,
    As,
    Between,
    Condition,
    ExpiresAfter,
    Field,
    Not,
    Or,
    Quantified,
    Reduction,
    Sources,
    Stream,
    Where,
    Within,
    children,
)


@dataclass(frozen=True)
class Bounds:
    """What bounds every stream of a definition."""

    as_of: datetime
    lookback: timedelta | None = None
    received_after: datetime | None = None


@dataclass(frozen=True)
class Rows:
    """The events of one normalised stream: after < timestamp <= until, and the rest.

    A child of a funnel is also strictly after its parent, and `near < timestamp - parent <= far`.
    """

    event: str
    as_of: datetime
    after: datetime | None
    until: datetime
    where: tuple[Condition, ...] = ()
    exclude: frozenset[str] = frozenset()
    received_after: datetime | None = None
    session: timedelta | None = None
    session_from_parent: bool = False
    near: timedelta = timedelta(0)
    far: timedelta | None = None
    bounds: Bounds | None = None  # for the children; None when there are none

    @cached_property
    def children(self) -> tuple[Reduction, ...]:
        """The reductions of child events that the conditions hold."""
        return tuple(dict.fromkeys(one for item in self.where for one in reductions(item)))

    @property
    def unwindowed(self) -> Rows:
        """The same stream without its time window."""
        return replace(self, after=None, until=self.as_of, session=None)

    @property
    def is_windowed(self) -> bool:
        return self != self.unwindowed


@dataclass(frozen=True)
class Partial:
    """One value per profile out of a stream."""

    scope: Scope
    rows: Rows
    reducer: str
    field: Field | None = None
    as_type: As | None = None
    at_least: int = 1


def of_reduction(node: Reduction, scope: Scope, bounds: Bounds) -> Partial:
    as_type = None if node.name in ("min", "max") and node.as_type == "number" else node.as_type
    return Partial(scope, rows(node.stream, bounds), node.name, node.field, as_type, node.at_least)


def seen(one: Partial) -> Partial:
    """How many events match apart from the time window."""
    return Partial(one.scope, one.rows.unwindowed, "count")


def rows(stream: Stream, bounds: Bounds) -> Rows:
    """A stream's filters as one normal form."""
    as_of = bounds.as_of
    after: list[datetime] = []
    until = [as_of]
    near, far = [timedelta(0)], list[timedelta]()
    session: ExpiresAfter | None = None
    where: list[Condition] = []
    exclude: set[str] = set()
    windowed = False
    for one in stream.filters:
        match one:
            case Where(condition):
                where.append(condition)
            case Sources(ids):
                exclude.update(ids)
            case Within(duration, True):
                far.append(duration.delta)
            case Within(duration, False):
                after.append(shift(as_of, -duration.delta))
            case Between(first, second, parent):
                if parent:
                    near.append(first.delta)
                    far.append(second.delta)
                else:
                    until.append(shift(as_of, -first.delta))
                    after.append(shift(as_of, -second.delta))
            case ExpiresAfter():
                session = one
        windowed = windowed or isinstance(one, Within | Between | ExpiresAfter)
    if bounds.lookback is not None and not windowed:
        after.append(shift(as_of, -bounds.lookback))
    return Rows(
        event=stream.event,
        as_of=as_of,
        after=max(after, default=None),
        until=min(until),
        where=_conjuncts(where),
        exclude=frozenset(exclude),
        received_after=bounds.received_after,
        session=session.duration.delta if session else None,
        session_from_parent=session.parent if session else False,
        near=max(near),
        far=min(far, default=None),
        bounds=bounds if any(True for one in where for _ in reductions(one)) else None,
    )


def _conjuncts(where: list[Condition]) -> tuple[Condition, ...]:
    items = [
        item
        for one in map(normal, where)
        for item in (one.items if isinstance(one, And) else (one,))
    ]
    return tuple(sorted(set(items), key=repr))


def normal(node: Condition) -> Condition:
    """A condition with the items of its junctions sorted and said once."""
    match node:
        case And(items) | Or(items):
            kept = sorted({normal(item) for item in items}, key=repr)
            return kept[0] if len(kept) == 1 else type(node)(tuple(kept))
        case Not(item):
            return Not(normal(item))
        case Quantified(quantifier, item):
            return Quantified(quantifier, normal(item))
    return node


def reductions(node: object) -> Iterator[Reduction]:
    """The reductions below a node, not those inside of other reductions."""
    if isinstance(node, Reduction):
        yield node
        return
    for child in children(node):
        yield from reductions(child)
