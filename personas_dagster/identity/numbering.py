"""Identifiers as small integers: what the resolution works on, for one collection of a load.

What belongs here: from columns of text to numbers, with the rules applied that ask for no graph
(normal form, blocked values, priority). Arrow and numpy only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from personas_dagster.identity.extract import PLAIN, normalise
from personas_dagster.identity.facts import Named, eras_of, leave_out
from personas_dagster.identity.rules import IdentityRules

Ints = npt.NDArray[Any]
NONE = -1
_READERS = 2
# Patterns that Arrow's engine reads exactly as Python's does.
_SAME_EVERYWHERE = re.compile(r"\^?(?:[A-Za-z0-9@_ -]|\\[.@-]|\[[A-Za-z0-9-]+\]|[*+?])*\$?")


@dataclass
class Numbered:
    """The identifiers of a load, and which of them each combination names, by priority.

    Combination c names `members[offsets[c]:offsets[c + 1]]`, unless `test[c]` is an identifier
    that the graph knows by then: it is read as combination `instead[c]` in that case.
    """

    kinds: list[str]  # by rank
    kind_of: Ints  # of each identifier
    values: pa.Array
    offsets: Ints
    members: Ints
    test: Ints
    instead: Ints
    # (combination, identifier) that a recorded fact detached from each other
    detached: Ints = field(default_factory=lambda: np.empty((0, 2), np.int64))
    # Of each identifier, as `keys.identifier_keys` makes them: the higher halves, the lower ones.
    keys: tuple[Ints, Ints] = field(default_factory=lambda: (np.empty(0), np.empty(0)))

    @property
    def size(self) -> int:
        return len(self.kind_of)

    def named(self) -> pa.Table:
        """Each identifier's number, type and value."""
        return pa.table({"id": pa.array(np.arange(self.size)), "type": self.types(),
                         "value": self.values})  # fmt: skip

    def keyed(self) -> pa.Table:
        """Each identifier's number and key."""
        high, low = self.keys
        return pa.table({"id": np.arange(self.size), "key_high": high, "key_low": low})

    def types(self) -> pa.Array:
        return pa.array(self.kinds, pa.string()).take(pa.array(self.kind_of))

    def first(self) -> Ints:
        """The identifier of highest priority of each combination, NONE where none is left."""
        found = np.full(len(self.offsets) - 1, NONE, np.int64)
        some = self.offsets[:-1] < self.offsets[1:]
        found[some] = self.members[self.offsets[:-1][some]]
        return found


@dataclass
class _Entries:
    """(combination, identifier, place) rows, as arrays of one length.

    Those of a `column` have one place and one type, and their combinations ascend.
    """

    combination: Ints
    identifier: Ints
    place: Ints
    column: bool = False

    def kept(self, mask: Ints) -> _Entries:
        if mask.all():
            return self
        return _Entries(
            self.combination[mask], self.identifier[mask], self.place[mask], self.column
        )


@dataclass
class _Type:
    """The distinct values of a type, which of them are blocked, and entries that number them."""

    kind: str
    values: pa.Array
    blocked: Ints
    entries: list[_Entries]


def number(columns: pa.Table, others: pa.Table, rules: IdentityRules, collection: str) -> Numbered:
    """Number the identifiers of a collection that distinct combinations name.

    `columns` has `PLAIN`'s columns, a row for each combination; `others` is what
    `extract.others_of` gave.
    """
    plain = [(name, kind) for name, kind, of in PLAIN if of == collection]
    eras = eras_of(others, columns.num_rows)
    others = others.filter(pc.equal(others.column("collection"), collection))
    others, rows, aliases = _both_readings(others, columns.num_rows)
    texts = {name: _text(columns.column(name)) for name, _ in plain}
    if len(aliases):
        taken = pa.array(rows)
        texts = {name: column.take(taken) for name, column in texts.items()}
    found = _Found(rules)

    def read(kind: str) -> _Type:
        of = others.filter(pc.equal(others.column("type"), kind))
        columns = [(_PLACES[name], texts.pop(name)) for name, its in plain if its == kind]
        return _read_type(rules, kind, columns, of)

    with ThreadPoolExecutor(_READERS) as pool:  # Arrow holds no lock
        for one in pool.map(read, dict.fromkeys(kind for _, kind in plain)):
            found.add_type(one)
    rest = others
    for kind in dict.fromkeys(kind for _, kind in plain):
        rest = rest.filter(pc.not_equal(rest.column("type"), kind))
    found.add_rest(rest)
    return found.numbered(columns.num_rows, aliases, collection, eras[rows])


_PLACES = {name: place for place, (name, _, _) in enumerate(PLAIN)}


def _text(column: pa.ChunkedArray) -> pa.Array:
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays([pa.array([], pa.string()), *column.chunks])


def _both_readings(others: pa.Table, combinations: int) -> tuple[pa.Table, Ints, Ints]:
    """Read an alias' previousId both ways: as an anonymous_id, and in a copy as a user_id.

    Returns the entries, the combinations with the copies at the end, and which were copied.
    """
    rows = np.arange(combinations)
    is_previous = pc.equal(others.column("type"), "")
    if not pc.any(is_previous).as_py():
        return others, rows, np.empty(0, np.int64)
    aliases = np.unique(others.filter(is_previous).column("combination").to_numpy())
    copy_of = np.full(combinations, NONE, np.int64)
    copy_of[aliases] = combinations + np.arange(len(aliases))
    copied = others.filter(pc.is_in(others.column("combination"), pa.array(aliases)))
    numbers = pa.array(copy_of[copied.column("combination").to_numpy()])
    copied = copied.set_column(0, "combination", numbers)
    parts = []
    for part, kind in ((others, "anonymous_id"), (copied, "user_id")):
        types = pc.if_else(pc.equal(part.column("type"), ""), kind, part.column("type"))
        parts.append(part.set_column(part.schema.get_field_index("type"), "type", types))
    return pa.concat_tables(parts), np.concatenate([rows, aliases]), aliases


class _Found:
    """Gathers identifiers type by type."""

    def __init__(self, rules: IdentityRules) -> None:
        self._rules = rules
        self._types: list[str] = []  # by code
        self._code_of: list[Ints] = []
        self._values: list[pa.Array] = []
        self._blocked: list[Ints] = []
        self._entries: list[_Entries] = []
        self._size = 0
        self._is_plain = True

    def add_type(self, one: _Type) -> None:
        self._entries += [
            replace(part, identifier=part.identifier + np.int32(self._size)) for part in one.entries
        ]
        self._add_identifiers([one.kind], np.zeros(len(one.values), np.int64), one.values,
                              one.blocked)  # fmt: skip

    def add_rest(self, others: pa.Table) -> None:
        """All types that have no column of their own, however many there are."""
        if others.num_rows == 0:
            return
        kinds = _text(others.column("type")).dictionary_encode()
        values = normalise("", _text(others.column("value")))
        values = values.dictionary_encode()
        codes = np.asarray(kinds.indices).astype(np.int64)
        indices = np.asarray(values.indices.fill_null(NONE)).astype(np.int64)
        stride = len(values.dictionary) + 1
        pairs, numbers = np.unique(codes * stride + indices + 1, return_inverse=True)
        is_null = pairs % stride == 0
        renumbered = np.where(is_null, NONE, np.cumsum(~is_null) - 1)
        pairs = pairs[~is_null]
        numbered = renumbered[numbers]
        found = _Entries(
            others.column("combination").to_numpy(),
            numbered + self._size,
            others.column("place").to_numpy(),
        )
        self._entries.append(found.kept(numbered != NONE))
        types, codes = kinds.dictionary.to_pylist(), pairs // stride
        texts = values.dictionary.take(pa.array(pairs % stride - 1))
        blocked = np.zeros(len(texts), bool)
        for code, kind in enumerate(types):
            of = np.flatnonzero(codes == code)
            blocked[of] = blocked_values(self._rules, kind, texts.take(pa.array(of)))
        self._add_identifiers(types, codes, texts, blocked)

    def _add_identifiers(
        self, types: list[str], codes: Ints, values: pa.Array, blocked: Ints
    ) -> None:
        self._code_of.append(codes + len(self._types))
        self._types += types
        self._values.append(values)
        self._blocked.append(blocked)
        self._size += len(values)

    def numbered(self, combinations: int, aliases: Ints, collection: str, eras: Ints) -> Numbered:
        rows, rules = len(eras), self._rules
        kinds = sorted(self._types, key=rules.rank)
        rank = {kind: place for place, kind in enumerate(kinds)}
        rank_of_code = np.array([rank[kind] for kind in self._types], np.int32)
        kind_of = rank_of_code[np.concatenate(self._code_of)].astype(np.int32)
        values = pa.concat_arrays(self._values)
        entries = self._entries
        test = np.empty(0, np.int32)
        instead = np.empty(0, np.int32)
        if len(aliases):
            # The copy's own reading of previousId; place 50 is nothing else's.
            test = np.full(rows, NONE, np.int32)
            instead = np.full(rows, NONE, np.int32)
            for one in entries:
                previous = (one.place == 50) & (one.combination >= combinations)
                original = aliases[one.combination[previous] - combinations]
                test[original] = one.identifier[previous]
                instead[original] = one.combination[previous]
        blocked = np.concatenate(self._blocked)
        if blocked.any():
            entries = [one.kept(~blocked[one.identifier]) for one in entries]
        pairs = np.empty((0, 2), np.int64)
        if rules.facts.ignored or rules.facts.detached:
            named = Named(*_all(entries)[:2], eras)
            ignored, detached = leave_out(rules.facts, collection, kinds, kind_of, values, named)
            apart = np.stack([named.combination[detached], named.identifier[detached]], axis=1)
            pairs, kept = np.unique(apart, axis=0), ~(ignored | detached)
            ends = np.cumsum([len(one.place) for one in entries])[:-1]
            masks = np.split(kept, ends)
            entries = [one.kept(mask) for one, mask in zip(entries, masks, strict=True)]
        offsets, members = _members(rows, entries, kind_of)
        return Numbered(kinds, kind_of, values, offsets, members, test, instead, pairs)


def _read_type(
    rules: IdentityRules, kind: str, columns: Sequence[tuple[int, pa.Array]], others: pa.Table
) -> _Type:
    """One type's identifiers out of its columns (place and texts) and of other entries."""
    there = [np.flatnonzero(np.asarray(pc.is_valid(text))) for _, text in columns]
    texts = [text.drop_null() for _, text in columns]
    values, indices = _encoded(kind, [*texts, _text(others.column("value"))])
    entries, start = [], 0
    for rows, (place, _) in zip(there, columns, strict=True):
        end = start + len(rows)
        of = np.broadcast_to(np.int32(place), len(rows))
        entries.append(_Entries(rows.astype(np.int32), indices[start:end], of, column=True))
        start = end
    rows, of = others.column("combination").to_numpy(), others.column("place").to_numpy()
    entries.append(_Entries(rows, indices[start:], of))
    kept = [one.kept(one.identifier != NONE) for one in entries]
    return _Type(kind, values, blocked_values(rules, kind, values), kept)


def _encoded(kind: str, columns: Sequence[pa.Array]) -> tuple[pa.Array, Ints]:
    """The distinct values of one type in their normal form, and which of them each value is."""
    raw = pa.concat_arrays(columns).dictionary_encode()
    indices: Ints = np.asarray(raw.indices.fill_null(NONE))
    values = normalise(kind, raw.dictionary)
    if values.equals(raw.dictionary):
        return values, indices
    again = values.dictionary_encode()
    renumbered: Ints = np.append(np.asarray(again.indices.fill_null(NONE)).astype(np.int64), NONE)
    return again.dictionary, renumbered[indices]


def _all(entries: Sequence[_Entries]) -> tuple[Ints, Ints, Ints]:
    """The combinations, identifiers and places of all entries."""
    return (
        np.concatenate([one.combination for one in entries]).astype(np.int64),
        np.concatenate([one.identifier for one in entries]).astype(np.int64),
        np.concatenate([one.place for one in entries]),
    )


def _members(rows: int, entries: Sequence[_Entries], kind_of: Ints) -> tuple[Ints, Ints]:
    """Identifiers by combination, rank and place, each once."""
    entries = [one for one in entries if len(one.place)]
    if not all(one.column for one in entries) or not _are_distinct(rows, entries, kind_of):
        return _sorted_members(rows, *_all(entries), kind_of)
    # Column after column in order of rank: each puts at most one identifier to a combination.
    entries.sort(key=lambda one: (kind_of[one.identifier[0]], one.place[0]))
    offsets = np.zeros(rows + 1, np.int64)
    for one in entries:
        offsets[one.combination + 1] += 1
    np.cumsum(offsets, out=offsets)
    filled = offsets[:-1].copy()
    members = np.empty(offsets[-1], np.int32)
    for one in entries:
        members[filled[one.combination]] = one.identifier
        filled[one.combination] += 1
    return offsets, members


def _are_distinct(rows: int, entries: Sequence[_Entries], kind_of: Ints) -> bool:
    """Whether no combination has two identifiers of one type."""
    by_kind: dict[int, list[Ints]] = {}
    for one in entries:
        by_kind.setdefault(int(kind_of[one.identifier[0]]), []).append(one.combination)
    for columns in by_kind.values():
        if len(columns) > 1:
            seen = np.zeros(rows, bool)
            for combination in columns:
                if seen[combination].any():
                    return False
                seen[combination] = True
    return True


def _sorted_members(
    rows: int, combination: Ints, identifier: Ints, place: Ints, kind_of: Ints
) -> tuple[Ints, Ints]:
    """`_members` of entries in any order."""
    span = int(place.max(initial=0)) + 1
    rank = kind_of[identifier].astype(np.int64) * span + place
    # Entries come column by column: bringing the columns into order is most of the sorting.
    order = np.argsort(rank, kind="stable")
    order = order[np.argsort(combination[order], kind="stable")]
    combination, identifier = combination[order], identifier[order]
    counts = np.bincount(combination, minlength=rows)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
    # Of a type's values, those read from several places stand at the first.
    if len(identifier) and _may_repeat(combination, identifier, kind_of):
        pairs = combination * len(kind_of) + identifier
        _, first = np.unique(pairs, return_index=True)
        first.sort()
        combination, identifier = combination[first], identifier[first]
        counts = np.bincount(combination, minlength=rows)
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
    return offsets, identifier.astype(np.int32)


def _may_repeat(combination: Ints, identifier: Ints, kind_of: Ints) -> bool:
    """Whether some combination has two identifiers of one type, which stand side by side."""
    kinds = kind_of[identifier]
    return bool(((combination[1:] == combination[:-1]) & (kinds[1:] == kinds[:-1])).any())


def blocked_values(rules: IdentityRules, kind: str, values: pa.Array) -> Ints:
    """Which of a type's values the rules never take as identifiers."""
    entries = (*rules.blocked.get("*", ()), *rules.blocked.get(kind, ()))
    exact = [entry for entry in entries if isinstance(entry, str)]
    found = np.asarray(pc.is_in(values, pa.array(exact, pa.string()))).copy()
    for entry in entries:
        if isinstance(entry, str):
            continue
        same = entry.flags == re.UNICODE and _SAME_EVERYWHERE.fullmatch(entry.pattern)
        if same:
            found |= np.asarray(pc.match_substring_regex(values, entry.pattern))
        else:
            matches = (entry.search(value) is not None for value in values.to_pylist())
            found |= np.fromiter(matches, bool, len(values))
    return found
