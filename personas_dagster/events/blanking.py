"""Taking single messages out of landed files, byte by byte where they stood.

A line of text becomes an empty line, so that the others keep their numbers; rows of CSV and
Parquet files are left out. A file that holds none of the messages is not touched. The new file
stands beside the old one, synced, before it takes its place.
"""

from __future__ import annotations

import csv
import gzip
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from personas_dagster.events.landing import LandedFile

_ROWS = 65_536


def blank(files: Sequence[LandedFile], rows: pa.Table) -> int:
    """Take the messages at (file_id, line) out of their files; returns how many."""
    taken = 0
    for file in files:
        of = pc.equal(rows.column("file_id"), file.file_id)
        lines = frozenset(rows.filter(of).column("line").to_pylist())
        if lines and file.path.exists():
            _replace(file.path, file.format, lines)
            taken += len(lines)
    return taken


def _replace(path: Path, kind: str, lines: Collection[int]) -> None:
    gzipped = kind.endswith(".gz")
    temporary = path.with_name(f".{os.getpid()}-{path.name}.tmp")
    try:
        if kind == "parquet":
            _without_rows(path, temporary, lines)
        else:
            opened: Callable[[Path, str], IO[bytes]] = gzip.open if gzipped else open  # type: ignore[assignment]
            with opened(path, "rb") as old, opened(temporary, "wb") as new:
                (_without_records if kind.startswith("csv") else _without_lines)(old, new, lines)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _without_lines(old: IO[bytes], new: IO[bytes], lines: Collection[int]) -> None:
    for number, line in enumerate(old, 1):
        new.write(b"\n" if number in lines else line)


def _without_records(old: IO[bytes], new: IO[bytes], lines: Collection[int]) -> None:
    """Records count from 1 after the header; empty ones do not count, as when they are read."""
    texts = (line.decode() for line in old)
    reader = csv.reader(texts)
    number = -1

    class Sink:
        def write(self, text: str) -> int:
            return new.write(text.encode())

    writer = csv.writer(Sink())
    for cells in reader:
        number += bool(cells)
        if number not in lines or not number:
            writer.writerow(cells)


def _without_rows(old: Path, new: Path, lines: Collection[int]) -> None:
    number = 1
    with pq.ParquetFile(old) as file, pq.ParquetWriter(new, file.schema_arrow) as writer:
        for batch in file.iter_batches(batch_size=_ROWS):
            kept = [spot for spot in range(batch.num_rows) if number + spot not in lines]
            number += batch.num_rows
            writer.write_batch(batch.take(pa.array(kept, pa.int64())))
