"""DuckDB, in process: the embedded engine.

Each session is a connection of its own in memory; tables of the lake are views over the file
lists of their Delta snapshots, so no DuckDB extension is needed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
from sqlglot import exp

from personas_dagster.engines.spill import spill_folder
from personas_dagster.interfaces import Data, Days, Indexed, Lake
from personas_dagster.lake.tables import INSTANT, TABLES, Table
from personas_dagster.query.typed import MARK, PREFIX, mark

_BATCH_ROWS = 122_880
_MEMORY = "50%"  # of the machine's, or of its container's; DuckDB's own default leaves too little
_FOOTERS = f"""
SELECT file_name, path_in_schema, stats_min_value, stats_max_value FROM parquet_metadata($1)
WHERE starts_with(path_in_schema, '{PREFIX}')
"""
_OF_FOOTERS = """
SELECT file_name, coalesce(max(stats_max_value::BIGINT), 0),
       bool_and(stats_max_value IS NOT NULL OR coalesce(stats_null_count = num_values, false))
FROM parquet_metadata($1) WHERE path_in_schema = $2 GROUP BY file_name
"""
_DUCKDB_TYPES = {
    pa.string(): "VARCHAR",
    pa.int64(): "BIGINT",
    pa.date32(): "DATE",
    INSTANT: "TIMESTAMPTZ",
}
_NONE: frozenset[str] = frozenset()
_HELD: dict[str, frozenset[str]] = {}
_LARGEST: dict[tuple[str, str], int] = {}
_Kept = dict[str, tuple[list[str], pa.Table]]  # relations, and the files that they follow from


class DuckDBEngine:
    """Settings of the engine; `session` opens a connection.

    `memory_limit` is a size that DuckDB understands ("4GB"), or a share of the memory that the
    machine or its container has ("25%"); beyond it, work spills to files under `spill`.
    """

    dialect = "duckdb"

    def __init__(
        self,
        *,
        threads: int | None = None,
        memory_limit: str | None = None,
        spill: Path | None = None,
    ) -> None:
        self.threads = threads or os.cpu_count() or 1
        self.memory_limit = memory_limit
        self.spill = spill
        self._kept: _Kept = {}

    @contextmanager
    def session(self, lake: Lake, *, memory: str | None = None) -> Iterator[DuckDBSession]:
        with spill_folder(self.spill) as spill:
            settings: dict[str, Any] = {
                "threads": self.threads,
                "memory_limit": self.memory_limit or memory or _MEMORY,
                "temp_directory": spill,
                "preserve_insertion_order": False,
                # Nothing outlives the session: a checkpoint would only write it all once more.
                "checkpoint_threshold": "1TB",
                # Up to so many profiles that are joined to a log choose its row groups.
                "dynamic_or_filter_threshold": 1_000,
                "parquet_metadata_cache": True,  # files do not change
                "autoinstall_known_extensions": False,
                "TimeZone": "UTC",
            }
            connection = duckdb.connect(":memory:", config=settings)
            try:
                yield DuckDBSession(connection, lake, self._kept)
            finally:
                connection.close()


class DuckDBSession:
    """One connection; `connection` is there for what only this engine can do."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, lake: Lake, kept: _Kept) -> None:
        self.connection = connection
        self._lake = lake
        self._kept = kept
        self._indexed: dict[str, Indexed] = {}
        self._viewed: dict[str, list[str]] = {}

    def view(
        self,
        name: str,
        table: str | None = None,
        *,
        after_load: int | None = None,
        days: Days | None = None,
    ) -> None:
        table = table or name
        self._indexed.pop(table, None)
        files = self._lake.files(table, after_load=after_load, days=days)
        if after_load is None and days is None:
            self._viewed[table] = files
        self._view_of(name, table, files)

    def _view_of(self, name: str, table: str, files: Sequence[str]) -> None:
        spec = TABLES[table]
        if files:
            self._view(name, spec, list(files))
        else:
            self.register(name, spec.schema.empty_table())

    def indexed(
        self, name: str, table: str, key: str, wanted: pa.Table, names: Sequence[str] = ()
    ) -> None:
        self.register(name, self._indexes(table).find(key, wanted, names))

    def newest(self, table: str, column: str) -> int:
        files = self._lake.files(table)
        new = [file for file in files if (file, column) not in _LARGEST]
        if new:
            found = self.connection.execute(_OF_FOOTERS, [new, column]).fetchall()
            for file, largest, told in found:
                _LARGEST[file, column] = int(largest) if told else self._largest(file, column)
        return max((_LARGEST.get((file, column), 0) for file in files), default=0)

    def _largest(self, file: str, column: str) -> int:
        """Of a file whose writer left out what footers tell."""
        query = f"SELECT coalesce(max({column}), 0) FROM read_parquet($1)"
        return int(self.connection.execute(query, [file]).fetchall()[0][0])

    def keep(self, name: str, table: str) -> None:
        self._kept[name] = (self._viewed[table], self.fetch(f"FROM {name}"))

    def recall(self, name: str, table: str) -> bool:
        files, rows = self._kept.get(name, (None, None))
        if files is None or files != self._viewed[table]:
            return False
        self.register("kept_rows", rows)
        self.run(f"CREATE OR REPLACE TEMP TABLE {name} AS FROM kept_rows")
        self.connection.unregister("kept_rows")
        return True

    def unindexed(self, name: str, table: str) -> None:
        self._view_of(name, table, self._indexes(table).rest)

    def is_empty(self, table: str) -> bool:
        if self._indexes(table).rows:
            return False
        self.unindexed("any_rows", table)
        return not self.fetch("SELECT 1 FROM any_rows LIMIT 1").num_rows

    def _indexes(self, table: str) -> Indexed:
        """Opened once: what is indexed and what is not are of one version of the table."""
        if table not in self._indexed:
            self._indexed[table] = self._lake.indexed(table)
        return self._indexed[table]

    def _view(self, name: str, spec: Table, files: list[str], more: Iterable[str] = ()) -> None:
        relation = self.connection.read_parquet(
            files,
            union_by_name=True,
            hive_partitioning=bool(spec.partition_by),
        )
        there = set(relation.columns)
        columns = [
            duckdb.ColumnExpression(column)
            if column in there  # files of an earlier version lack later columns
            else duckdb.ConstantExpression(None).cast(_DUCKDB_TYPES[kind]).alias(column)
            for column, kind in zip(spec.schema.names, spec.schema.types, strict=True)
        ]
        columns += map(duckdb.ColumnExpression, sorted(more))
        self.connection.unregister(name)  # Arrow data of that name would hide the view
        relation.select(*columns).create_view(name, replace=True)

    def layers(self, table: str, columns: Collection[str]) -> list[tuple[str, frozenset[str]]]:
        spec, wanted = TABLES[table], frozenset(columns)
        groups: dict[frozenset[str], list[str]] = {}
        for file, held in self._held(self._lake.files(table)).items():
            groups.setdefault(held & wanted, []).append(file)
        found = []
        for number, held in enumerate(sorted(groups, key=sorted), 1):
            name = f"{table}_{number}"
            self._view(name, spec, groups[held], held)
            found.append((name, held))
        return found

    def _held(self, files: list[str]) -> dict[str, frozenset[str]]:
        """Which derived columns are filled in each file. Files do not change: each is read once."""
        new = [file for file in files if file not in _HELD]
        if new:
            columns: dict[str, dict[str, list[tuple[str | None, str | None]]]] = {}
            for file, name, low, high in self.connection.execute(_FOOTERS, [new]).fetchall():
                columns.setdefault(file, {}).setdefault(name, []).append((low, high))
            for file in new:
                there = columns.get(file, {})
                names = frozenset(name for name in there if name != MARK)
                wanted = str(mark(names))
                marks = there.get(MARK, [(None, None)])
                _HELD[file] = names if all(one == (wanted, wanted) for one in marks) else _NONE
        return {file: _HELD[file] for file in files}

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
