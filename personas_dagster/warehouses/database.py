"""A database behind a SQLAlchemy URL: one query, read only, streamed as Arrow batches.

What belongs here: connecting, reading, and the border at which the errors of SQLAlchemy and of
drivers become `WarehouseError` without the password. What does not: what a result must hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from typing import Any
from urllib.parse import quote, quote_plus

import pyarrow as pa
import sqlalchemy as sa
from pydantic import SecretStr
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from personas_dagster.errors import PersonasError, WarehouseError
from personas_dagster.lake.tables import INSTANT
from personas_dagster.warehouses.columns import to_arrow, type_of

BATCH_ROWS = 10_000
_LOOK_AHEAD = 10
_DRIVERS = {"postgresql": "postgresql+psycopg", "postgres": "postgresql+psycopg"}
_EXTRAS = {"postgresql": "personas-dagster[postgres]"}
_SECRET = re.compile(r"pass|pwd|secret|token|key|credential|odbc_connect", re.IGNORECASE)
_ODBC_PASSWORD = re.compile(r"(?:pwd|password)\s*=\s*([^;]+)", re.IGNORECASE)
# How a database is told that nothing may be written. PostgreSQL has an option of its own.
_READ_ONLY = {
    "sqlite": "PRAGMA query_only=ON",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
    "oracle": "SET TRANSACTION READ ONLY",
}
# PostgreSQL's numbers for types, for columns whose first rows are all null.
_POSTGRES_TYPES = {
    16: pa.bool_(),
    **dict.fromkeys((20, 21, 23), pa.int64()),
    **dict.fromkeys((700, 701, 1700), pa.float64()),
    **dict.fromkeys((18, 19, 25, 1042, 1043, 2950), pa.string()),
    1082: pa.date32(),
    **dict.fromkeys((1114, 1184), INSTANT),
}


def open_warehouse(url: SecretStr | str) -> Warehouse:
    """The database of a SQLAlchemy URL. Nothing connects before `stream`.

    `postgresql://` uses psycopg. A missing driver is a WarehouseError that says what to install.
    """
    written = url.get_secret_value() if isinstance(url, SecretStr) else url
    try:
        parsed = sa.make_url(written)
    except (ArgumentError, ValueError):  # their texts may hold parts of the URL
        raise WarehouseError(
            "the warehouse's URL cannot be read; expected dialect://user:password@host/database"
        ) from None
    if parsed.password is not None and written.partition("?")[0].count("@") > 1:
        raise WarehouseError(
            "the warehouse's URL holds more than one @; write those of the password as %40"
        )
    parsed = parsed.set(drivername=_DRIVERS.get(parsed.drivername, parsed.drivername))
    return Warehouse(parsed)


class Warehouse:
    """A database to read from. Its password appears in no error and no `repr`."""

    def __init__(self, url: sa.URL) -> None:
        self._dialect = url.get_backend_name()
        self._name = f"warehouse {self._dialect}" + (f" at {url.host}" if url.host else "")
        self._secrets = _secrets(url)
        self._engine = self._create(_read_only_url(url))

    def __repr__(self) -> str:
        return f"<{self._name}>"

    def _create(self, url: sa.URL) -> sa.Engine:
        try:
            return sa.create_engine(url, poolclass=NullPool, hide_parameters=True)
        except NoSuchModuleError:
            raise WarehouseError(
                f"no SQLAlchemy dialect is installed for {url.drivername}://; install the "
                "package that brings it, or mend the URL"
            ) from None
        except ImportError as error:
            package = _EXTRAS.get(self._dialect) or error.name or url.get_driver_name()
            raise WarehouseError(
                f"the driver for {url.drivername}:// is not installed; pip install {package}"
            ) from None
        except Exception as error:
            raise self._foreign(error) from None

    @contextmanager
    def stream(self, query: str) -> Iterator[pa.RecordBatchReader]:
        """The query's result in batches, from a server-side cursor in a read-only transaction."""
        with self._border():
            connection = self._engine.connect()
        try:
            with self._border():
                result = self._execute(connection, query)
            schema, batches = self._typed(result)
            yield pa.RecordBatchReader.from_batches(schema, batches)
        finally:
            with suppress(SQLAlchemyError):  # nothing was written, so nothing can be lost
                connection.close()

    def _execute(self, connection: sa.Connection, query: str) -> sa.CursorResult[Any]:
        if self._dialect == "postgresql":
            connection = connection.execution_options(postgresql_readonly=True)
        if statement := _READ_ONLY.get(self._dialect):
            connection.exec_driver_sql(statement)
        # The driver gets the text as it is written: neither `:name` nor `%` means anything.
        options = {"stream_results": True, "yield_per": BATCH_ROWS, "no_parameters": True}
        result = connection.exec_driver_sql(query, execution_options=options)
        if not result.returns_rows:
            raise WarehouseError(f"{self._name}: the query returns no rows; write a SELECT")
        return result

    def _typed(self, result: sa.CursorResult[Any]) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
        """The result's schema, settled by looking ahead, and all its batches."""
        names, types = list(result.keys()), self._declared(result)
        source, ahead = self._columns(result), []
        for columns in source:
            ahead.append(columns)
            for at, values in enumerate(columns):
                if types[at] is None or len(ahead) == 1:
                    types[at] = type_of(names[at], values) or types[at]
            if None not in types or len(ahead) == _LOOK_AHEAD:
                break
        schema = pa.schema([(n, kind or pa.string()) for n, kind in zip(names, types, strict=True)])
        return schema, _batches(schema, chain(ahead, source))

    def _declared(self, result: sa.CursorResult[Any]) -> list[pa.DataType | None]:
        description: Sequence[Any] = getattr(result.cursor, "description", None) or ()
        known = _POSTGRES_TYPES if self._dialect == "postgresql" else {}
        return [known.get(column[1]) for column in description]

    def _columns(self, result: sa.CursorResult[Any]) -> Iterator[list[tuple[Any, ...]]]:
        while True:
            with self._border():
                rows = result.fetchmany(BATCH_ROWS)
            if not rows:
                return
            yield list(zip(*rows, strict=True))

    @contextmanager
    def _border(self) -> Iterator[None]:
        """Only foreign code runs inside: whatever it raises leaves as a WarehouseError."""
        try:
            yield
        except PersonasError:
            raise
        except Exception as error:
            raise self._foreign(error) from None

    def _foreign(self, error: Exception) -> WarehouseError:
        cause = getattr(error, "orig", None) or error
        text = " ".join(str(cause).split())[:500] or type(cause).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return WarehouseError(
            f"{self._name} did not answer the query: {text}; check the query, the URL and the "
            "rights of its user"
        )


def _batches(
    schema: pa.Schema, source: Iterator[list[tuple[Any, ...]]]
) -> Iterator[pa.RecordBatch]:
    for columns in source:
        arrays = [
            to_arrow(field.name, values, field.type)
            for field, values in zip(schema, columns, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _read_only_url(url: sa.URL) -> sa.URL:
    """SQLite files are opened `mode=ro`, so that a wrong path makes no empty database."""
    plain = url.database and not url.database.startswith(("file:", ":memory:"))
    if url.get_backend_name() != "sqlite" or not plain:
        return url
    query = {**url.query, "mode": "ro", "uri": "true"}
    return url.set(database=f"file:{quote(str(url.database))}", query=query)


def _secrets(url: sa.URL) -> list[str]:
    """What must not be shown, as it is and as URLs spell it; the longest first."""
    values = [str(url.password or "")]
    for name, value in url.query.items():
        if _SECRET.search(name):
            values.extend([value] if isinstance(value, str) else value)
    values.extend(found for value in list(values) for found in _ODBC_PASSWORD.findall(value))
    spelled = {spelling for v in values for spelling in (v, quote(v), quote(v, ""), quote_plus(v))}
    return sorted(spelled - {""}, key=len, reverse=True)
