"""The profile store in PostgreSQL: a schema in the database of the space's state.

A fill makes a second schema and renames it at its end; a change is one transaction. Rows go in
by COPY.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.csv
import sqlalchemy as sa
from psycopg import sql

from personas_dagster.errors import StateUnavailable
from personas_dagster.profiles import tables
from personas_dagster.profiles.store import Held

_SCHEMA, _NEXT = "personas_profiles", "personas_profiles_next"
_CSV = pyarrow.csv.WriteOptions(include_header=False, quoting_style="all_valid")
_HAS = "SELECT 1 FROM pg_namespace WHERE nspname = %s"


class PostgresStore:
    """The schema `personas_profiles` of the database at `url`."""

    def __init__(self, url: sa.URL) -> None:
        self._shown = url.render_as_string(hide_password=True)
        self._conninfo = url.set(drivername="postgresql").render_as_string(hide_password=False)
        self._pool = sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            isolation_level="AUTOCOMMIT",
            connect_args={"options": f"-c search_path={_SCHEMA}"},
            pool_size=10,
            max_overflow=30,
        )

    # Reading

    def held(self) -> Held | None:
        try:
            with self._connection(_SCHEMA) as connection:
                if connection.execute(_HAS, [_SCHEMA]).fetchone() is None:
                    return None
                return _Writer(connection).held()
        except psycopg.Error as error:
            raise self._unavailable(error) from error

    def rows(self, query: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        try:
            raw = self._pool.raw_connection()
            try:
                return list(raw.cursor().execute(_marked(query), parameters).fetchall())
            except psycopg.errors.UndefinedTable:
                raise StateUnavailable(
                    f"profile store {self._shown} was not filled yet; run a refresh"
                ) from None
            except psycopg.OperationalError:
                raw.invalidate()  # the server went away: the next request connects anew
                raise
            finally:
                raw.close()
        except (psycopg.Error, sa.exc.DBAPIError) as error:
            raise self._unavailable(error) from error

    def close(self) -> None:
        self._pool.dispose()

    def _unavailable(self, error: Exception) -> StateUnavailable:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return StateUnavailable(
            f"profile store {self._shown}: {reason}; check that the server is up"
        )

    @contextmanager
    def _connection(self, schema: str) -> Iterator[psycopg.Connection[tuple[Any, ...]]]:
        """One transaction in which tables are those of a schema."""
        with psycopg.connect(self._conninfo) as connection:
            path = sql.SQL("SET search_path TO {}").format(sql.Identifier(schema))
            connection.execute(path)
            yield connection

    # Writing

    def get_ready(self) -> None:
        """The server does by itself what a change would wait for."""

    def expect(self, table: str, rows: pa.RecordBatch) -> None:
        """The server reads many pages at once by itself."""

    @contextmanager
    def fill(self) -> Iterator[_Writer]:
        try:
            with self._connection(_NEXT) as connection:
                connection.execute(f"DROP SCHEMA IF EXISTS {_NEXT} CASCADE")
                connection.execute(f"CREATE SCHEMA {_NEXT}")
                keys = []
                for name, columns in tables.TABLES.items():
                    plain, key = _without_key(columns)
                    connection.execute(f"CREATE TABLE {name} ({_by_bytes(plain)})".encode())
                    if key and name != "events":
                        keys.append(f"ALTER TABLE {name} ADD PRIMARY KEY ({key})")
                yield _Writer(connection)
                keys.append("CREATE UNIQUE INDEX ON events (profile_id, at, message_id)")
                keys.append("CREATE INDEX ON events (part)")
                for statement in keys:
                    connection.execute(statement.encode())
                # Told that they are empty, the server would read these whole when they are not.
                filled = tables.TABLES.keys() - {"trait_changes", "folded"}
                connection.execute(f"ANALYZE {', '.join(sorted(filled))}".encode())
                connection.execute(f"DROP SCHEMA IF EXISTS {_SCHEMA} CASCADE")
                connection.execute(f"ALTER SCHEMA {_NEXT} RENAME TO {_SCHEMA}")
        except psycopg.Error as error:
            raise self._unavailable(error) from error

    @contextmanager
    def change(self) -> Iterator[_Writer]:
        try:
            with self._connection(_SCHEMA) as connection:
                for name, columns in tables.STAGED.items():
                    statement = f"CREATE TEMP TABLE {name} ({_by_bytes(columns)}) ON COMMIT DROP"
                    connection.execute(statement.encode())
                yield _Writer(connection)
        except psycopg.Error as error:
            raise self._unavailable(error) from error


class _Writer:
    def __init__(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        self._connection = connection

    def expect(self, table: str, rows: pa.RecordBatch) -> None:
        """The server reads ahead by itself."""

    def copy(self, table: str, rows: pa.RecordBatchReader) -> int:
        count = 0
        statement = sql.SQL("COPY {} FROM STDIN (FORMAT CSV)").format(sql.Identifier(table))
        with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
            for batch in rows:
                text = io.BytesIO()
                pyarrow.csv.write_csv(batch, text, _CSV)
                copy.write(text.getbuffer())
                count += batch.num_rows
        return count

    def run(self, statement: str, parameters: Mapping[str, Any] | None = None) -> None:
        self._connection.execute(_marked(statement), parameters or {})

    def counts(self) -> Mapping[str, int]:
        each = ", ".join(f"(SELECT count(*) FROM {table})" for table in tables.COUNTED)
        row = self._connection.execute(f"SELECT {each}".encode()).fetchone() or ()
        return dict(zip(tables.COUNTED, row, strict=True))

    def held(self) -> Held | None:
        row = self._connection.execute("SELECT facts FROM held").fetchone()
        return Held.read(row[0]) if row else None

    def hold(self, held: Held) -> None:
        self._connection.execute("DELETE FROM held")
        facts = [held.text(), held.events_since]
        self._connection.execute("INSERT INTO held VALUES (%s, %s)", facts)


def _marked(statement: str) -> bytes:
    """`:name` as psycopg writes it."""
    return re.sub(r"(?<!:):(\w+)", r"%(\1)s", statement).encode()


def _by_bytes(columns: str) -> str:
    """Columns whose text is compared as SQLite and the engine compare it, in any locale."""
    return columns.replace(" TEXT", ' TEXT COLLATE "C"')


def _without_key(columns: str) -> tuple[str, str]:
    """Columns without their primary key, and the key: an index is made faster over all rows."""
    inline = re.match(r"(\w+) TEXT NOT NULL PRIMARY KEY", columns)
    if inline:
        return columns.replace(" PRIMARY KEY", "", 1), inline[1]
    found = re.search(r", PRIMARY KEY \((.*?)\)$", columns)
    return (columns[: found.start()], found[1]) if found else (columns, "")
