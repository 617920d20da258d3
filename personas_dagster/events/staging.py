"""Decoding landed files into one temporary Parquet file, chunk by chunk.

Reading, unpacking and splitting run in a thread of their own, one chunk ahead of the decoding;
both leave Python's lock for most of their time.
"""

from __future__ import annotations

import datetime as dt
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from personas_dagster.events.decoding import STAGED, Decoder, FileFacts
from personas_dagster.events.formats import JOURNAL, UNREADABLE
from personas_dagster.events.journal import with_reasons
from personas_dagster.events.landing import LandedFile, Landing
from personas_dagster.events.lines import BATCH, Damage, Progress, read_blocks, read_lines
from personas_dagster.events.rows import read_csv, read_parquet
from personas_dagster.events.settings import EventSettings
from personas_dagster.interfaces import Session

T = TypeVar("T")
# DuckDB 2.0.0 reads every row as null where `x IS NULL` is asked of a plain (not dictionary)
# string column whose values are all the same; so nothing asks that of staged rows either.
_FEW_VALUES = ["source_id", "type", "event", "reason", "detail"]


@contextmanager
def folder(landing: Landing, name: str) -> Iterator[Path]:
    """An empty folder for staged rows, gone at the end (or, after a kill, at the next start)."""
    path = landing.staging / name
    clear(landing, name)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        clear(landing, name)


def clear(landing: Landing, name: str) -> None:
    """Remove what one that was killed left in its folder."""
    shutil.rmtree(landing.staging / name, ignore_errors=True)


def stage(
    files: Sequence[LandedFile],
    session: Session,
    target: Path,
    *,
    settings: Mapping[int, EventSettings],
    dates: Sequence[dt.date] | None = None,
    progress: Callable[[int], None] | None = None,
) -> dict[int, str]:
    """Write the rows of `files` to `target`; returns what is wrong with damaged files, by id.

    `settings` are those of each load; `dates` keeps only rows of these partitions.
    """
    damages = {file.file_id: Damage() for file in files}
    read = Progress()
    batches = (
        batch
        for file in files
        for batch in _read(file, settings[_load_id(file)], damages[file.file_id], read)
    )
    decoder = Decoder(session, [_facts(file, settings[_load_id(file)]) for file in files])
    chunk_bytes = max((chosen.chunk_bytes for chosen in settings.values()), default=1)
    wanted = pa.array(dates, pa.date32()) if dates is not None else None
    with pq.ParquetWriter(
        target, STAGED, compression="snappy", use_dictionary=_FEW_VALUES
    ) as writer:
        for lines in _ahead(_chunks(batches, chunk_bytes)):
            rows = decoder.decode(lines)
            if wanted is not None:
                rows = rows.filter(pc.is_in(rows["received_date"], wanted))
            if rows.num_rows:
                writer.write_table(rows)
            if progress:
                progress(read.take())
    return {key: damage.reason for key, damage in damages.items() if damage.reason}


def _load_id(file: LandedFile) -> int:
    assert file.load_id is not None, "a file is decoded for a load"
    return file.load_id


def _facts(file: LandedFile, settings: EventSettings) -> FileFacts:
    return FileFacts(
        file_id=file.file_id,
        load_id=_load_id(file),
        source_id=file.source_id,
        landed_at=file.landed_at,
        max_properties=settings.max_properties,
        oversize_bytes=settings.oversize_bytes,
    )


def _read(
    file: LandedFile, settings: EventSettings, damage: Damage, progress: Progress
) -> Iterator[pa.RecordBatch]:
    limit, gzipped = settings.max_line_bytes, file.format.endswith(".gz")
    if file.format == UNREADABLE:
        damage.reason = file.damaged
        return iter(())
    if file.format == "parquet":
        return read_parquet(file.file_id, file.path, damage, progress, limit=limit)
    if file.format.startswith("csv"):
        return read_csv(file.file_id, file.path, damage, progress, gzipped=gzipped, limit=limit)
    blocks = read_blocks(file.path, gzipped=gzipped, damage=damage, progress=progress)
    lines = read_lines(file.file_id, blocks, damage, limit=limit)
    return with_reasons(lines) if file.format == JOURNAL else lines


def _chunks(batches: Iterator[pa.RecordBatch], chunk_bytes: int) -> Iterator[pa.Table]:
    held: list[pa.RecordBatch] = []
    size = 0
    for batch in batches:
        held.append(batch)
        size += batch.nbytes
        if size >= chunk_bytes:
            yield pa.Table.from_batches(held, schema=BATCH)
            held, size = [], 0
    if held:
        yield pa.Table.from_batches(held, schema=BATCH)


def _ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items, the next one being made while one is used."""
    with ThreadPoolExecutor(max_workers=1) as thread:
        coming = thread.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, items, None)
            yield item
