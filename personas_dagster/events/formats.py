"""The formats of files of messages: known extensions, and whether a file is what it says."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from personas_dagster.errors import InputError

JOURNAL = "http.jsonl"  # what the HTTP application writes; see journal
_FORMATS = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".jsonl.gz": "jsonl.gz",
    ".ndjson.gz": "jsonl.gz",
    ".json.gz": "jsonl.gz",
    ".parquet": "parquet",
    ".csv": "csv",
    ".csv.gz": "csv.gz",
}
KNOWN = ", ".join(_FORMATS)
_FORMATS[f".{JOURNAL}"] = JOURNAL
UNREADABLE = "unreadable"
_GZIP_MAGIC = b"\x1f\x8b"


def format_of(path: Path) -> str | None:
    """The format that a file's name says, None when it says none."""
    name = path.name.lower()
    matches = [suffix for suffix in _FORMATS if name.endswith(suffix)]
    return _FORMATS[max(matches, key=len)] if matches else None


def is_ignored(path: Path) -> bool:
    """Whether a file is hidden or still being written."""
    return path.name.startswith(".") or path.name.endswith((".tmp", ".part"))


def check(path: Path) -> str:
    """The format of a file that can be read; an `InputError` that says why not."""
    if not path.is_file():
        found = "nothing is there" if not path.exists() else "it is not a file"
        raise InputError(f"{path}: {found}; give a file or a folder of messages")
    kind = format_of(path)
    if kind is None:
        found = path.suffix or "no extension"
        raise InputError(f"{path}: unknown kind of file ({found}); rename it to one of {KNOWN}")
    try:
        _check_content(path, kind)
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{path}: cannot be read ({reason}); check the rights") from error
    return kind


def _check_content(path: Path, kind: str) -> None:
    with path.open("rb") as stream:
        start = stream.read(4)
    if kind.endswith(".gz") and start and not start.startswith(_GZIP_MAGIC):
        raise InputError(
            f"{path}: not gzip (starts with {start!r}); compress it, or take .gz off its name"
        )
    if kind == "parquet":
        try:
            pq.read_schema(path)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"{path}: not Parquet ({reason}); write the file again") from error


def walk(folder: Path) -> Iterator[Path]:
    """The files of a folder and the folders in it, sorted by path, without the ignored ones."""
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(where) / name
            if not is_ignored(path):
                yield path
