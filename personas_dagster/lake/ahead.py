"""Reading ahead: the system is asked for the parts of data files that are read soon.

An engine reads what is not in the system's memory piece by piece, and waits for each. Asked for at
once, it comes several times as fast, and while something else is done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from threading import Thread

import pyarrow as pa
import pyarrow.parquet as pq

from personas_dagster.interfaces import Lake
from personas_dagster.lake.delta import DeltaLake
from personas_dagster.lake.tables import TABLES

SHARE = 0.25  # of the memory there is
_BY_A_REFRESH = {  # the dearest first
    "events": ("event", "timestamp", "profile_high", "profile_low"),
    "computed_traits": ("profile_id", "key", "value", "refresh_id"),
    "merges": ("child_id", "parent_id"),
    "identifiers": ("profile_high", "profile_low", "type"),
    "audience_memberships": ("audience", "profile_id", "entered_at", "exited_at", "refresh_id"),
}
_AGAIN = 60  # seconds
_asked: dict[str, float] = {}
_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def start(lake: DeltaLake) -> None:
    """Ask for what each refresh reads of tables that grow with history; once, where a process gets
    ready when it starts a run and again in the run."""
    now = time.monotonic()
    is_near = "://" not in lake.root  # elsewhere even the lists of files are waited for
    if is_near and now - _asked.get(lake.root, -_AGAIN) >= _AGAIN:
        _asked[lake.root] = now
        read_ahead(lake, _BY_A_REFRESH)


def read_ahead(
    lake: Lake, wanted: Mapping[str, Collection[str]], *, at_most: int | None = None
) -> Thread | None:
    """Ask for these columns of the tables, and for derived ones, beside us.

    The first tables first, `at_most` so many bytes (default: a quarter of the machine's memory, or
    of its container's). None where nothing is asked: of files elsewhere, of a system that takes no
    such advice.
    """
    if not hasattr(os, "posix_fadvise"):
        return None
    # Listed here: at the process's end, a thread within `deltalake` would take it down.
    files = [
        (Path(file), columns, TABLES[name].derived)
        for name, columns in wanted.items()
        for file in lake.files(name)
        if "://" not in file
    ]
    if not files:
        return None
    left = int(SHARE * _memory()) if at_most is None else at_most
    asking = Thread(target=_ask_all, args=(files, left), daemon=True)
    asking.start()
    return asking


def _ask_all(files: Sequence[tuple[Path, Collection[str], str | None]], left: int) -> None:
    for file, columns, prefix in files:
        with suppress(OSError, pa.ArrowException):  # who reads the file tells what is wrong
            left -= _ask(file, columns, prefix, at_most=left)


def _ask(file: Path, columns: Collection[str], prefix: str | None, *, at_most: int) -> int:
    asked = 0
    with file.open("rb", buffering=0) as opened:
        for start, size in _parts(file, columns, prefix):
            if asked + size > at_most:
                break
            os.posix_fadvise(opened.fileno(), start, size, os.POSIX_FADV_WILLNEED)
            asked += size
    return asked


def _parts(file: Path, columns: Collection[str], prefix: str | None) -> Iterator[tuple[int, int]]:
    """Where the columns lie in a file: begin and length of each of their pieces, in bytes."""
    told = pq.read_metadata(file)
    names = [told.schema.column(place).path for place in range(told.num_columns)]
    places = [
        place
        for place, name in enumerate(names)
        if name in columns or (prefix is not None and name.startswith(prefix))
    ]
    for group in map(told.row_group, range(told.num_row_groups)):
        for piece in map(group.column, places):
            start = piece.dictionary_page_offset if piece.has_dictionary_page else None
            yield piece.data_page_offset if start is None else start, piece.total_compressed_size


def _memory() -> int:
    """Bytes that the machine has, or its container may use."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for limit in _LIMITS:
        with suppress(OSError, ValueError):  # there is none, or it says "max"
            found.append(int(Path(limit).read_text()))
    return min(found)
