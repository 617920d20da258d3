"""Delta tables through `deltalake`: appends that happen once, replacements, snapshots."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from deltalake import (
    ColumnProperties,
    CommitProperties,
    DeltaTable,
    Transaction,
    WriterProperties,
    write_deltalake,
)
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.fs import DeltaStorageHandler
from deltalake.transaction import AddAction
from pyarrow.fs import PyFileSystem, copy_files

from personas_dagster.errors import LakeUnavailable
from personas_dagster.interfaces import Data, Days, Part
from personas_dagster.lake import indexes
from personas_dagster.lake.tables import TABLES, Table

# Files of this size are left alone, so that what is joined again and again stays small.
_COMPACTED_BYTES = 32_000_000
_KEPT_HOURS = 24 * 7  # files that went stay as long as a reader could need them
_ROW_GROUP = 122_880
_DAY = "partition.received_date"
_LOG_KEPT = "delta.logRetentionDuration"


def _writer(spec: Table) -> WriterProperties:
    plain = ColumnProperties(dictionary_enabled=False)
    return WriterProperties(
        compression="ZSTD",
        compression_level=1,
        max_row_group_size=_ROW_GROUP,
        column_properties={name: plain for name in spec.scattered} or None,
    )


class DeltaLake:
    """A lake at `root`: a folder, or a URL that `deltalake` knows (`s3://`, `gs://`, `az://`).

    `versions` pins the lake to a snapshot, which is for reading only; the tables in `live` are
    left out of the pinning, and can be written.
    """

    def __init__(
        self,
        root: str | Path,
        *,
        storage_options: Mapping[str, str] | None = None,
        versions: Mapping[str, int] | None = None,
        live: Collection[str] = (),
    ) -> None:
        self.root = str(root)
        self._storage = dict(storage_options) if storage_options else None
        self._pinned = dict(versions) if versions is not None else None
        self._live = frozenset(live)

    def _is_pinned(self, name: str) -> bool:
        return self._pinned is not None and name not in self._live

    def _uri(self, name: str) -> str:
        TABLES[name]
        return f"{self.root.rstrip('/')}/{name}"

    def _open(self, name: str) -> DeltaTable | None:
        version = None
        if self._pinned is not None and self._is_pinned(name):
            if name not in self._pinned:
                return None
            version = self._pinned[name]
        try:
            return DeltaTable(self._uri(name), version=version, storage_options=self._storage)
        except TableNotFoundError:
            if version is not None:
                raise LakeUnavailable(
                    f"table {name} has no version {version} at {self.root}; run a refresh"
                ) from None
            return None
        except (DeltaError, OSError) as error:
            raise _unavailable(name, self.root, error) from error

    def append(self, name: str, data: Data, *, once: tuple[str, int] | None = None) -> int:
        return self._write(name, data, mode="append", where=None, once=once)

    def replace(
        self,
        name: str,
        data: Data,
        *,
        where: str | None = None,
        once: tuple[str, int] | None = None,
    ) -> int:
        return self._write(name, data, mode="overwrite", where=where, once=once)

    def _write(
        self,
        name: str,
        data: Data,
        *,
        mode: Literal["append", "overwrite"],
        where: str | None,
        once: tuple[str, int] | None,
    ) -> int:
        if self._is_pinned(name):
            raise LakeUnavailable(f"a snapshot of {name} is read-only; open the lake itself")
        spec, table = TABLES[name], self._open(name)
        if _is_done(table, once):
            if isinstance(data, pa.RecordBatchReader):
                data.close()  # unread, it would keep its session busy
            return 0
        counter = _Counter(data, _schema(spec, data.schema))
        properties = _properties(once)
        target = table if table is not None else self._uri(name)
        options: dict[str, Any] = {
            "partition_by": list(spec.partition_by) or None,
            "storage_options": self._storage,
            "writer_properties": _writer(spec),
            "commit_properties": properties,
        }
        if table is not None:
            options["schema_mode"] = "merge"  # a table of an earlier version takes new columns
        if mode == "overwrite" and table is not None and where is not None:
            options["predicate"] = where
        try:
            write_deltalake(target, counter.reader(), mode=mode, **options)
        except (DeltaError, OSError) as error:
            if counter.failed is not None:  # who made the rows, not who wrote them
                raise counter.failed from None
            raise _unavailable(name, self.root, error) from error
        return counter.rows

    def adopt(self, name: str, source: str, *, once: tuple[str, int] | None = None) -> int:
        spec, given, table = TABLES[name], self._open(source), self._open(name)
        added = [] if given is None else pa.table(given.get_add_actions(flatten=True)).to_pylist()
        if given is None or not added or spec.partition_by or self._is_pinned(name):
            return self.append(name, spec.schema.empty_table(), once=once)
        if _is_done(table, once):
            return 0
        try:
            if table is None:
                table = DeltaTable.create(
                    self._uri(name), spec.schema, mode="ignore", storage_options=self._storage
                )
            target = PyFileSystem(DeltaStorageHandler.from_table(table._table))
            origin = PyFileSystem(DeltaStorageHandler.from_table(given._table))
            for file in added:
                copy_files(file["path"], file["path"], origin, target)
            table.create_write_transaction(
                [_as_added(file) for file in added],
                mode="append",
                schema=spec.schema,
                commit_properties=_properties(once),
            )
        except (DeltaError, OSError) as error:
            raise _unavailable(name, self.root, error) from error
        return sum(int(file["num_records"]) for file in added)

    def forget(self, name: str) -> None:
        if self._is_pinned(name):
            raise LakeUnavailable(f"a snapshot of {name} is read-only; open the lake itself")
        table = self._open(name)
        if table is None:
            return
        try:
            table.alter.set_table_properties({_LOG_KEPT: "interval 0 seconds"})
            table.vacuum(
                retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True
            )
            table.create_checkpoint()
            table.cleanup_metadata()
            table.alter.set_table_properties({_LOG_KEPT: "interval 30 days"})
        except (DeltaError, OSError) as error:
            raise _unavailable(name, self.root, error) from error
        self._sweep_indexes(name)

    def files(
        self, name: str, *, after_load: int | None = None, days: Days | None = None
    ) -> list[str]:
        table = self._open(name)
        if table is None:
            return []
        found = [_local(uri) for uri in table.file_uris()]
        if after_load is not None:
            found = _without(found, table, "max.load_id", lambda last: last <= after_load)
        if days is not None:
            first, last = days
            found = _without(found, table, _DAY, lambda day: not first <= day <= last)
        return found

    def parts(self, name: str) -> list[Part]:
        table = self._open(name)
        if table is None:
            return []
        actions = pa.table(table.get_add_actions(flatten=True))
        facts = [
            actions.column(one).to_pylist()
            if one in actions.column_names
            else [None] * actions.num_rows
            for one in ("path", "num_records", "min.load_id", "max.load_id")
        ]
        return [Part(*of_file) for of_file in zip(*facts, strict=True)]

    def compact(self, name: str, *, above: int) -> int:
        table = None if self._is_pinned(name) else self._open(name)
        if table is None or len(table.file_uris()) <= above:
            return 0
        try:
            done = table.optimize.compact(
                target_size=_COMPACTED_BYTES, writer_properties=_writer(TABLES[name])
            )
        except CommitFailedError:  # somebody else is at it
            return 0
        except (DeltaError, OSError) as error:
            raise _unavailable(name, self.root, error) from error
        return int(done["numFilesRemoved"])

    def sweep(self, *, hours: int) -> int:
        if self._pinned is not None:
            raise LakeUnavailable("a snapshot is read-only; open the lake itself")
        gone, hours = 0, max(hours, _KEPT_HOURS)
        for name in TABLES:
            if (table := self._open(name)) is None:
                continue
            try:
                # Full, since a checkpoint of the log may have forgotten which files went.
                gone += len(table.vacuum(retention_hours=hours, dry_run=False, full=True))
            except (DeltaError, OSError) as error:
                raise _unavailable(name, self.root, error) from error
            self._sweep_indexes(name)
        return gone

    def index(self, name: str) -> None:
        folder = self._index_folder(name)
        if folder is None or self._is_pinned(name):
            return
        try:
            indexes.tend(folder, name, self.files(name))
        except OSError as error:
            raise _unavailable(name, self.root, error) from error

    def indexed(self, name: str) -> indexes.Indexed:
        folder, files = self._index_folder(name), self.files(name)
        if folder is None:
            return indexes.Indexed(name, [], files)
        return indexes.read(folder, name, files)

    def _sweep_indexes(self, name: str) -> None:
        """Remove those of data files that are gone."""
        if folder := self._index_folder(name):
            kept = indexes.read(folder, name, self.files(name)).indexes
            indexes.sweep(folder, [index.path for index in kept])

    def _index_folder(self, name: str) -> Path | None:
        """Beside the table, so that they are where its rows are, and go with them."""
        return None if "://" in self.root else Path(self.root) / indexes.FOLDER / name

    def derived(self, name: str) -> list[str]:
        """The names of the columns that writers added to those of the table."""
        table, prefix = self._open(name), TABLES[name].derived
        if table is None or prefix is None:
            return []
        return [field.name for field in table.schema().fields if field.name.startswith(prefix)]

    def version(self, name: str) -> int | None:
        """The version of one table, None when it was never written."""
        table = self._open(name)
        return None if table is None else table.version()

    def versions(self) -> dict[str, int]:
        if self._pinned is not None:
            return dict(self._pinned)
        found = ((name, self.version(name)) for name in TABLES)
        return {name: version for name, version in found if version is not None}

    def bytes(self, name: str) -> int:
        """How large the table's data files are."""
        table = self._open(name)
        if table is None:
            return 0
        actions = pa.table(table.get_add_actions(flatten=True))
        return sum(int(size or 0) for size in actions.column("size_bytes").to_pylist())

    def at(self, versions: Mapping[str, int], *, live: Collection[str] = ()) -> DeltaLake:
        return DeltaLake(self.root, storage_options=self._storage, versions=versions, live=live)


class _Counter:
    """Casts batches to a table's schema and counts the rows that pass; keeps what went wrong."""

    def __init__(self, data: Data, schema: pa.Schema) -> None:
        self._data, self._schema, self.rows = data, schema, 0
        self.failed: BaseException | None = None

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            yield from self._cast()
        except BaseException as error:
            if not isinstance(error, GeneratorExit):
                self.failed = error
            raise

    def _cast(self) -> Iterator[pa.RecordBatch]:
        source = self._data.to_batches() if isinstance(self._data, pa.Table) else self._data
        for batch in source:
            self.rows += batch.num_rows
            columns = [
                batch.column(field.name).cast(field.type)
                if field.name in batch.schema.names
                else pa.nulls(batch.num_rows, field.type)
                for field in self._schema
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=self._schema)

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(self._schema, self._batches())


def _schema(spec: Table, given: pa.Schema) -> pa.Schema:
    """The table's columns, and those of the data that the table allows beside them."""
    derived = [
        field for field in given if spec.derived is not None and field.name.startswith(spec.derived)
    ]
    return pa.schema([*spec.schema, *derived])


def _is_done(table: DeltaTable | None, once: tuple[str, int] | None) -> bool:
    """Whether this writer appended this number, or a later one, before."""
    if once is None or table is None:
        return False
    done = table.transaction_version(once[0])
    return done is not None and done >= once[1]


def _properties(once: tuple[str, int] | None) -> CommitProperties:
    return CommitProperties(app_transactions=[Transaction(once[0], once[1])] if once else None)


def _as_added(file: Mapping[str, Any]) -> AddAction:
    stats = json.dumps({"numRecords": file["num_records"]})
    return AddAction(file["path"], file["size_bytes"], {}, file["modification_time"], True, stats)


def _without(
    files: list[str], table: DeltaTable, fact: str, rules_out: Callable[[Any], bool]
) -> list[str]:
    """The files less those that a fact of the log rules out; one without it is left in."""
    actions = pa.table(table.get_add_actions(flatten=True))
    if fact not in actions.column_names:
        return files
    known = zip(*(actions.column(name).to_pylist() for name in ("path", fact)), strict=True)
    out = {path for path, value in known if value is not None and rules_out(value)}
    root = _local(table.table_uri).rstrip("/") + "/"
    return [file for file in files if file.removeprefix(root) not in out]


def _local(uri: str) -> str:
    return uri.removeprefix("file://")


def _unavailable(name: str, root: str, error: Exception) -> LakeUnavailable:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return LakeUnavailable(
        f"table {name} at {root} cannot be used: {reason}; check the lake's location and rights"
    )
