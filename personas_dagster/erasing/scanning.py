"""Every byte stored, searched for a person's identifiers: what `personas delete --verify` does.

Packed files are unpacked first: Parquet column by column, gzip as text. Files of databases are
searched as they are, so that pages that were given up count as well.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import duckdb

from personas_dagster.erasing.person import Person

_BLOCK = 8 << 20
_OVERLAP = 4_096
_TEXT = (".json", ".jsonl", ".csv", ".log", ".txt", ".yaml", ".err", ".out")


def scan(roots: Sequence[Path], person: Person) -> list[Path]:
    """The files below `roots` that hold an identifier of the person."""
    words = re.compile(person.pattern.encode())
    bare = re.compile(b"|".join(re.escape(value.encode()) for value in person.telling) or b"(?!)",
                      re.IGNORECASE)  # fmt: skip
    found = []
    for path in files(roots):
        if path.suffix == ".parquet":
            hit = _in_parquet(path, person.pattern, bare)
        elif path.suffix == ".gz":
            hit = _in_stream(path, words, packed=True)
        else:
            hit = _in_stream(path, words if path.suffix in _TEXT else bare)
        if hit:
            found.append(path)
    return found


def files(roots: Sequence[Path]) -> Iterator[Path]:
    """All files below some folders, once each, in order."""
    seen = {
        path.resolve()
        for root in roots
        for path in ([root] if root.is_file() else root.rglob("*"))
        if path.is_file()
    }
    yield from sorted(seen)


def _in_parquet(path: Path, pattern: str, bare: re.Pattern[bytes]) -> bool:
    with duckdb.connect() as connection:
        try:
            relation = connection.read_parquet(str(path), hive_partitioning=False)
        except (
            duckdb.Error
        ):  # whoever wrote it was killed, or it is gone: its bytes are what it has
            return _in_stream(path, bare)
        if not relation.columns:
            return False
        texts = [
            f"coalesce(regexp_matches({_quoted(name)}::VARCHAR, $1), false)"
            for name in relation.columns
        ]
        relation.create_view("searched")
        query = f"SELECT count(*) FROM searched WHERE {' OR '.join(texts)}"
        row = connection.execute(query, [pattern]).fetchone()
    return bool(row and row[0])


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _in_stream(path: Path, pattern: re.Pattern[bytes], *, packed: bool = False) -> bool:
    carry = b""
    try:
        with gzip.open(path) if packed else path.open("rb") as stream:
            while block := stream.read(_BLOCK):
                if pattern.search(carry + block):
                    return True
                carry = block[-_OVERLAP:]
    except FileNotFoundError:
        pass  # a session that had it on disk has ended
    return False
