"""The profile store in SQLite: a file of its own, in WAL mode, beside the state database.

A fill writes a new file without a journal and then points `current` to it: readers go on with
the old one until then. A change is one transaction on the file that `current` names. What it wrote
stays in the journal beside the file, where readers find it: the next change's process moves it into
the file, while other work is done (`get_ready`).
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from personas_dagster.errors import StateUnavailable
from personas_dagster.profiles import tables
from personas_dagster.profiles.ahead import Ahead
from personas_dagster.profiles.store import Held

_BUSY_SECONDS = 30.0
_CACHE_KIB = 65_536
# Rows come in order, so a page is done with when it leaves: more would only be written at the end.
_WRITING_KIB = 131_072
_SUFFIXES = ("", "-wal", "-shm")

# Counting the rows themselves reads gigabytes, so the database keeps the count.
_COUNTING = (
    "CREATE TABLE row_counts (name TEXT PRIMARY KEY, n INTEGER NOT NULL) WITHOUT ROWID",
    *(
        statement
        for table in tables.COUNTED
        for statement in (
            f"INSERT INTO row_counts SELECT '{table}', count(*) FROM {table}",
            *(
                f"CREATE TRIGGER {table}_{event} AFTER {event} ON {table} BEGIN "
                f"UPDATE row_counts SET n = n {change} WHERE name = '{table}'; END"
                for event, change in (("INSERT", "+ 1"), ("DELETE", "- 1"))
            ),
        )
    ),
)


class _Joined:
    """`string_agg`, which SQLite has from 3.44 on."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._between = ""

    def step(self, part: str, between: str, /) -> None:
        self._parts.append(part)
        self._between = between

    def finalize(self) -> str:
        return self._between.join(self._parts)


class SqliteStore:
    """Files in `folder`: `current` holds the name of the one that is read."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pointer = folder / "current"
        self._local = threading.local()
        self._ahead: Ahead | None = None

    # Reading

    def held(self) -> Held | None:
        if not (self._pointer.exists() and self._current().exists()):
            return None  # not filled, or taken away: a refresh makes it again
        rows = self.rows("SELECT facts FROM held", {})
        return Held.read(rows[0][0]) if rows else None

    def rows(self, query: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        try:
            found: list[Sequence[Any]] = self._reader().execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        return found

    def _reader(self) -> sqlite3.Connection:
        """This thread's connection to the current file."""
        try:
            stamp = self._pointer.stat()
        except FileNotFoundError:
            raise StateUnavailable(
                f"profile store {self.folder} was not filled yet; run a refresh"
            ) from None
        mark = (stamp.st_ino, stamp.st_mtime_ns)
        if getattr(self._local, "mark", None) != mark:
            self._close_reader()
            self._local.reader = self._connect(self._current(), to_read=True)
            self._local.mark = mark
        reader: sqlite3.Connection = self._local.reader
        return reader

    def close(self) -> None:
        self._close_reader()
        self._look_no_more()

    def _close_reader(self) -> None:
        reader = getattr(self._local, "reader", None)
        if reader is not None:
            reader.close()
            self._local.reader = self._local.mark = None

    def _current(self) -> Path:
        return self.folder / self._pointer.read_text(encoding="utf-8")

    def _connect(self, path: Path, *, to_read: bool = False) -> sqlite3.Connection:
        if not path.exists():
            raise StateUnavailable(f"profile store {path} is missing; run a refresh")
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={'ro' if to_read else 'rw'}",
            uri=True,
            timeout=_BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        connection.execute("PRAGMA mmap_size = 268435456")
        return connection

    def _unavailable(self, error: sqlite3.Error) -> StateUnavailable:
        return StateUnavailable(
            f"profile store {self.folder}: {error}; end the process that holds it, or remove the "
            "folder: the next refresh makes it again"
        )

    # Writing

    def get_ready(self) -> None:
        # A thread that may be cut short: what it leaves in the journal, the next one moves.
        threading.Thread(target=self._settle, name="profile-store-journal", daemon=True).start()

    def _settle(self) -> None:
        """Move what the last change wrote from the journal into the file."""
        # Whatever is wrong with the file, the change meets it too, and says so.
        with suppress(sqlite3.Error, OSError, StateUnavailable):
            connection = self._connect(self._current())
            try:
                connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
            finally:
                connection.close()

    def expect(self, table: str, rows: pa.RecordBatch) -> None:
        with suppress(OSError):
            self._looking().read(table, rows)

    def _looking(self) -> Ahead:
        if self._ahead is None:
            path = self._current()
            self._ahead = Ahead(lambda: self._connect(path, to_read=True))
        return self._ahead

    def _look_no_more(self) -> None:
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    @contextmanager
    def fill(self) -> Iterator[_SqliteWriter]:
        self._look_no_more()  # it would keep the old file
        self.folder.mkdir(parents=True, exist_ok=True)
        older = self._files()
        number = max((int(path.stem) for path in older), default=0) + 1
        path, partial = self.folder / f"{number}.db", self.folder / f"{number}.part"
        _remove(partial)
        connection = sqlite3.connect(partial, isolation_level=None, check_same_thread=False)
        try:
            for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE"):
                connection.execute(f"PRAGMA {pragma}")
            connection.execute(f"PRAGMA cache_size = -{_WRITING_KIB}")
            connection.execute("BEGIN")
            for name, columns in tables.TABLES.items():
                ending = " WITHOUT ROWID" if name in tables.CLUSTERED else ""
                connection.execute(f"CREATE TABLE {name} ({columns}){ending}")
            yield _SqliteWriter(connection)
            for statement in _COUNTING:
                connection.execute(statement)
            connection.execute("COMMIT")
            connection.execute("PRAGMA locking_mode = NORMAL")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.close()
            _sync(partial)
            partial.replace(path)
            self._point_to(path)
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        finally:
            connection.close()
            _remove(partial)
        for old in older:
            _remove(old)

    def _files(self) -> list[Path]:
        return [path for path in self.folder.glob("*.db") if path.stem.isdigit()]

    def _point_to(self, path: Path) -> None:
        fresh = self._pointer.with_suffix(".part")
        fresh.write_text(path.name, encoding="utf-8")
        _sync(fresh)
        fresh.replace(self._pointer)
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    @contextmanager
    def change(self) -> Iterator[_SqliteWriter]:
        path = self._current()
        connection = self._connect(path)
        try:
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute("PRAGMA secure_delete = ON")  # not every build has it so
            connection.execute(f"PRAGMA cache_size = -{_WRITING_KIB}")
            connection.execute("PRAGMA wal_autocheckpoint = 0")  # see `get_ready`
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.create_aggregate("string_agg", 2, _Joined)  # type: ignore[arg-type]
            for name, columns in tables.STAGED.items():
                connection.execute(f"CREATE TEMP TABLE {name} ({columns})")
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield _SqliteWriter(connection, self._looking())
            except BaseException:
                if connection.in_transaction:  # a full disk has ended it already
                    connection.execute("ROLLBACK")
                raise
            finally:
                self._look_no_more()
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unavailable(error) from error
        finally:
            self._close_writer(connection, path)

    def _close_writer(self, connection: sqlite3.Connection, path: Path) -> None:
        """Close it before another: the last one moves the journal, unless it can only read."""
        with suppress(sqlite3.Error, StateUnavailable):
            last = self._connect(path, to_read=True)
            last.execute("SELECT 1 FROM held").fetchone()
            connection.close()
            last.close()
        connection.close()


class _SqliteWriter:
    def __init__(self, connection: sqlite3.Connection, ahead: Ahead | None = None) -> None:
        self._connection = connection
        self._ahead = ahead
        self._told = frozenset(ahead.tables) if ahead else frozenset()

    def expect(self, table: str, rows: pa.RecordBatch) -> None:
        if self._ahead and table not in self._told:
            self._ahead.read(table, rows)

    def copy(self, table: str, rows: pa.RecordBatchReader) -> int:
        count, marks = 0, ", ".join("?" * len(rows.schema))
        statement = f"INSERT OR IGNORE INTO {table} VALUES ({marks})"
        if table in tables.TAKEN:  # rows that were staged would be written twice
            target, conflict = tables.TAKEN[table]
            columns = tables.staged_columns(table)
            statement = f"INSERT INTO {target} ({columns}) VALUES ({marks}) {conflict}"
        for batch in rows:
            columns_of = (column.to_pylist() for column in batch.columns)
            self._connection.executemany(statement, zip(*columns_of, strict=True))
            count += batch.num_rows
        return count

    def run(self, statement: str, parameters: Mapping[str, Any] | None = None) -> None:
        self._connection.execute(statement, parameters or {})

    def counts(self) -> Mapping[str, int]:
        return dict(self._connection.execute("SELECT name, n FROM row_counts").fetchall())

    def held(self) -> Held | None:
        row = self._connection.execute("SELECT facts FROM held").fetchone()
        return Held.read(row[0]) if row else None

    def hold(self, held: Held) -> None:
        self._connection.execute("DELETE FROM held")
        facts = [held.text(), held.events_since]
        self._connection.execute("INSERT INTO held VALUES (?, ?)", facts)


def _remove(path: Path) -> None:
    for suffix in _SUFFIXES:
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).unlink()


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
