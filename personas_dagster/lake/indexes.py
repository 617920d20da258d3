"""Indexes of the identity tables: files beside a table from which rows are read by key at once.

An index covers some of a table's data files, which never change. It holds their narrow columns in
the order of one key, that order for each other key, and the few columns that loads ask for; it is
an Arrow file that is mapped into memory, so that a look-up reads what it finds and no more. All of
it follows from the data files and may be deleted at any time: what no index covers is scanned.

A new index takes in those that it is not much larger than, so that a table has few of them and
each row is indexed anew only a few times.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from personas_dagster.lake.tables import TABLES

FOLDER = ".indexes"
# What no index covers is worth one from so many rows, or so many files.
WORTH_ROWS, WORTH_FILES = 200_000, 16
_MOST_ROWS = 16_000_000  # an index is made in memory
_LAYOUT = "1"
_SUFFIX = ".arrow"

# The keys of each table, and the columns beside them. Rows lie in the order of the first key.
_KEYS = {
    "profiles": ("profile",),
    "identifiers": ("profile", "key"),
    "merges": ("child", "parent"),
    "account_links": ("user", "account"),
}
_BESIDE = {
    "profiles": ("first_message_id",),
    "identifiers": ("type", "first_seen_at", "load_id"),
    "merges": ("load_id",),
    "account_links": ("first_at", "first_message_id", "last_at", "last_message_id", "load_id"),
}


def columns(table: str) -> tuple[str, ...]:
    """The columns of what is found; none where a table has no indexes."""
    keys = (f"{key}_{half}" for key in _KEYS.get(table, ()) for half in ("high", "low"))
    return (*keys, *_BESIDE.get(table, ()))


@dataclass(frozen=True)
class Index:
    """One index, mapped into memory."""

    path: Path
    files: frozenset[str]
    rows: pa.RecordBatch

    def find(self, key: str, wanted: pa.Table, names: Sequence[str]) -> pa.Table:
        """These columns of the rows with one of the `wanted` keys."""
        sought = [np.asarray(wanted.column(half)) for half in ("high", "low")]
        order = np.argsort(sought[1])
        high, low = (half[order] for half in sought)
        other = f"{key}_row" in self.rows.schema.names
        lows = self._numbers(f"{key}_order" if other else f"{key}_low")
        start = np.searchsorted(lows, low, "left")
        counts = np.searchsorted(lows, low, "right") - start
        before = np.cumsum(counts) - counts
        spots = np.repeat(start - before, counts) + np.arange(counts.sum())
        high, low = np.repeat(high, counts), np.repeat(low, counts)
        if other:
            spots = self._numbers(f"{key}_row")[spots]
            order = np.argsort(spots)  # read from front to back
            spots, high, low = spots[order], high[order], low[order]
        same = self._numbers(f"{key}_high")[spots] == high
        known = {f"{key}_high": pa.array(high[same]), f"{key}_low": pa.array(low[same])}
        rows = pa.array(spots[same])
        return pa.table({n: known[n] if n in known else self.rows[n].take(rows) for n in names})

    def _numbers(self, name: str) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = self.rows.column(name).to_numpy()
        return found


@dataclass(frozen=True)
class Indexed:
    """A table as it stands: its indexes, and the data files that none of them covers."""

    table: str
    indexes: Sequence[Index]
    rest: Sequence[str]

    @property
    def rows(self) -> int:
        return sum(index.rows.num_rows for index in self.indexes)

    def find(self, key: str, wanted: pa.Table, names: Sequence[str] = ()) -> pa.Table:
        if key not in _KEYS[self.table]:
            raise KeyError(key)
        schema = _schema(self.table, names or columns(self.table))
        found = [index.find(key, wanted, schema.names).cast(schema) for index in self.indexes]
        return pa.concat_tables([schema.empty_table(), *found])


def read(folder: Path, table: str, files: Sequence[str]) -> Indexed:
    """What the folder holds of a table that has these data files."""
    rest, taken = dict.fromkeys(map(_name, files)), []
    paths = sorted(folder.glob(f"*{_SUFFIX}")) if table in _KEYS else []
    found = [index for path in paths if (index := _open(path))]
    # A run that was killed may have left an index beside those that it takes in.
    for index in sorted(found, key=lambda one: -len(one.files)):
        if index.files <= rest.keys():
            taken.append(index)
            for file in index.files:
                del rest[file]
    return Indexed(table, taken, [file for file in files if _name(file) in rest])


def tend(folder: Path, table: str, files: Sequence[str]) -> None:
    """Index what is worth it of a table that has these data files; remove what has had its time."""
    if table not in _KEYS:
        return
    there = read(folder, table, files)
    kept = sorted(there.indexes, key=lambda one: -one.rows.num_rows)
    sizes = {file: pq.read_metadata(file).num_rows for file in there.rest}
    rows = sum(sizes.values())
    if rows >= WORTH_ROWS or len(sizes) >= WORTH_FILES:
        places = {_name(file): file for file in files}
        while kept and kept[-1].rows.num_rows < 2 * rows:
            last = kept.pop()
            if rows + last.rows.num_rows > _MOST_ROWS:
                kept.append(last)
                break
            rows += last.rows.num_rows
            sizes |= {places[name]: pq.read_metadata(places[name]).num_rows for name in last.files}
        made = [_make(folder, table, group) for group in _groups(sizes)]
        kept += [index for index in made if index]
    sweep(folder, [index.path for index in kept])


def sweep(folder: Path, kept: Sequence[Path] = ()) -> None:
    """Remove all indexes but these; whoever has one open can read on."""
    for path in folder.glob("*"):
        if path not in kept:
            path.unlink(missing_ok=True)


def _groups(sizes: dict[str, int]) -> list[list[str]]:
    """Files for one index each."""
    groups: list[list[str]] = []
    rows = 0
    for file, size in sizes.items():
        if not groups or rows + size > _MOST_ROWS:
            groups.append([])
            rows = 0
        groups[-1].append(file)
        rows += size
    return groups


def _make(folder: Path, table: str, files: Sequence[str]) -> Index | None:
    """An index of these data files. None where one lacks the keys: an earlier version wrote it."""
    first, *others = _KEYS[table]
    schema = _schema(table, columns(table))
    read = {field.name: [pa.array([], field.type)] for field in schema}
    for file in files:
        with pq.ParquetFile(file) as opened:
            rows = opened.read(columns=list(read))
        for name, chunks in read.items():
            if name not in rows.column_names:
                return None
            column = rows.column(name)
            if column.null_count and name.endswith(("_high", "_low")):
                return None
            chunks += column.cast(schema.field(name).type).chunks
    low = pa.concat_arrays(read[f"{first}_low"])
    order = pa.array(np.argsort(low.to_numpy()))
    made = {}
    for name in columns(table):  # each let go before the next is sorted
        values = pa.concat_arrays(read.pop(name)).take(order)
        made[name] = values.dictionary_encode() if name == "type" else values
    for key in others:
        values = made[f"{key}_low"].to_numpy()
        spots = np.argsort(values)
        made[f"{key}_order"] = pa.array(values[spots])
        made[f"{key}_row"] = pa.array(spots.astype(np.int32))
    names = sorted(map(_name, files))
    batch = pa.RecordBatch.from_pydict(made).replace_schema_metadata(
        {"layout": _LAYOUT, "table": table, "files": json.dumps(names)}
    )
    return _write(folder, batch, names)


def _write(folder: Path, batch: pa.RecordBatch, names: Sequence[str]) -> Index | None:
    """There whole or not at all, also after a power cut."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (hashlib.sha256("\n".join(names).encode()).hexdigest() + _SUFFIX)
    partial = path.with_suffix(f".{os.getpid()}")
    with partial.open("wb") as file:
        with pa.ipc.new_file(file, batch.schema) as writer:
            writer.write_batch(batch)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    return _open(path)


def _open(path: Path) -> Index | None:
    """None for what is gone meanwhile, or was made by another version."""
    try:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        told = reader.schema.metadata or {}
        if told.get(b"layout") != _LAYOUT.encode():
            return None
        return Index(path, frozenset(json.loads(told[b"files"])), reader.get_batch(0))
    except (OSError, pa.ArrowException):
        return None


def _name(file: str) -> str:
    return file.rpartition("/")[2]


def _schema(table: str, names: Sequence[str]) -> pa.Schema:
    """Columns of what is found; texts may be longer than 2 GiB in all."""
    fields = [TABLES[table].schema.field(name) for name in names]
    return pa.schema(
        [pa.field(f.name, pa.large_string() if f.type == pa.string() else f.type) for f in fields]
    )
