"""Files of messages that a server appends to, in the landing folder's `incoming/<source_id>/`.

While it is written, a file is called `*.http.jsonl.part` and its writer holds a lock on it, which
ends with the writer's process however that ends. Whoever can take the lock may finish the file.
A line is one message, or, after `!`, a message that the server refused alone: reason, detail and
the message's text, divided by tabs. (No JSON begins with `!`.)

What belongs here: bytes on disk. What does not: HTTP, and who may write.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from personas_dagster.events.formats import JOURNAL
from personas_dagster.events.lines import BATCH

FINISHED = f".{JOURNAL}"
_OPEN = f"{FINISHED}.part"
_BLOCK = 1 << 16


class JournalFile:
    """A new file in `folder`, open for appending. Not to be used by several threads at once."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        while True:
            self.path = folder / f"{name}-{uuid4().hex[:12]}{_OPEN}"
            self._file = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            if _is_at(self._file, self.path):
                break
            os.close(self._file)  # taken for a dead writer's before it was locked
        self.size, self._torn = 0, False
        _sync_folder(folder)

    def append(self, lines: bytes) -> None:
        """Add whole lines; they are on disk when this returns. After an OSError none of them is."""
        try:
            rest = memoryview(lines)
            while rest:
                rest = rest[os.write(self._file, rest) :]
            os.fdatasync(self._file)
        except OSError:
            self._torn = True
            os.ftruncate(self._file, self.size)
            self._torn = False
            raise
        self.size += len(lines)

    def finish(self) -> None:
        """Give the file to whoever takes messages in; an empty one goes away.

        What was written in part, and could not be taken back, is left to `recover`.
        """
        try:
            if not self._torn:
                _hand_over(self._file, self.path)
        finally:
            self.close()

    def close(self) -> None:
        """Let go of the file as it is."""
        os.close(self._file)


def probe(folder: Path) -> None:
    """An OSError when no messages can be kept in `folder` now. Leaves nothing behind."""
    file = JournalFile(folder, "probe")
    try:
        file.append(b"\n" * _BLOCK)
    finally:
        file.path.unlink(missing_ok=True)
        file.close()


def recover(incoming: Path) -> list[Path]:
    """Finish the files of writers that are gone; returns them. A torn last line is cut off:
    nobody was told that it is safe."""
    found = []
    for path in sorted(incoming.glob(f"*/*{_OPEN}")):
        try:
            file = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            continue  # another process was quicker
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, path):
                os.ftruncate(file, _whole_lines(file))
                os.fsync(file)
                if _hand_over(file, path):
                    found.append(_finished(path))
        except BlockingIOError:
            continue  # its writer lives
        finally:
            os.close(file)
    return found


def refused(reason: str, detail: str, text: bytes) -> bytes:
    """The line, without its end, of a message that the server refused alone."""
    return b"!" + b"\t".join((reason.encode(), detail.encode(), _one_line(text)))


def one_line(text: bytes) -> bytes:
    """JSON text without line ends: they can only stand between its parts."""
    return _one_line(text) if b"\n" in text or b"\r" in text else text


def with_reasons(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Lines of a journal, the refused ones with their reason. Shape: `lines.BATCH`."""
    for batch in batches:
        marked = pc.starts_with(batch["raw"], "!")
        yield _unfold(batch, marked.to_pylist()) if pc.any(marked).as_py() else batch


def _unfold(batch: pa.RecordBatch, marked: list[bool]) -> pa.RecordBatch:
    rows = batch.to_pylist()
    for row, is_marked in zip(rows, marked, strict=True):
        parts = row["raw"].split("\t", 2)
        if is_marked and len(parts) == 3:
            reason, detail, row["raw"] = parts
            row["bad_reason"], row["bad_detail"] = reason[1:], detail
    return pa.RecordBatch.from_pylist(rows, schema=BATCH)


def _one_line(text: bytes) -> bytes:
    return text.replace(b"\r", b" ").replace(b"\n", b" ")


def _whole_lines(file: int) -> int:
    """How many bytes there are up to the last line end."""
    end = os.fstat(file).st_size
    while end:
        start = max(0, end - _BLOCK)
        found = os.pread(file, end - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        end = start
    return 0


def _hand_over(file: int, path: Path) -> bool:
    """Rename a locked file so that it is taken up; whether there was anything in it."""
    if os.fstat(file).st_size == 0:
        path.unlink(missing_ok=True)
        return False
    path.rename(_finished(path))
    return True


def _finished(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".part"))


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is still the one under its name."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _sync_folder(folder: Path) -> None:
    """The name of a new file is durable too, and so are the folders that were made for it."""
    for one in (folder, folder.parent, folder.parent.parent):
        descriptor = os.open(one, os.O_RDONLY)
        try:
            with contextlib.suppress(OSError):  # some file systems cannot
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
