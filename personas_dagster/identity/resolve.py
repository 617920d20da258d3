"""Resolution of one collection's messages to profiles: arrays in, arrays out.

Identifiers, combinations and profiles are small integers here. Profiles are numbered in the
order of their creation: the smallest number of a merge becomes the parent. A message that
repeats a combination which was accepted whole changes nothing, so each combination's first
message is enough, and all messages of those that were refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from personas_dagster.identity.numbering import Numbered
from personas_dagster.identity.rules import IdentityRules

Ints = npt.NDArray[Any]
NONE = -1
_TICKS = 1_000_000
_WORTH_COMPILING = 20_000


@dataclass
class Before:
    """The graph under the load: a profile's merges; an identifier's profile (or NONE) and instant.

    `kind_of` covers the load's identifiers, and after them those that it does not name.
    """

    merges: Ints
    kind_of: Ints
    attached: Ints
    first_seen: Ints


@dataclass
class Outcome:
    """What happened. Places are positions in the messages that were resolved."""

    existing: int  # profiles that were there before
    attached: Ints  # of each identifier: the profile it was first attached to, or NONE
    place: Ints  # of each identifier: where that was, NONE if before
    created: Ints  # of each new profile: where
    merges: Ints  # rows of (parent, child, place, identifiers kept)
    drops: Ints  # rows of (place, identifier, limit broken, end in `apart`)
    apart: Ints  # profiles kept apart, drop after drop
    refused: Ints  # of each combination: whether an identifier was ever removed


def suspects(numbered: Numbered, before: Before, rules: IdentityRules) -> Ints:
    """Of each identifier, whether a limit could break where it is.

    Elsewhere the order of messages decides nothing but names and instants. For a small load the
    question costs more than it saves: there, all are.
    """
    kinds = before.kind_of.astype(np.int32)
    if len(numbered.offsets) <= _WORTH_COMPILING or not len(numbered.members):
        return np.ones(len(kinds), np.bool_)
    from personas_dagster.identity import compiled

    found: Ints = compiled.suspects(
        kinds,
        np.argsort(kinds.astype(np.int16), kind="stable").astype(np.int32),
        _limits(numbered, rules),
        _caps(rules),
        before.attached,
        before.merges.astype(np.int32),
        numbered.offsets.astype(np.int64),
        numbered.members.astype(np.int32),
    )
    return found


def resolve(
    numbered: Numbered,
    before: Before,
    rules: IdentityRules,
    order: Ints,
    instants: Ints,
    guarded: Ints,
) -> Outcome:
    """Resolve messages, given as combinations (`order`) at `instants` in microseconds.

    `guarded` is what `suspects` found.
    """
    windows = np.array(
        [
            NONE if window is None else int(window.total_seconds()) * _TICKS
            for window in (rules.rule(kind).window for kind in numbered.kinds)
        ],
        np.int64,
    )
    attached, first_seen = before.attached.copy(), before.first_seen.copy()
    if not len(numbered.members):
        order, instants = order[:0], instants[:0]
    run = _kernel(len(order))
    place, created, merges, drops, apart, settled = run(
        before.kind_of.astype(np.int32),
        _limits(numbered, rules),
        windows,
        _caps(rules),
        attached,
        first_seen,
        before.merges.astype(np.int32),
        numbered.offsets.astype(np.int64),
        numbered.members.astype(np.int32),
        numbered.test.astype(np.int32),
        numbered.instead.astype(np.int32),
        order.astype(np.int32),
        instants.astype(np.int64),
        guarded,
    )
    return Outcome(len(before.merges), attached, place, created, merges, drops, apart, settled == 2)


def _limits(numbered: Numbered, rules: IdentityRules) -> Ints:
    return np.array([rules.rule(kind).limit for kind in numbered.kinds], np.int64)


def _caps(rules: IdentityRules) -> Ints:
    return np.array([rules.max_identifiers, rules.max_merges], np.int64)


def broken_texts(kinds: list[str], rules: IdentityRules) -> list[str]:
    """What each code for a broken limit means to a person."""
    return [
        *(f"{kind}: {rules.rule(kind).text}" for kind in kinds),
        f"profile: at most {rules.max_identifiers} identifiers",
        f"profile: at most {rules.max_merges} merges",
    ]


def _kernel(messages: int) -> Any:
    """The loop, compiled where that pays."""
    if messages < _WORTH_COMPILING:
        from personas_dagster.identity import kernel

        return kernel.run
    from personas_dagster.identity import compiled

    return compiled.run
