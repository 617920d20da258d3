"""A load's messages, as far as resolution needs them: distinct combinations of identifiers.

Each combination is there with its first message; `take_all` adds the other messages of those
combinations for which the first does not stand for all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from personas_dagster.identity.extract import KEY, combinations, others_of, prepare_extraction
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.interfaces import Session

Ints = npt.NDArray[Any]

_READ = """
SELECT {key}, min({{'at': epoch_us(received_at), 'message_id': message_id,
                    'source_id': source_id}}) AS first,
       max({{'at': epoch_us(received_at), 'message_id': message_id}})
           FILTER (group_id IS NOT NULL OR others IS NOT NULL) AS last,
       count(*) AS messages
FROM (SELECT {columns}, received_at, message_id, source_id
      FROM raw_events WHERE load_id > $1 AND load_id <= $2)
GROUP BY {key}
"""
_ALL = """
SELECT w.combination, epoch_us(r.received_at) AS at, r.message_id, r.source_id, r.file_id, r.line
FROM (SELECT {columns}, received_at, message_id, source_id, file_id, line
      FROM raw_events WHERE load_id > $1 AND load_id <= $2) r
JOIN wanted w ON {same}
"""
_MESSAGE = pa.schema(
    {
        "combination": pa.int64(),
        "at": pa.int64(),
        "message_id": pa.string(),
        "source_id": pa.string(),
        "file_id": pa.int64(),
        "line": pa.int64(),
    }
)


@dataclass
class Places:
    """Messages in the order of resolution: a place is a row here."""

    table: pa.Table

    def column(self, name: str) -> Ints:
        found: Ints = self.table.column(name).to_numpy()
        return found

    def take(self, name: str, places: Ints) -> pa.ChunkedArray:
        return self.table.column(name).take(pa.array(places))


class Messages:
    """The messages of the raw loads in (after_load, through_load]."""

    def __init__(
        self, session: Session, rules: IdentityRules, *, after_load: int, through_load: int
    ) -> None:
        self._span = [after_load, through_load]
        self._columns = ", ".join(f"{sql} AS {key}" for key, sql in combinations(rules).items())
        prepare_extraction(session)
        query = _READ.format(key=", ".join(KEY), columns=self._columns)
        self.keys = session.fetch(query, self._span).combine_chunks()
        self.combinations = self.keys.num_rows
        self.counts: Ints = self.keys.column("messages").to_numpy()
        self.total = int(self.counts.sum())
        self.others = others_of(session, self.keys.column("others"))
        self._whole = np.zeros(self.combinations, bool)
        self.places = Places(_sorted(self._first()))

    def _first(self) -> pa.Table:
        first = _only(self.keys.column("first"))
        empty = pa.nulls(self.combinations, pa.int64())
        numbers = pa.array(np.arange(self.combinations))
        columns = [numbers, *(first.field(i) for i in range(3)), empty, empty]
        return pa.Table.from_arrays(columns, schema=_MESSAGE)

    def last(self) -> pa.StructArray:
        """Each combination's last message, where it may name an account."""
        return _only(self.keys.column("last"))

    def first(self) -> pa.StructArray:
        return _only(self.keys.column("first"))

    def take_all(self, session: Session, wanted: Ints, *, everything: bool = False) -> bool:
        """Have every message of these combinations; False when that was so before.

        With `everything`, if any is missing, every message of all combinations.
        """
        new = np.zeros(self.combinations, bool)
        new[wanted] = True
        new &= ~self._whole
        if not new.any():
            return False
        if everything:
            new = ~self._whole
        numbers = np.flatnonzero(new)
        wanted_keys = self.keys.select(list(KEY)).take(pa.array(numbers))
        session.register(
            "wanted", wanted_keys.append_column("combination", pa.array(numbers))
        )
        same = " AND ".join(f"w.{name} IS NOT DISTINCT FROM r.{name}" for name in KEY)
        found = session.fetch(_ALL.format(columns=self._columns, same=same), self._span)
        rest = self.places.table.filter(pa.array(~new[self.places.column("combination")]))
        self.places = Places(_sorted(pa.concat_tables([rest, found.cast(_MESSAGE)])))
        self._whole |= new
        return True


def _only(column: pa.ChunkedArray) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _sorted(table: pa.Table) -> pa.Table:
    """By (at, message_id); texts are compared only where instants are equal."""
    at = table.column("at").to_numpy()
    order = np.argsort(at, kind="stable")
    same = at[order[1:]] == at[order[:-1]]
    if same.any():
        tied = np.concatenate([same, [False]]) | np.concatenate([[False], same])
        rows = pa.array(order[tied])
        names = table.column("message_id").take(rows)
        ties = pa.table({"at": at[order[tied]], "message_id": names, "row": rows})
        ties = ties.sort_by([("at", "ascending"), ("message_id", "ascending")])
        order[tied] = ties.column("row").to_numpy()
    return table.take(pa.array(order)).combine_chunks()
