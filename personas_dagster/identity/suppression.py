"""Identifiers of deleted persons: kept as salted hashes, and told from the messages that name them.

A message names an identifier wherever the graph could read one: also where a limit or a rule would
leave it out, and an alias' `previousId`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from personas_dagster.identity.extract import KEY, combinations, others_of, prepare_extraction
from personas_dagster.identity.facts import Facts
from personas_dagster.identity.numbering import Numbered, number
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.interfaces import Session

ROWS = pa.schema({"file_id": pa.int64(), "line": pa.int64()})
_SEPARATOR = "\x1f"
_HASHED = """
SELECT n.id FROM known_names n
SEMI JOIN suppressed_hashes s ON s.sha256 = sha256($1 || chr(31) || n.type || chr(31) || n.value)
"""
_NAMING = """
SELECT r.file_id, r.line FROM (SELECT {columns}, file_id, line FROM {relation}) r
SEMI JOIN suppressed_keys w ON {same}
"""


@dataclass(frozen=True)
class Suppressed:
    """The suppression list of a space: `hashes` of `hash_of` with its `salt`."""

    salt: str
    hashes: frozenset[str]

    def hash_of(self, kind: str, value: str) -> str:
        """SHA-256 in lower-case hex."""
        text = _SEPARATOR.join((self.salt, kind, value))
        return hashlib.sha256(text.encode()).hexdigest()

    def of(self, identifiers: Iterable[tuple[str, str]]) -> Suppressed:
        """The same list with only these identifiers on it."""
        return replace(self, hashes=frozenset(self.hash_of(*one) for one in identifiers))


def rows_naming(
    session: Session, rules: IdentityRules, suppressed: Suppressed, relation: str
) -> pa.Table:
    """The messages of a relation (the columns of `raw_events`) that name a suppressed user
    identifier. Shape: `ROWS`."""
    if not suppressed.hashes:
        return ROWS.empty_table()
    everything = replace(rules, alias="merge", blocked={}, facts=Facts())
    read = combinations(everything)
    columns = ", ".join(f"{text} AS {name}" for name, text in read.items())
    prepare_extraction(session)
    names = ", ".join(KEY)
    keys = session.fetch(f"SELECT DISTINCT {names} FROM (SELECT {columns} FROM {relation})")
    if keys.num_rows == 0:
        return ROWS.empty_table()
    keys = keys.combine_chunks()
    others = others_of(session, keys.column("others").combine_chunks())
    numbered = number(keys, others, everything, "users")
    session.register("known_names", numbered.named())
    session.register("suppressed_hashes", pa.table({"sha256": sorted(suppressed.hashes)}))
    hits = session.fetch(_HASHED, [suppressed.salt]).column("id").to_numpy()
    wanted = _combinations_with(numbered, hits, keys.num_rows)
    session.register("suppressed_keys", keys.take(pa.array(wanted)))
    same = " AND ".join(f"w.{name} IS NOT DISTINCT FROM r.{name}" for name in KEY)
    query = _NAMING.format(columns=columns, relation=relation, same=same)
    return session.fetch(query).cast(ROWS)


def _combinations_with(
    numbered: Numbered, identifiers: np.ndarray[tuple[int], np.dtype[np.int64]], count: int
) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Which of the first `count` combinations name one of these, in either reading."""
    rows = np.repeat(np.arange(len(numbered.offsets) - 1), np.diff(numbered.offsets))
    found = np.unique(rows[np.isin(numbered.members, identifiers)])
    copies = np.flatnonzero(np.isin(numbered.instead, found)) if numbered.instead.size else found
    return np.union1d(found[found < count], copies[copies < count])
