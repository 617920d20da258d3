"""A load's messages, as far as resolution needs them: distinct combinations of identifiers.

Each combination is there with its first message; `take_all` adds the other messages of those
combinations for which the first does not stand for all.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

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
      FROM raw_events WHERE load_id > $1 AND load_id <= $2 AND {likely}) r
JOIN wanted w ON {same}
GROUP BY w.combination ORDER BY w.combination
"""
_ALL = """
SELECT w.combination, epoch_us(r.received_at) AS at, r.message_id, r.source_id, r.file_id, r.line
FROM (SELECT {columns}, received_at, message_id, source_id, file_id, line
      FROM raw_events WHERE load_id > $1 AND load_id <= $2 AND {likely}) r
JOIN wanted w ON {same}
"""
# Told by columns as they stand, before any JSON is read; an alias is known by its user_id.
_LIKELY = "coalesce(user_id, anonymous_id) IN (SELECT coalesce(user_id, anonymous_id) FROM wanted)"
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
    """Messages in the order of resolution: a place is a position in it.

    `rows` says which of the table's rows they are.
    """

    def __init__(self, table: pa.Table, rows: Ints) -> None:
        self.table = table
        self._order = _in_order(table, rows)
        self.combination: Ints = table.column("combination").to_numpy()[self._order]
        self.at: Ints = table.column("at").to_numpy()[self._order]

    @property
    def rows(self) -> Ints:
        return self._order

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
        self.keys = _in_one_piece(session.fetch(query, self._span))
        self.combinations = self.keys.num_rows
        self.counts: Ints = self.keys.column("messages").to_numpy()
        self.total = int(self.counts.sum())
        self.others = others_of(session, self.keys.column("others"))
        self._whole = np.zeros(self.combinations, bool)
        self.places = Places(self._first(), np.arange(self.combinations))

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
        before = self.places
        rest = before.rows[~new[before.combination]]
        table = pa.concat_tables([before.table, found.cast(_MESSAGE).combine_chunks()])
        rows = np.concatenate([rest, np.arange(before.table.num_rows, table.num_rows)])
        self.places = Places(table, rows)
        self._whole |= new
        return True

    def last(self, session: Session, wanted: Ints) -> pa.StructArray:
        """The last message of each of these combinations (in ascending order)."""
        return _only(self._fetch(session, _LAST, wanted).column("last"))

    def _fetch(self, session: Session, query: str, wanted: Ints) -> pa.Table:
        keys = self.keys.select(list(KEY)).take(pa.array(wanted))
        session.register("wanted", keys.append_column("combination", pa.array(wanted)))
        same = " AND ".join(f"w.{name} IS NOT DISTINCT FROM r.{name}" for name in KEY)
        named = pc.or_(
            pc.is_valid(keys.column("user_id")), pc.is_valid(keys.column("anonymous_id"))
        )
        likely = _LIKELY if pc.all(named).as_py() else "true"
        query = query.format(columns=self._columns, same=same, likely=likely)
        return session.fetch(query, self._span)


def _in_one_piece(table: pa.Table) -> pa.Table:
    """The table with one chunk per column; its own columns go one by one, to save memory."""
    names, columns = table.column_names, []
    while table.num_columns:
        column, table = table.column(0), table.remove_column(0)
        columns.append(_only(column))
        del column
    return pa.table(columns, names=names)


def _only(column: pa.ChunkedArray) -> Any:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _in_order(table: pa.Table, rows: Ints) -> Ints:
    """The rows by (at, message_id); texts are compared only where instants are equal."""
    at = table.column("at").to_numpy()[rows]
    order = rows[np.argsort(at, kind="stable")]
    at = table.column("at").to_numpy()[order]
    same = at[1:] == at[:-1]
    if same.any():
        tied = np.concatenate([same, [False]]) | np.concatenate([[False], same])
        numbers = pa.array(order[tied])
        names = table.column("message_id").take(numbers)
        ties = pa.table({"at": at[tied], "message_id": names, "row": numbers})
        ties = ties.sort_by([("at", "ascending"), ("message_id", "ascending")])
        order[tied] = ties.column("row").to_numpy()
    return order
