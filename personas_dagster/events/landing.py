"""The landing folder: what came in, kept as it came in, byte for byte.

    root/files/<sha256>.<ext>     the copies, one per content
    root/incoming/[<source_id>/]  where others may put files
    root/staging/                 decoded rows of the load under way

What belongs here: taking files over and remembering them. What does not: reading messages.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from personas_dagster.errors import InputError
from personas_dagster.events import formats, journal
from personas_dagster.state import State
from personas_dagster.state.schema import landing_files, loads

_BLOCK = 1 << 20


@dataclass(frozen=True)
class LandedFile:
    """A file of messages in the landing folder. `known`: it had been landed before."""

    file_id: int
    sha256: str
    name: str
    path: Path
    format: str
    source_id: str
    bytes: int
    landed_at: dt.datetime
    load_id: int | None = None
    damaged: str | None = None
    known: bool = False


class Landing:
    """The landing folder of a space at `root`, with its records in `state`.

    Each file is copied beside its place, synced, renamed, recorded, and only then (for
    `discover`) taken away from where it was: ended at any point, nothing is lost and nothing
    is there twice.
    """

    def __init__(self, root: Path, state: State) -> None:
        self.root, self._state = Path(root), state
        self.incoming = self.root / "incoming"
        self.staging = self.root / "staging"
        self._files = self.root / "files"
        self._known: list[LandedFile] = []

    def land(
        self, paths: Sequence[Path], *, source_id: str = "files", now: dt.datetime
    ) -> list[LandedFile]:
        """Copy files, and the files of folders, into the landing folder.

        All paths are checked first: an `InputError` means that nothing was landed. In a folder,
        files whose extension is not known are left alone.
        """
        found = [(path, formats.check(path)) for given in paths for path in _expand(Path(given))]
        landed = [self._take(path, kind, source_id, now) for path, kind in found]
        self._known.extend(file for file in landed if file.known)
        return landed

    def discover(self, *, now: dt.datetime) -> list[LandedFile]:
        """Take over what others have put into `incoming/` and `incoming/<source_id>/`.

        A file that cannot be read at all is taken too, and reported as damaged by its load. What
        a server that is gone left open is finished first.
        """
        journal.recover(self.incoming)
        landed = []
        for path in formats.walk(self.incoming):
            inside = path.relative_to(self.incoming).parts
            source_id = inside[0] if len(inside) > 1 else "files"
            try:
                kind, damaged = formats.check(path), None
            except InputError as error:
                kind, damaged = formats.UNREADABLE, str(error)
            try:
                before = path.stat()
                file = self._take(path, kind, source_id, now, damaged)
                after = path.stat()
                if (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns):
                    path.unlink()
            except FileNotFoundError:
                continue  # its owner, or another process, was quicker
            landed.append(file)
        self._known.extend(file for file in landed if file.known)
        return landed

    def pending(self) -> list[LandedFile]:
        """Landed, and not yet in a finished load."""
        under_way = sa.select(loads.c.load_id).where(loads.c.status == "loading")
        return self.files(
            sa.or_(landing_files.c.load_id.is_(None), landing_files.c.load_id.in_(under_way))
        )

    def files(self, where: sa.ColumnElement[bool]) -> list[LandedFile]:
        """The landed files that a condition on `landing_files` holds for, oldest first."""
        query = sa.select(landing_files).where(where).order_by(landing_files.c.file_id)
        return [self._file(row) for row in self._state.rows(query)]

    def take_known(self) -> list[LandedFile]:
        """The files that were found again since the last call, for the next load's report."""
        known, self._known = self._known, []
        return known

    def _file(self, row: dict[str, Any], *, known: bool = False) -> LandedFile:
        fields = {name: row[name] for name in LandedFile.__dataclass_fields__ if name in row}
        return LandedFile(**{**fields, "path": self.root / row["path"], "known": known})

    def _take(
        self,
        path: Path,
        kind: str,
        source_id: str,
        now: dt.datetime,
        damaged: str | None = None,
    ) -> LandedFile:
        self._files.mkdir(parents=True, exist_ok=True)
        temporary = self._files / f".{os.getpid()}-{path.name[-100:]}.tmp"
        try:
            sha256, size = _copy(path, temporary)
            known = self._lookup(sha256)
            if known and known.path.exists():
                return replace(known, name=str(path), known=True)
            target = known.path if known else self._files / f"{sha256}.{kind}"
            temporary.rename(target)
            _sync_folder(self._files)
        finally:
            temporary.unlink(missing_ok=True)
        if known:
            return replace(known, name=str(path), known=True)
        values = {
            "sha256": sha256,
            "name": str(path),
            "path": str(target.relative_to(self.root)),
            "format": kind,
            "source_id": source_id,
            "bytes": size,
            "landed_at": now,
            "damaged": damaged,
        }
        try:
            with self._state.begin() as connection:
                result = connection.execute(sa.insert(landing_files).values(values))
                key = result.inserted_primary_key
        except IntegrityError:  # another process landed the same content meanwhile
            known = self._lookup(sha256)
            if known is None:
                raise
            return replace(known, name=str(path), known=True)
        assert key is not None
        return self._file({**values, "file_id": int(key[0]), "landed_at": now})

    def _lookup(self, sha256: str) -> LandedFile | None:
        found = self.files(landing_files.c.sha256 == sha256)
        return found[0] if found else None


def _expand(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = [inside for inside in formats.walk(path) if formats.format_of(inside)]
    if not found:
        raise InputError(f"{path}: no file of messages in this folder; known: {formats.KNOWN}")
    return found


def _copy(source: Path, target: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with source.open("rb") as reading, target.open("wb") as writing:
        while block := reading.read(_BLOCK):
            digest.update(block)
            size += len(block)
            writing.write(block)
        writing.flush()
        os.fsync(writing.fileno())
    return digest.hexdigest(), size


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some file systems cannot
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
