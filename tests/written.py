"""Everything that was written below a folder, as text: for tests that look for what must not be."""

from __future__ import annotations

import sqlite3
import zlib
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq

_SQLITE = b"SQLite format 3\0"


def written(folder: Path) -> Iterator[tuple[str, str]]:
    """Where, and what: the bytes of each file; of tables and databases, also their values."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        where, held = str(path.relative_to(folder)), path.read_bytes()
        yield where, held.decode("latin-1")
        if path.suffix == ".parquet":
            yield where, repr(pq.read_table(path).to_pydict())
        elif held.startswith(_SQLITE):
            yield from _rows(path, where)


def _rows(path: Path, where: str) -> Iterator[tuple[str, str]]:
    """A value may be spread over pages, or packed."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
        tables = database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (table,) in tables:
            rows = database.execute(f'SELECT * FROM "{table}"').fetchall()
            values = [value for row in rows for value in row]
            text = " ".join(str(value) for value in values if not isinstance(value, bytes))
            packed = [_unpacked(value) for value in values if isinstance(value, bytes)]
            yield f"{where}: {table}", " ".join([text, *packed])


def _unpacked(value: bytes) -> str:
    try:
        value = zlib.decompress(value)
    except zlib.error:
        pass
    return value.decode("latin-1")


def forms(marker: str) -> list[str]:
    """A secret as it is, and as it stands in `Authorization: Basic ...`, after any length."""
    coded = [b64encode(b"-" * n + marker.encode()).decode() for n in range(3)]
    return [marker, *(code[4:20] for code in coded)]


def found(texts: Iterable[tuple[str, str]], wanted: Sequence[str]) -> set[str]:
    """Where any of these stands."""
    return {where for where, text in texts if any(one in text for one in wanted)}
