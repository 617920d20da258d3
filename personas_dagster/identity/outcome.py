"""From the numbers of a resolution to rows of the identity tables."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from personas_dagster.identity import keys
from personas_dagster.identity.facts import Identifier
from personas_dagster.identity.messages import Places
from personas_dagster.identity.numbering import Numbered
from personas_dagster.identity.resolve import Before, Outcome, broken_texts
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.identity.touched import Touched
from personas_dagster.interfaces import Session
from personas_dagster.lake.tables import INSTANT

Ints = npt.NDArray[Any]
NONE = -1
_HUBS_SHOWN = 20
_PIECE = 1_000_000  # rows
DETACHED = "detached"  # in place of a limit that was broken


def profile_id_sql(space: str, collection: str, kind: str, value: str) -> str:
    """The id of a profile by its first identifier, as SQL over four expressions.

    The length keeps type and value apart whatever characters they hold.
    """
    return (
        f"md5(concat_ws(chr(31), {space}, {collection}, strlen({kind})::VARCHAR, {kind}, {value}))"
    )


_PROFILE_IDS = f"""
SELECT number, CASE WHEN message_id IS NULL THEN id ELSE md5(id || message_id) END AS profile_id
FROM (SELECT *, {profile_id_sql("$1", "$2", "type", "value")} AS id FROM creators)
ORDER BY number
"""
_SPECIAL = '["\\\\\\x00-\\x1f]'


def before(numbered: Numbered, touched: Touched, rules: IdentityRules) -> Before:
    """The state to go on from; `numbered` takes up the types that only the graph has."""
    attached = np.full(numbered.size, NONE, np.int32)
    seen = np.zeros(numbered.size, np.int64)
    found = touched.identifiers
    if found is None:
        return Before(touched.merges, numbered.kind_of, attached, seen)
    types = found.column("type").unique().to_pylist()
    kinds = sorted({*numbered.kinds, *types}, key=rules.rank)
    rank = {kind: place for place, kind in enumerate(kinds)}
    again = np.array([rank[kind] for kind in numbered.kinds], np.int32)
    numbered.kinds, numbered.kind_of = kinds, again[numbered.kind_of]
    ids, numbers = found.column("id").to_numpy(), found.column("number").to_numpy()
    seen_at = found.column("seen").to_numpy()
    named = ids != NONE
    attached[ids[named]], seen[ids[named]] = numbers[named], seen_at[named]
    encoded = found.column("type").combine_chunks().dictionary_encode()
    ranks = np.array([rank[kind] for kind in encoded.dictionary.to_pylist()], np.int32)
    kind_of = ranks[np.asarray(encoded.indices)]
    return Before(
        touched.merges,
        np.concatenate([numbered.kind_of, kind_of[~named]]),
        np.concatenate([attached, numbers[~named].astype(np.int32)]),
        np.concatenate([seen, seen_at[~named]]),
    )


@dataclass(frozen=True)
class Holders:
    """The profile of each combination's first identifier, as a spot in `names`, or NONE."""

    spots: Ints
    names: pa.Array

    def of(self, combinations: Ints) -> pa.Array:
        spots = self.spots[combinations]
        return self.names.take(pa.array(spots, mask=spots == NONE))


@dataclass
class Resolved:
    """One collection of a load, resolved."""

    collection: str
    numbered: Numbered
    touched: Touched
    outcome: Outcome
    places: Places
    profile_ids: pa.Array  # by number
    halves: tuple[Ints, Ints]  # of those ids

    def reading(self, places: Ints) -> Ints:
        """The combination that each place's message was read as."""
        combination = self.places.combination[places]
        numbered = self.numbered
        if not numbered.test.size:
            return combination
        test = numbered.test[combination]
        found = self.outcome
        known = (test != NONE) & (found.attached[test] != NONE) & (found.place[test] < places)
        return np.where(known, numbered.instead[combination], combination)

    def holders(self) -> Holders:
        """The profile that each combination's first identifier was first attached to."""
        names, spots = self.profile_ids, np.full(self.numbered.size + 1, NONE, np.int32)
        new = np.flatnonzero(self.outcome.place[: self.numbered.size] != NONE)
        spots[new] = self.outcome.attached[new]
        if self.touched.held is not None:
            held = self.touched.held
            spots[held.column("id").to_numpy()] = len(names) + np.arange(held.num_rows)
            names = pa.concat_arrays([names, *held.column("profile_id").chunks])
        return Holders(spots[self.numbered.first()], names)


def name_profiles(
    session: Session,
    space_id: str,
    collection: str,
    numbered: Numbered,
    touched: Touched,
    found: Outcome,
    places: Places,
    taken: frozenset[Identifier] = frozenset(),
) -> Resolved:
    """Give the new profiles their ids; the message's goes in where the id was `taken` before."""
    nothing = np.empty(0, np.int64)
    done = Resolved(collection, numbered, touched, found, places, touched.profile_ids,
                    (nothing, nothing))  # fmt: skip
    creators = numbered.first()[done.reading(found.created)]
    rows = pa.array(creators)
    kinds = numbered.types().take(rows) if len(creators) else pa.array([], pa.string())
    named = pa.table({"number": pa.array(np.arange(len(creators))), "type": kinds,
                      "value": numbered.values.take(rows)})  # fmt: skip
    new_ids = _new_ids(named, places.take("message_id", found.created), collection, taken)
    session.register("creators", named.append_column("message_id", new_ids))
    made = session.fetch(_PROFILE_IDS, [space_id, collection])
    done.profile_ids = pa.concat_arrays([touched.profile_ids, *made.column("profile_id").chunks])
    done.halves = keys.halves(done.profile_ids)
    return done


def _new_ids(
    named: pa.Table, message_ids: pa.ChunkedArray, collection: str, taken: frozenset[Identifier]
) -> pa.Array:
    """The message ids of those creators whose profile id was taken before; null for others."""
    if not taken:
        return pa.nulls(named.num_rows, pa.string())
    values = pa.array(sorted({value for _, _, value in taken}), pa.string())
    may_be = np.asarray(pc.is_in(named.column("value"), value_set=values))
    kept = np.zeros(named.num_rows, bool)
    for row in named.filter(pa.array(may_be)).to_pylist():
        kept[row["number"]] = (collection, row["type"], row["value"]) in taken
    return pc.if_else(pa.array(kept), message_ids, None)


@dataclass(frozen=True)
class Rows:
    """Rows of a table, made piece by piece as they are written: whole, they would fill memory."""

    count: int
    make: Callable[[slice], pa.Table]


def stream(parts: Sequence[Rows]) -> pa.RecordBatchReader:
    """The rows of all parts, one after the other."""
    schema = parts[0].make(slice(0, 0)).schema
    pieces = (
        part.make(slice(start, start + _PIECE))
        for part in parts
        for start in range(0, part.count, _PIECE)
    )
    batches = (batch for piece in pieces for batch in piece.cast(schema).to_batches())
    return pa.RecordBatchReader.from_batches(schema, batches)


def tables(done: Resolved, rules: IdentityRules, *, load_id: int) -> dict[str, Rows]:
    """The rows that the graph's tables would gain."""
    found, numbered, places = done.outcome, done.numbered, done.places
    profile_ids, types = done.profile_ids, pa.array(numbered.kinds, pa.string())
    attached = np.flatnonzero(found.place[: numbered.size] != NONE)

    def table(count: int, **columns: Any) -> pa.Table:
        collection = pa.repeat(pa.scalar(done.collection), count)
        load = pa.repeat(pa.scalar(load_id, pa.int64()), count)
        return pa.table({"collection": collection, **columns, "load_id": load})

    def profiles(piece: slice) -> pa.Table:
        created = found.created[piece]
        numbers = found.existing + piece.start + np.arange(len(created))
        return table(
            len(created),
            profile_id=profile_ids.take(pa.array(numbers)),
            created_at=_instants(places, created),
            first_message_id=places.take("message_id", created),
            **_narrow("profile", done.halves, numbers),
        )

    def identifiers(piece: slice) -> pa.Table:
        ids = attached[piece]
        profile, where = found.attached[ids], found.place[ids]
        return table(
            len(ids),
            type=types.take(pa.array(numbered.kind_of[ids])),
            value=numbered.values.take(pa.array(ids)),
            profile_id=profile_ids.take(pa.array(profile)),
            first_seen_at=_instants(places, where),
            first_message_id=places.take("message_id", where),
            source_id=places.take("source_id", where),
            **_narrow("key", numbered.keys, ids),
            **_narrow("profile", done.halves, profile),
        )

    def merges(piece: slice) -> pa.Table:
        parents, children, where, kept = found.merges[piece].T
        return table(
            len(where),
            parent_id=profile_ids.take(pa.array(parents)),
            child_id=profile_ids.take(pa.array(children)),
            merged_at=_instants(places, where),
            message_id=places.take("message_id", where),
            identifiers=_identifier_lists(numbered, done.reading(where), kept),
            **_narrow("parent", done.halves, parents),
            **_narrow("child", done.halves, children),
        )

    left_out = _left_out(done, rules)

    def dropped(piece: slice) -> pa.Table:
        where, ids, why, apart = (column[piece] for column in left_out)
        return table(
            len(where),
            message_id=places.take("message_id", where),
            received_at=_instants(places, where),
            type=types.take(pa.array(numbered.kind_of[ids])),
            value=numbered.values.take(pa.array(ids)),
            limit_broken=why,
            profiles_apart=apart,
        )

    return {
        "profiles": Rows(len(found.created), profiles),
        "identifiers": Rows(len(attached), identifiers),
        "merges": Rows(len(found.merges), merges),
        "dropped_identifiers": Rows(len(left_out[0]), dropped),
    }


def left_out_counts(done: Resolved, rules: IdentityRules) -> Counter[str]:
    """How many identifiers were left out of messages, by why."""
    entries = _left_out(done, rules)[2].value_counts().to_pylist()
    return Counter({entry["values"]: entry["counts"] for entry in entries})


def _left_out(done: Resolved, rules: IdentityRules) -> tuple[Ints, Ints, pa.Array, pa.Array]:
    """Identifiers that a message lost: its place, the identifier, why, the profiles kept apart."""
    found, (where_apart, detached) = done.outcome, _detached(done)
    where, removed, broken, ends = found.drops.T
    texts = pa.array(broken_texts(done.numbered.kinds, rules), pa.string())
    none = len(detached)
    return (
        np.concatenate([where, where_apart]),
        np.concatenate([removed, detached]),
        pa.concat_arrays([texts.take(pa.array(broken)), pa.repeat(pa.scalar(DETACHED), none)]),
        pa.concat_arrays(
            [
                _profile_lists(done.profile_ids, found.apart, ends).cast(pa.string()),
                pa.repeat(pa.scalar("[]"), none),
            ]
        ),
    )


def _narrow(name: str, halves: tuple[Ints, Ints], rows: Ints) -> dict[str, Ints]:
    """The columns that stand for a text, for these rows of its halves."""
    high, low = halves
    return {f"{name}_high": high[rows], f"{name}_low": low[rows]}


def _detached(done: Resolved) -> tuple[Ints, Ints]:
    """Where a recorded fact left which identifier out: places, and identifiers."""
    pairs = done.numbered.detached
    if not len(pairs):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    places = np.flatnonzero(np.isin(done.places.combination, _readable(done, pairs[:, 0])))
    read = done.reading(places)
    starts = np.searchsorted(pairs[:, 0], read, "left")
    counts = np.searchsorted(pairs[:, 0], read, "right") - starts
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.repeat(places, counts), pairs[np.repeat(starts, counts) + offsets, 1]


def _readable(done: Resolved, combinations: Ints) -> Ints:
    """The combinations that messages have, of these and of the second readings among them."""
    instead = done.numbered.instead
    if not instead.size:
        return combinations
    return np.concatenate([combinations, np.flatnonzero(np.isin(instead, combinations))])


def _instants(places: Places, rows: Ints) -> pa.Array:
    return pa.array(places.at[rows]).cast(INSTANT)


def _identifier_lists(numbered: Numbered, combination: Ints, kept: Ints) -> pa.Array:
    """`[{"type": ..., "id": ...}, ...]` of the first identifiers of combinations, as JSON."""
    ends = np.cumsum(kept, dtype=np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), ends])
    total = int(offsets[-1])
    spots = np.arange(total) - np.repeat(offsets[:-1], kept)
    ids = numbered.members[np.repeat(numbered.offsets[combination], kept) + spots]
    used, inverse = np.unique(ids, return_inverse=True)
    heads = pa.array([f'{{"type":{_json(kind)},"id":' for kind in numbered.kinds], pa.string())
    kinds = heads.take(pa.array(numbered.kind_of[used]))
    values = _quoted(numbered.values.take(pa.array(used)))
    texts = pc.binary_join_element_wise(kinds, values, "}", "")
    return _lists(texts.take(pa.array(inverse)), offsets)


def _profile_lists(profile_ids: pa.Array, apart: Ints, ends: Ints) -> pa.Array:
    offsets = np.concatenate([np.zeros(1, np.int64), ends.astype(np.int64)])
    return _lists(_quoted(profile_ids.take(pa.array(apart))), offsets)


def _lists(texts: pa.Array, offsets: Ints) -> pa.Array:
    lists = pa.LargeListArray.from_arrays(pa.array(offsets), texts)
    return pc.binary_join_element_wise("[", pc.binary_join(lists, ","), "]", "")


def _quoted(values: pa.Array) -> pa.Array:
    quoted = pc.binary_join_element_wise('"', values, '"', "")
    special = pc.match_substring_regex(values, _SPECIAL)
    if not pc.any(special).as_py():
        return quoted
    texts = [_json(value) for value in values.filter(special).to_pylist()]
    return pc.replace_with_mask(quoted, special, pa.array(texts, pa.string()))


def _json(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def hubs(done: Resolved, rules: IdentityRules) -> list[dict[str, Any]]:
    """Identifiers that were named beside more than `hub_degree` others of higher priority.

    Without those that a person allowed.
    """
    numbered, degree = done.numbered, rules.hub_degree
    first = numbered.first()
    follows = np.ones(len(numbered.members), bool)
    follows[numbered.offsets[:-1][first != NONE]] = False
    members = numbered.members[follows]
    often = np.bincount(members, minlength=numbered.size) > degree
    if not often.any():
        return []
    beside = np.repeat(first, np.diff(numbered.offsets))[follows]
    pairs = np.unique(np.stack([members, beside])[:, often[members]], axis=1)
    ids, degrees = np.unique(pairs[0], return_counts=True)
    rows = [
        {"type": numbered.kinds[numbered.kind_of[i]], "value": numbered.values[int(i)].as_py(),
         "degree": int(n)}
        for i, n in zip(ids, degrees, strict=True)
        if n > degree
    ]  # fmt: skip
    allowed = rules.facts.allowed
    rows = [row for row in rows if (done.collection, row["type"], row["value"]) not in allowed]
    rows.sort(key=lambda row: (-row["degree"], row["type"], row["value"]))
    return rows[:_HUBS_SHOWN]
