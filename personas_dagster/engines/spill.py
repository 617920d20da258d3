"""Folders for what sessions put on disk when memory does not hold it.

A session has a folder of its own and removes it; what killed ones left, the next session removes.
A session that lives holds a lock on its folder, which a process loses however it ends.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from personas_dagster.errors import StoreError

_PREFIX = "personas-spill-"
_SETTLED = 60  # seconds: a younger folder may not be locked yet


@contextmanager
def spill_folder(parent: Path | None = None) -> Iterator[str]:
    """A folder for one session in `parent` (by default, where the system keeps such).

    Raises StoreError where none can be made.
    """
    try:
        if parent is not None:
            parent.mkdir(parents=True, exist_ok=True)
        made = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=parent)
    except OSError as error:
        raise StoreError(
            f"no folder for what memory does not hold: {error}; give rights to it, or name "
            "another one in the space's `engine: {temp_directory: ...}`"
        ) from error
    with made as folder:
        held = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(held, fcntl.LOCK_SH)
            if parent is not None:
                _remove_left(parent)
            yield folder
        finally:
            os.close(held)


def _remove_left(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        if _is_left(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    """Whether nobody holds the folder. Where its file system has no such locks, somebody does."""
    try:
        if time.time() - folder.stat().st_mtime < _SETTLED:
            return False
        held = os.open(folder, os.O_RDONLY)
    except OSError:
        return False  # another session was quicker
    try:
        fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(held)
    return True
