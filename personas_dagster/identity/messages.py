"""A load's messages, as far as resolution needs them: distinct combinations of identifiers.

Each combination is there with its first message; `take_all` adds the other messages of those
combinations for which the first does not stand for all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from personas_dagster.identity.extract import KEY, combinations, others_of, prepare_extraction
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.interfaces import Session

Ints = npt.NDArray[Any]

_READ = """
SELECT {key}, count(*) AS messages,
       min({{'at': epoch_us(received_at), 'message_id': message_id, 'source_id': source_id}})
           AS first
FROM (SELECT {columns}, received_at, message_id, source_id
      FROM raw_events WHERE load_id > $1 AND load_id <= $2)
GROUP BY {key} ORDER BY min(epoch_us(received_at))
"""
_LAST = """
SELECT w.combination, max({{'at': epoch_us(received_at), 'message_id': message_id}}) AS last
FROM (SELECT {columns}, received_at, message_id
      FROM raw_events WHERE load_id > $1 AND load_id <= $2) r
JOIN wanted w ON {same}
GROUP BY w.combination ORDER BY w.combination
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


class Places:
    """Messages in the order of resolution: a place is a position in it."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._order = _in_order(table)
        self.combination: Ints = self._sorted("combination")
        self.at: Ints = self._sorted("at")

    def _sorted(self, name: str) -> Ints:
        found: Ints = self.table.column(name).to_numpy()[self._order]
        return found

    def take(self, name: str, places: Ints) -> pa.ChunkedArray:
        return self.table.column(name).take(pa.array(self._order[places]))


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
        self.places = Places(self._first())

    def _first(self) -> pa.Table:
        first = _only(self.keys.column("first"))
        empty = pa.nulls(self.combinations, pa.int64())
        numbers = pa.array(np.arange(self.combinations))
        columns = [numbers, *(first.field(i) for i in range(3)), empty, empty]
        return pa.Table.from_arrays(columns, schema=_MESSAGE)

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
        found = self._fetch(session, _ALL, np.flatnonzero(new))
        table = self.places.table
        rest = table.filter(pa.array(~new[table.column("combination").to_numpy()]))
        self.places = Places(pa.concat_tables([rest, found.cast(_MESSAGE)]).combine_chunks())
        self._whole |= new
        return True

    def last(self, session: Session, wanted: Ints) -> pa.StructArray:
        """The last message of each of these combinations (in ascending order)."""
        return _only(self._fetch(session, _LAST, wanted).column("last"))

    def _fetch(self, session: Session, query: str, wanted: Ints) -> pa.Table:
        keys = self.keys.select(list(KEY)).take(pa.array(wanted))
        session.register("wanted", keys.append_column("combination", pa.array(wanted)))
        same = " AND ".join(f"w.{name} IS NOT DISTINCT FROM r.{name}" for name in KEY)
        return session.fetch(query.format(columns=self._columns, same=same), self._span)


def _only(column: pa.ChunkedArray) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _in_order(table: pa.Table) -> Ints:
    """The rows by (at, message_id); texts are compared only where instants are equal."""
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
    return order
