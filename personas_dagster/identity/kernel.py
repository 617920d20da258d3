"""The sequential reading of the rules over arrays.

What belongs here: the one loop that decides, in the part of Python that numba compiles
(`compiled.py`). Names, instants as text and tables stay outside (`resolve.py`).

A profile's identifiers are counted in cells, one for each type that it holds: a list sorted by
type, so that merging two profiles is merging two short lists. A cell of a type whose limit has a
window also chains its identifiers; those that have left the window are unchained when they are
met, since time only goes forward within a load.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Ints: TypeAlias = npt.NDArray[Any]
# A profile's first cell; a cell's type, count, next cell, and its chain's first and last
# identifier; an identifier's next one in its chain.
Cells: TypeAlias = tuple[Ints, Ints, Ints, Ints, Ints, Ints, Ints]

NONE = -1


def _root(parent: Ints, number: int) -> int:
    while parent[number] != number:
        parent[number] = parent[parent[number]]
        number = parent[number]
    return number


def _grown(array: Ints, needed: int) -> Ints:
    if needed <= array.size:
        return array
    bigger = np.empty(max(needed, 2 * array.size, 64), array.dtype)
    bigger[: array.size] = array
    return bigger


def _attach(
    identifier: int, root: int, kinds: Ints, windows: Ints, cells: Cells, spare: int
) -> int:
    """Count an identifier on a root; `spare` is the number of cells in use. Returns it anew."""
    first, kind_of, count, after, chain, tail, chained = cells
    kind = kinds[identifier]
    before, cell = NONE, first[root]
    while cell != NONE and kind_of[cell] < kind:
        before, cell = cell, after[cell]
    if cell == NONE or kind_of[cell] != kind:
        kind_of[spare], count[spare], after[spare] = kind, 0, cell
        chain[spare], tail[spare] = NONE, NONE
        cell, spare = spare, spare + 1
        if before == NONE:
            first[root] = cell
        else:
            after[before] = cell
    count[cell] += 1
    if windows[kind] >= 0:
        chained[identifier] = chain[cell]
        chain[cell] = identifier
        if tail[cell] == NONE:
            tail[cell] = identifier
    return spare


def _join(parent_root: int, child_root: int, cells: Cells) -> None:
    """Merge the child's cells into the parent's, both sorted by type."""
    first, kind_of, count, after, chain, tail, chained = cells
    before, mine, theirs = NONE, first[parent_root], first[child_root]
    while theirs != NONE:
        if mine != NONE and kind_of[mine] < kind_of[theirs]:
            before, mine = mine, after[mine]
            continue
        following = after[theirs]
        if mine != NONE and kind_of[mine] == kind_of[theirs]:
            count[mine] += count[theirs]
            if chain[theirs] != NONE:
                chained[tail[theirs]] = chain[mine]
                if chain[mine] == NONE:
                    tail[mine] = tail[theirs]
                chain[mine] = chain[theirs]
        else:
            after[theirs] = mine
            if before == NONE:
                first[parent_root] = theirs
            else:
                after[before] = theirs
            before = theirs
        theirs = following
    first[child_root] = NONE


def _live(root: int, kind: int, at: int, window: int, first_seen: Ints, cells: Cells) -> int:
    """How many identifiers of a type were attached in the window that ends at `at`."""
    first, kind_of, _, after, chain, tail, chained = cells
    cell = first[root]
    while cell != NONE and kind_of[cell] < kind:
        cell = after[cell]
    if cell == NONE or kind_of[cell] != kind:
        return 0
    live, before, identifier = 0, NONE, chain[cell]
    while identifier != NONE:
        following = chained[identifier]
        if first_seen[identifier] <= at - window:
            if before == NONE:
                chain[cell] = following
            else:
                chained[before] = following
        else:
            live += first_seen[identifier] <= at
            before = identifier
        identifier = following
    tail[cell] = before
    return live


def _broken(
    found: Ints,
    new: Ints,
    at: int,
    kinds: Ints,
    limits: Ints,
    windows: Ints,
    caps: Ints,
    first_seen: Ints,
    size: Ints,
    merges: Ints,
    cells: Cells,
    scratch: tuple[Ints, Ints, Ints],
) -> int:
    """The first limit that the union would break: a type, a cap beyond the types, or NONE."""
    first, kind_of, count, after, _, _, _ = cells
    total, largest, met = scratch
    n_met = 0
    for root in found:
        cell = first[root]
        while cell != NONE:
            kind = kind_of[cell]
            if total[kind] == 0:
                met[n_met] = kind
                n_met += 1
            total[kind] += count[cell]
            largest[kind] = max(largest[kind], count[cell])
            cell = after[cell]
    for identifier in new:
        kind = kinds[identifier]
        if total[kind] == 0:
            met[n_met] = kind
            n_met += 1
        total[kind] += 1
    broken = NONE
    for kind in met[:n_met]:
        grows = total[kind] > limits[kind] and total[kind] > largest[kind]
        if grows and (broken == NONE or kind < broken):
            held = total[kind]
            if windows[kind] >= 0:
                held = 0
                for identifier in new:
                    held += kinds[identifier] == kind
                for root in found:
                    held += _live(root, kind, at, windows[kind], first_seen, cells)
            if held > limits[kind]:
                broken = kind
        total[kind], largest[kind] = 0, 0
    # `total` must be clean before any return.
    if broken != NONE:
        return broken
    held, most, merged = new.size, 0, found.size - 1
    for root in found:
        held += size[root]
        most = max(most, size[root])
        merged += merges[root]
    if held > caps[0] and held > most:
        return limits.size
    if found.size > 1 and merged > caps[1]:
        return limits.size + 1
    return NONE


def run(
    kinds: Ints,
    limits: Ints,
    windows: Ints,
    caps: Ints,
    attached: Ints,
    first_seen: Ints,
    merges_before: Ints,
    offsets: Ints,
    members: Ints,
    test: Ints,
    instead: Ints,
    order: Ints,
    instants: Ints,
) -> tuple[Ints, Ints, Ints, Ints, Ints, Ints]:
    """Resolve the messages `order[p]` (combinations) at `instants[p]`, one after the other.

    `attached` and `first_seen` are carried on in place. A combination c with `test[c]` >= 0
    stands for `instead[c]` when identifier `test[c]` is attached by then.
    """
    n, existing = kinds.size, merges_before.size
    capacity = existing + n
    parent = np.arange(capacity).astype(np.int32)
    size, merges = np.zeros(capacity, np.int32), np.zeros(capacity, np.int32)
    merges[:existing] = merges_before
    cells = (
        np.full(capacity, NONE, np.int32),
        np.empty(n, np.int32),
        np.empty(n, np.int32),
        np.empty(n, np.int32),
        np.empty(n, np.int32),
        np.empty(n, np.int32),
        np.full(n, NONE, np.int32),
    )
    scratch = (
        np.zeros(limits.size, np.int64),
        np.zeros(limits.size, np.int64),
        np.empty(limits.size, np.int64),
    )
    spare = 0
    for identifier in range(n):
        if attached[identifier] != NONE:
            spare = _attach(identifier, attached[identifier], kinds, windows, cells, spare)
            size[attached[identifier]] += 1
    first_place = np.full(n, NONE, np.int32)
    settled = np.zeros(offsets.size - 1, np.uint8)  # 1: accepted whole, 2: refused
    profiles = existing
    created = np.empty(64, np.int32)
    merged = np.empty(256, np.int32)  # (parent, child, place, kept) after each other
    n_merged = 0
    dropped = np.empty(256, np.int32)  # (place, identifier, broken, end of its profiles)
    n_dropped = 0
    apart = np.empty(64, np.int32)
    n_apart = 0
    longest = 1
    for combination in range(offsets.size - 1):
        longest = max(longest, offsets[combination + 1] - offsets[combination])
    roots, fresh = np.empty(longest, np.int32), np.empty(longest, np.int32)
    for place in range(order.size):
        combination = order[place]
        if test.size > 0 and test[combination] != NONE and attached[test[combination]] != NONE:
            combination = instead[combination]
        if settled[combination] == 1:
            continue
        start, at = offsets[combination], instants[place]
        whole = offsets[combination + 1] - start
        if whole == 0:
            continue
        kept = whole
        while True:
            n_roots, n_fresh = 0, 0
            for identifier in members[start : start + kept]:
                if attached[identifier] == NONE:
                    fresh[n_fresh] = identifier
                    n_fresh += 1
                    continue
                root = _root(parent, attached[identifier])
                spot = n_roots  # in order of creation, each once
                while spot > 0 and roots[spot - 1] > root:
                    spot -= 1
                if spot > 0 and roots[spot - 1] == root:
                    continue
                for later in range(n_roots, spot, -1):
                    roots[later] = roots[later - 1]
                roots[spot] = root
                n_roots += 1
            if kept == 1 or (n_roots == 1 and n_fresh == 0):
                break
            broken = _broken(
                roots[:n_roots],
                fresh[:n_fresh],
                at,
                kinds,
                limits,
                windows,
                caps,
                first_seen,
                size,
                merges,
                cells,
                scratch,
            )
            if broken == NONE:
                break
            kept -= 1
            apart = _grown(apart, n_apart + n_roots)
            apart[n_apart : n_apart + n_roots] = roots[:n_roots]
            n_apart += n_roots
            dropped = _grown(dropped, n_dropped + 4)
            dropped[n_dropped] = place
            dropped[n_dropped + 1] = members[start + kept]
            dropped[n_dropped + 2] = broken
            dropped[n_dropped + 3] = n_apart
            n_dropped += 4
        if n_roots == 0:
            into = profiles
            created = _grown(created, profiles - existing + 1)
            created[profiles - existing] = place
            profiles += 1
        else:
            into = roots[0]
        for child in roots[1:n_roots]:
            parent[child] = into
            merges[into] += merges[child] + 1
            size[into] += size[child]
            _join(into, child, cells)
            merged = _grown(merged, n_merged + 4)
            merged[n_merged] = into
            merged[n_merged + 1] = child
            merged[n_merged + 2] = place
            merged[n_merged + 3] = kept
            n_merged += 4
        for identifier in fresh[:n_fresh]:
            attached[identifier] = into
            first_seen[identifier] = at
            first_place[identifier] = place
            spare = _attach(identifier, into, kinds, windows, cells, spare)
        size[into] += n_fresh
        settled[combination] = 1 if kept == whole else 2
    return (
        first_place,
        created[: profiles - existing],
        merged[:n_merged].reshape(-1, 4),
        dropped[:n_dropped].reshape(-1, 4),
        apart[:n_apart],
        settled,
    )
