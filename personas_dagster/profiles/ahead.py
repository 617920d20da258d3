"""Pages of an SQLite file read ahead of a change that goes to them.

A change goes to pages all over the file, one after the other, and waits for the disk at each.
Here some readers ask for the same rows side by side, so that the system has the pages in memory
when the change comes to them. What is found does not matter, nor whether it is found in time.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pyarrow as pa

_READERS = 8
_ASKED = 1_000  # rows a query
_WAITING = 400  # queries; where more wait, the change is not behind but ahead
_ON_A_PAGE = 12  # rows of `profiles`, at most
_BY_PLACE = (
    "SELECT count((SELECT 1 FROM {} t WHERE t.{} = json_extract(j.value, '$[0]') "
    "AND t.profile_id = json_extract(j.value, '$[1]') LIMIT 1)) FROM json_each(:keys) j"
)
QUERIES = {  # by table of `tables.STAGED`: columns of it, and how many of their rows are there
    # Their rows grow, and new ones come between: a full page takes its neighbours' room.
    "new_profiles": (
        ("profile_id",),
        "SELECT count((SELECT 1 FROM profiles t WHERE t.profile_id = j.value LIMIT 1)) "
        "FROM json_each(:keys) j WHERE (SELECT count(*) FROM "
        "(SELECT 1 FROM profiles t WHERE t.profile_id >= j.value "
        f"ORDER BY t.profile_id LIMIT {_ON_A_PAGE})) + (SELECT count(*) FROM (SELECT 1 "
        "FROM profiles t WHERE t.profile_id < j.value ORDER BY t.profile_id DESC "
        f"LIMIT {_ON_A_PAGE})) >= 0",
    ),
    "new_trait_changes": (("lane", "profile_id"), _BY_PLACE.format("trait_changes", "lane")),
    "new_events": (("part", "profile_id"), _BY_PLACE.format("events", "part")),
    "new_identifiers": (
        ("type", "value", "collection"),
        "SELECT count((SELECT 1 FROM identifiers t WHERE t.type = json_extract(j.value, '$[0]') "
        "AND t.value = json_extract(j.value, '$[1]') "
        "AND t.collection = json_extract(j.value, '$[2]'))) FROM json_each(:keys) j",
    ),
}


class Ahead:
    """Readers of the file that `connect` opens, each in a thread of its own."""

    def __init__(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._connect = connect
        self._pool = ThreadPoolExecutor(_READERS, "profile-store-ahead")
        self._local = threading.local()
        self._room = threading.Semaphore(_WAITING)
        self._opened: list[sqlite3.Connection] = []
        self.tables: set[str] = set()

    def read(self, table: str, rows: pa.RecordBatch) -> None:
        """Ask for what rows of a table of `tables.STAGED` go to; returns at once."""
        if table not in QUERIES:
            return
        self.tables.add(table)
        names, query = QUERIES[table]
        columns = [rows.column(name).to_pylist() for name in names]
        keys = columns[0] if len(names) == 1 else list(zip(*columns, strict=True))
        for start in range(0, len(keys), _ASKED):
            if self._room.acquire(blocking=False):
                self._pool.submit(self._ask, query, keys[start : start + _ASKED])

    def _ask(self, query: str, keys: Sequence[object]) -> None:
        self._room.release()
        # Whatever is wrong with the file, the change meets it too, and says so.
        with suppress(sqlite3.Error):
            reader = getattr(self._local, "reader", None)
            if reader is None:
                reader = self._local.reader = self._connect()
                self._opened.append(reader)
                reader.execute("PRAGMA cache_size = -8192")  # the system's memory is what counts
            reader.execute(query, {"keys": json.dumps(keys)}).fetchone()

    def close(self) -> None:
        """Stop reading; what was not asked yet is left."""
        self._pool.shutdown(cancel_futures=True)
        for reader in self._opened:
            reader.close()
