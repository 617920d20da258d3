"""A lake of Arrow tables in memory, for worlds of a few messages that nobody keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

import pyarrow as pa

from personas_dagster.engines.duckdb import DuckDBEngine, DuckDBSession
from personas_dagster.errors import LakeUnavailable
from personas_dagster.interfaces import Data, Days, Part
from personas_dagster.lake.indexes import Indexed
from personas_dagster.lake.tables import TABLES


class MemoryLake:
    """Tables by name, each as it was last written."""

    def __init__(self) -> None:
        self.tables: dict[str, pa.Table] = {}

    def append(self, name: str, data: Data, *, once: tuple[str, int] | None = None) -> int:
        new = _table(name, data)
        self.tables[name] = pa.concat_tables([self.table(name), new])
        return int(new.num_rows)

    def replace(
        self,
        name: str,
        data: Data,
        *,
        where: str | None = None,
        once: tuple[str, int] | None = None,
    ) -> int:
        if where is not None:
            raise LakeUnavailable(f"{name} in memory is replaced whole, not where {where}")
        self.tables[name] = _table(name, data)
        return int(self.tables[name].num_rows)

    def adopt(self, name: str, source: str, *, once: tuple[str, int] | None = None) -> int:
        return self.append(name, self.table(source))

    def forget(self, name: str) -> None:
        """There are no earlier versions."""

    def table(self, name: str) -> pa.Table:
        return self.tables.get(name, TABLES[name].schema.empty_table())

    def files(
        self, name: str, *, after_load: int | None = None, days: Days | None = None
    ) -> list[str]:
        return []

    def parts(self, name: str) -> list[Part]:
        return []

    def compact(self, name: str, *, above: int) -> int:
        return 0

    def sweep(self, *, hours: int) -> int:
        return 0

    def index(self, name: str) -> None:
        """Tables in memory have no indexes."""

    def indexed(self, name: str) -> Indexed:
        return Indexed(name, [], [])

    def derived(self, name: str) -> list[str]:
        return []

    def versions(self) -> dict[str, int]:
        return dict.fromkeys(self.tables, 0)

    def at(self, versions: Mapping[str, int], *, live: Collection[str] = ()) -> MemoryLake:
        return self


class _MemorySession(DuckDBSession):
    def __init__(self, base: DuckDBSession, lake: MemoryLake) -> None:
        super().__init__(base.connection, lake, {})
        self._tables = lake

    def view(
        self,
        name: str,
        table: str | None = None,
        *,
        after_load: int | None = None,
        days: Days | None = None,
    ) -> None:
        self.register(name, self._tables.table(table or name))

    def newest(self, table: str, column: str) -> int:
        self.view("any_rows", table)
        return int(
            self.fetch(f"SELECT coalesce(max({column}), 0) FROM any_rows").column(0)[0].as_py()
        )

    def keep(self, name: str, table: str) -> None:
        """Nothing tells one state of a table in memory from another."""

    def recall(self, name: str, table: str) -> bool:
        return False

    def unindexed(self, name: str, table: str) -> None:
        self.view(name, table)

    def layers(self, table: str, columns: Collection[str]) -> list[tuple[str, frozenset[str]]]:
        """None: every column is read from the messages' JSON."""
        return []


@contextmanager
def memory_session(lake: MemoryLake) -> Iterator[DuckDBSession]:
    """A session on a lake in memory."""
    with DuckDBEngine(threads=1).session(lake) as base:
        yield _MemorySession(base, lake)


def _table(name: str, data: Data) -> pa.Table:
    schema = TABLES[name].schema
    found = data.read_all() if isinstance(data, pa.RecordBatchReader) else data
    columns = [
        found.column(field.name).cast(field.type)
        if field.name in found.schema.names
        else pa.nulls(found.num_rows, field.type)
        for field in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
