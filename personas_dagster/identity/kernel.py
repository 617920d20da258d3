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
# Rows of profiles, rows of cells, and each identifier's next one in its cell's chain.
State: TypeAlias = tuple[Ints, Ints, Ints]

NONE = -1
FIRST, SIZE, MERGES = 0, 1, 2  # of a profile: its first cell, identifiers, merges
KIND, COUNT, NEXT, HEAD, TAIL = 0, 1, 2, 3, 4  # of a cell: HEAD and TAIL are of its chain


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
    identifier: int, root: int, kinds: Ints, windows: Ints, state: State, spare: int
) -> int:
    """Count an identifier on a root; `spare` is the number of cells in use. Returns it anew."""
    profiles, cells, chained = state
    kind = kinds[identifier]
    before, cell = NONE, profiles[root, FIRST]
    while cell != NONE and cells[cell, KIND] < kind:
        before, cell = cell, cells[cell, NEXT]
    if cell == NONE or cells[cell, KIND] != kind:
        cells[spare, KIND], cells[spare, COUNT], cells[spare, NEXT] = kind, 0, cell
        cells[spare, HEAD], cells[spare, TAIL] = NONE, NONE
        cell, spare = spare, spare + 1
        if before == NONE:
            profiles[root, FIRST] = cell
        else:
            cells[before, NEXT] = cell
    cells[cell, COUNT] += 1
    profiles[root, SIZE] += 1
    if windows[kind] >= 0:
        chained[identifier] = cells[cell, HEAD]
        cells[cell, HEAD] = identifier
        if cells[cell, TAIL] == NONE:
            cells[cell, TAIL] = identifier
    return spare


def _join(parent_root: int, child_root: int, state: State) -> None:
    """Merge the child into the parent; the cells of both are sorted by type."""
    profiles, cells, chained = state
    profiles[parent_root, MERGES] += profiles[child_root, MERGES] + 1
    profiles[parent_root, SIZE] += profiles[child_root, SIZE]
    before, mine, theirs = NONE, profiles[parent_root, FIRST], profiles[child_root, FIRST]
    while theirs != NONE:
        if mine != NONE and cells[mine, KIND] < cells[theirs, KIND]:
            before, mine = mine, cells[mine, NEXT]
            continue
        following = cells[theirs, NEXT]
        if mine != NONE and cells[mine, KIND] == cells[theirs, KIND]:
            cells[mine, COUNT] += cells[theirs, COUNT]
            if cells[theirs, HEAD] != NONE:
                chained[cells[theirs, TAIL]] = cells[mine, HEAD]
                if cells[mine, HEAD] == NONE:
                    cells[mine, TAIL] = cells[theirs, TAIL]
                cells[mine, HEAD] = cells[theirs, HEAD]
        else:
            cells[theirs, NEXT] = mine
            if before == NONE:
                profiles[parent_root, FIRST] = theirs
            else:
                cells[before, NEXT] = theirs
            before = theirs
        theirs = following
    profiles[child_root, FIRST] = NONE


def _live(root: int, kind: int, at: int, window: int, first_seen: Ints, state: State) -> int:
    """How many identifiers of a type were attached in the window that ends at `at`."""
    profiles, cells, chained = state
    cell = profiles[root, FIRST]
    while cell != NONE and cells[cell, KIND] < kind:
        cell = cells[cell, NEXT]
    if cell == NONE or cells[cell, KIND] != kind:
        return 0
    live, before, identifier = 0, NONE, cells[cell, HEAD]
    while identifier != NONE:
        following = chained[identifier]
        if first_seen[identifier] <= at - window:
            if before == NONE:
                cells[cell, HEAD] = following
            else:
                chained[before] = following
        else:
            live += first_seen[identifier] <= at
            before = identifier
        identifier = following
    cells[cell, TAIL] = before
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
    state: State,
    scratch: tuple[Ints, Ints, Ints],
) -> int:
    """The first limit that the union would break: a type, a cap beyond the types, or NONE."""
    profiles, cells, _ = state
    total, largest, met = scratch
    n_met = 0
    for root in found:
        cell = profiles[root, FIRST]
        while cell != NONE:
            kind = cells[cell, KIND]
            if total[kind] == 0:
                met[n_met] = kind
                n_met += 1
            total[kind] += cells[cell, COUNT]
            largest[kind] = max(largest[kind], cells[cell, COUNT])
            cell = cells[cell, NEXT]
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
                    held += _live(root, kind, at, windows[kind], first_seen, state)
            if held > limits[kind]:
                broken = kind
        total[kind], largest[kind] = 0, 0
    if broken != NONE:
        return broken
    held, most, merged = new.size, 0, found.size - 1
    for root in found:
        held += profiles[root, SIZE]
        most = max(most, profiles[root, SIZE])
        merged += profiles[root, MERGES]
    if held > caps[0] and held > most:
        return limits.size
    if found.size > 1 and merged > caps[1]:
        return limits.size + 1
    return NONE


def suspects(
    kinds: Ints,
    by_kind: Ints,
    limits: Ints,
    caps: Ints,
    attached: Ints,
    merges_before: Ints,
    offsets: Ints,
    members: Ints,
) -> Ints:
    """Of each identifier, whether a limit or cap could break in its connected component.

    A component that holds no more than every limit allows, all its identifiers taken together,
    cannot break one in any order. `by_kind` lists the identifiers by type.
    """
    n, existing = kinds.size, merges_before.size
    parent = np.arange(existing + n).astype(np.int32)
    for identifier in range(n):
        if attached[identifier] != NONE:
            parent[existing + identifier] = attached[identifier]
    for row in range(offsets.size - 1):
        start, end = offsets[row], offsets[row + 1]
        if end - start < 2:
            continue
        root = _root(parent, existing + members[start])
        for spot in range(start + 1, end):
            other = _root(parent, existing + members[spot])
            if other < root:
                root, other = other, root
            parent[other] = root
    held = np.zeros(existing + n, np.int32)
    merges = np.zeros(existing + n, np.int32)
    suspect = np.zeros(existing + n, np.bool_)
    for number in range(existing):
        merges[_root(parent, number)] += merges_before[number] + 1
    for identifier in range(n):
        held[_root(parent, existing + identifier)] += 1
    for number in range(existing + n):
        most = merges[number] + held[number] - 1
        suspect[number] = held[number] > caps[0] or most > caps[1]
    counts = held
    counts[:] = 0
    start = 0
    while start < n:
        kind, end = kinds[by_kind[start]], start
        while end < n and kinds[by_kind[end]] == kind:
            root = _root(parent, existing + by_kind[end])
            counts[root] += 1
            if counts[root] > limits[kind]:
                suspect[root] = True
            end += 1
        for spot in range(start, end):
            counts[_root(parent, existing + by_kind[spot])] = 0
        start = end
    found = np.empty(n, np.bool_)
    for identifier in range(n):
        found[identifier] = suspect[_root(parent, existing + identifier)]
    return found


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
    guarded: Ints,
) -> tuple[Ints, Ints, Ints, Ints, Ints, Ints]:
    """Resolve the messages `order[p]` (combinations) at `instants[p]`, one after the other.

    `attached` and `first_seen` are carried on in place. A combination c with `test[c]` >= 0
    stands for `instead[c]` when identifier `test[c]` is attached by then. `guarded` says of each
    identifier whether a limit can break where it is (`suspects`); elsewhere nothing is counted.
    """
    n, existing = kinds.size, merges_before.size
    capacity = existing + n
    parent = np.arange(capacity).astype(np.int32)
    state = (
        np.zeros((capacity, 3), np.int32),
        np.empty((n, 5), np.int32),
        np.full(n, NONE, np.int32),
    )
    state[0][:, FIRST] = NONE
    state[0][:existing, MERGES] = merges_before
    scratch = (
        np.zeros(limits.size, np.int64),
        np.zeros(limits.size, np.int64),
        np.empty(limits.size, np.int64),
    )
    spare = 0
    for identifier in range(n):
        if guarded[identifier] and attached[identifier] != NONE:
            spare = _attach(identifier, attached[identifier], kinds, windows, state, spare)
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
    longest = max(1, np.diff(offsets).max()) if offsets.size > 1 else 1
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
        guard = guarded[members[start]]
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
            if not guard or kept == 1 or (n_roots == 1 and n_fresh == 0):
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
                state,
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
            if guard:
                _join(into, child, state)
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
            if guard:
                spare = _attach(identifier, into, kinds, windows, state, spare)
        settled[combination] = 1 if kept == whole else 2
    return (
        first_place,
        created[: profiles - existing],
        merged[:n_merged].reshape(-1, 4),
        dropped[:n_dropped].reshape(-1, 4),
        apart[:n_apart],
        settled,
    )
