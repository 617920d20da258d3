"""What people decided about single identifiers, as far as it holds for one load.

What belongs here: facts as data, and what they do to the identifiers that combinations name.
How they are recorded is `decisions.py`. Instants are microseconds since 1970, in UTC.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

Ints = npt.NDArray[Any]
Identifier = tuple[str, str, str]  # collection, type, value
ERA = "era"  # the `collection` of the entry that says between which thresholds a message lies


@dataclass(frozen=True)
class Ignored:
    """An identifier that is not read from messages received in (after, until]; None is no bound."""

    identifier: Identifier
    after: int | None = None
    until: int | None = None


@dataclass(frozen=True)
class Facts:
    """`detached` identifiers are dropped from messages that name one of their former company.

    A profile whose first identifier is `taken` gets an id that no profile had before. Messages
    are told apart by `thresholds` where a fact holds for a part of the load only.
    """

    ignored: tuple[Ignored, ...] = ()
    detached: Mapping[Identifier, frozenset[tuple[str, str]]] = field(default_factory=dict)
    taken: frozenset[Identifier] = frozenset()
    allowed: frozenset[Identifier] = frozenset()
    thresholds: tuple[int, ...] = ()

    @property
    def blocked(self) -> tuple[Identifier, ...]:
        """Identifiers that no message of the load names."""
        return tuple(i.identifier for i in self.ignored if i.after is None and i.until is None)

    def within(self, first: int, last: int) -> Facts:
        """These facts for a load whose messages were received from `first` to `last`."""
        kept = []
        for one in self.ignored:
            after = None if one.after is None or one.after < first else one.after
            until = None if one.until is None or one.until >= last else one.until
            if (after is None or after < last) and (until is None or until >= first):
                kept.append(Ignored(one.identifier, after, until))
        bounds = {bound for one in kept for bound in (one.after, one.until) if bound is not None}
        return Facts(tuple(kept), self.detached, self.taken, self.allowed, tuple(sorted(bounds)))


def era_entry(thresholds: tuple[int, ...]) -> tuple[str, str]:
    """Which messages need an era, and the list that holds it, as SQL over `raw_events`."""
    steps = " + ".join(f"(epoch_us(received_at) > {bound:d})::INT" for bound in thresholds)
    when = f"epoch_us(received_at) > {thresholds[0]:d}"
    return when, (
        f"[{{'collection': '{ERA}', 'type': '{ERA}', 'value': ({steps})::VARCHAR, 'place': 0}}]"
    )


def eras_of(others: pa.Table, combinations: int) -> Ints:
    """How many thresholds lie before each combination's messages."""
    found = np.zeros(combinations, np.int64)
    of = others.filter(pc.equal(others.column("collection"), ERA))
    found[of.column("combination").to_numpy()] = of.column("value").cast(pa.int64()).to_numpy()
    return found


@dataclass(frozen=True)
class Named:
    """Which identifier each combination names: parallel arrays, and the eras of combinations."""

    combination: Ints
    identifier: Ints
    era: Ints


def leave_out(
    facts: Facts, collection: str, kinds: list[str], kind_of: Ints, values: pa.Array, named: Named
) -> tuple[Ints, Ints]:
    """Which entries the facts leave out: those ignored, and those detached, as two masks."""
    ignored, detached = np.zeros((2, len(named.identifier)), bool)
    numbers = _numbers(_mentioned(facts, collection), kinds, kind_of, values)
    bounds = [None, *facts.thresholds, None]
    for one in facts.ignored:
        if one.identifier[0] != collection or one.identifier[1:] not in numbers:
            continue
        mine = named.identifier == numbers[one.identifier[1:]]
        in_era = np.array(
            [
                (one.after is None or (low is not None and low >= one.after))
                and (one.until is None or (high is not None and high <= one.until))
                for low, high in zip(bounds, bounds[1:], strict=False)
            ]
        )
        mine[mine] = in_era[named.era[named.combination[mine]]]
        ignored |= mine
    for identifier, company in facts.detached.items():
        if identifier[0] != collection or identifier[1:] not in numbers:
            continue
        there = ~ignored & ~detached
        mine = there & (named.identifier == numbers[identifier[1:]])
        others = np.array([numbers[name] for name in company if name in numbers], np.int64)
        kept_apart = named.combination[there & np.isin(named.identifier, others)]
        detached |= mine & np.isin(named.combination, kept_apart)
    return ignored, detached


def _mentioned(facts: Facts, collection: str) -> set[tuple[str, str]]:
    found = {one.identifier[1:] for one in facts.ignored if one.identifier[0] == collection}
    for identifier, company in facts.detached.items():
        if identifier[0] == collection:
            found |= {identifier[1:], *company}
    return found


def _numbers(
    wanted: Iterable[tuple[str, str]], kinds: list[str], kind_of: Ints, values: pa.Array
) -> dict[tuple[str, str], int]:
    """The numbers of those identifiers that the load names."""
    wanted = set(wanted)
    if not wanted:
        return {}
    texts = pa.array(sorted({value for _, value in wanted}), pa.string())
    spots = np.flatnonzero(np.asarray(pc.is_in(values, value_set=texts)))
    found = {}
    for spot in spots.tolist():
        name = (kinds[kind_of[spot]], values[spot].as_py())
        if name in wanted:
            found[name] = spot
    return found
