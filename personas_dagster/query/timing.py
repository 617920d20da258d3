"""What can change a definition's values without a new message: the clock, and other traits.

What belongs here: reading a query for what an hourly refresh needs to know, so that profiles
whose values cannot have changed are left alone.

>>> one = Definition("k", "trait", "users", "event('Order').within(7 days).count()")
>>> sorted(timing(one).edges)
[('Order', datetime.timedelta(0)), ('Order', datetime.timedelta(days=7))]
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

from personas_dagster.query.definition import Definition
from personas_dagster.query.parser import parse
from personas_dagster.query.references import Known, Scope, known, resolve, scoped_traits
from personas_dagster.query.tree import (
    Between,
    Comparison,
    Duration,
    ExpiresAfter,
    Stream,
    Within,
    walk,
)

_MEANING = 1  # raised when the compiler means something else by the same definition


@dataclass(frozen=True)
class Timing:
    """`edges`: an event so far back may enter or leave a stream as time goes by. `by_the_clock`:
    values are compared with now, so that they may change for anybody. `stored`: the keys that
    `trait(...)` names.
    """

    edges: frozenset[tuple[str, timedelta]]
    by_the_clock: bool
    stored: frozenset[str]

    @property
    def events(self) -> frozenset[str]:
        return frozenset(event for event, _ in self.edges)


def timing(definition: Definition) -> Timing:
    body = parse(definition.query).body
    events, delays = set(), {timedelta(0)}
    if definition.lookback is not None:
        delays.add(definition.lookback)
    by_the_clock = False
    for node in walk(body):
        match node:
            case Stream():
                events.add(node.event)
            case Within() | ExpiresAfter():
                delays.add(node.duration.delta)
            case Between():
                delays |= {node.near.delta, node.far.delta}
            case Comparison() if any(isinstance(one, Duration) for one in node.arguments):
                by_the_clock = True
    return Timing(
        frozenset((event, delay) for event in events for delay in delays),
        by_the_clock,
        frozenset(trait.key for _, trait in scoped_traits(body, definition.collection)),
    )


def fingerprint(definition: Definition, among: Known, audiences: Collection[str]) -> str:
    """What a definition means: its own text and options, and what its references lead to."""
    reads = []
    for scope, trait in scoped_traits(parse(definition.query).body, definition.collection):
        target = resolve(scope, trait.key, among)
        found = (target.collection, target.kind) if target else None
        reads.append((scope, trait.key, found, trait.key in audiences))
    text = repr((_MEANING, definition, sorted(reads, key=repr)))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def downstream(some: Iterable[Definition], definitions: Sequence[Definition]) -> list[Definition]:
    """`some` and every definition that reads one of them, also through others."""
    reached = {(one.collection, one.key) for one in some}
    reads = _reads(definitions)
    while True:
        more = {name for name, read in reads.items() if read & reached} - reached
        if not more:
            return [one for one in definitions if (one.collection, one.key) in reached]
        reached |= more


def upstream(some: Iterable[Definition], definitions: Sequence[Definition]) -> list[Definition]:
    """`some` and every definition that they read, also through others."""
    reads = _reads(definitions)
    reached: set[tuple[Scope, str]] = set()
    waiting = [(one.collection, one.key) for one in some]
    while waiting:
        name = waiting.pop()
        if name not in reached:
            reached.add(name)
            waiting += reads[name]
    return [one for one in definitions if (one.collection, one.key) in reached]


def _reads(
    definitions: Sequence[Definition],
) -> dict[tuple[Scope, str], set[tuple[Scope, str]]]:
    among = known(definitions)
    found: dict[tuple[Scope, str], set[tuple[Scope, str]]] = {}
    for one in definitions:
        pairs = scoped_traits(parse(one.query).body, one.collection)
        targets = (resolve(scope, trait.key, among) for scope, trait in pairs)
        found[one.collection, one.key] = {(t.collection, t.key) for t in targets if t}
    return found
