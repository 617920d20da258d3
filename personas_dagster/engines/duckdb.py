"""DuckDB, in process: the embedded engine.

Each session is a connection of its own in memory; tables of the lake are views over the file
lists of their Delta snapshots, so no DuckDB extension is needed.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import duckdb
import pyarrow as pa
from sqlglot import exp

from personas_dagster.interfaces import Data, Lake
from personas_dagster.lake.tables import TABLES

_BATCH_ROWS = 122_880


class DuckDBEngine:
    """Settings of the engine; `session` opens a connection.

    `memory_limit` is a size that DuckDB understands ("4GB"); beyond it, work spills to disk.
    """

    dialect = "duckdb"

    def __init__(self, *, threads: int | None = None, memory_limit: str | None = None) -> None:
        self.threads = threads or os.cpu_count() or 1
        self.memory_limit = memory_limit

    @contextmanager
    def session(self, lake: Lake) -> Iterator[DuckDBSession]:
        with tempfile.TemporaryDirectory(prefix="personas-spill-") as spill:
            settings: dict[str, Any] = {
                "threads": self.threads,
                "temp_directory": spill,
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
                "TimeZone": "UTC",
            }
            if self.memory_limit:
                settings["memory_limit"] = self.memory_limit
            connection = duckdb.connect(":memory:", config=settings)
            try:
                yield DuckDBSession(connection, lake)
            finally:
                connection.close()


class DuckDBSession:
    """One connection; `connection` is there for what only this engine can do."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
        self.connection = connection
        self._lake = lake

    def view(self, name: str, table: str | None = None) -> None:
        table = table or name
        spec = TABLES[table]
        files = self._lake.files(table)
        if not files:
            self.register(name, spec.schema.empty_table())
            return
        relation = self.connection.read_parquet(
            files,
            union_by_name=True,
            hive_partitioning=bool(spec.partition_by),
        )
        relation.select(
            *[duckdb.ColumnExpression(field.name) for field in spec.schema]
        ).create_view(name, replace=True)

    def register(self, name: str, data: Data) -> None:
        self.connection.register(name, data)

    def run(self, query: exp.Expr | str, parameters: Sequence[Any] | None = None) -> None:
        self.connection.execute(_text(query), parameters)

    def fetch(self, query: exp.Expr | str, parameters: Sequence[Any] | None = None) -> pa.Table:
        table: pa.Table = self.connection.sql(_text(query), params=parameters).to_arrow_table()
        return table

    def stream(
        self, query: exp.Expr | str, parameters: Sequence[Any] | None = None
    ) -> pa.RecordBatchReader:
        result = self.connection.sql(_text(query), params=parameters)
        reader: pa.RecordBatchReader = result.to_arrow_reader(_BATCH_ROWS)
        return reader


def _text(query: exp.Expr | str) -> str:
    return query if isinstance(query, str) else query.sql(dialect="duckdb")
