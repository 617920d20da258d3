"""Messages on disk before anybody is told so: one synced write for all requests that wait.

While one write is under way, the lines of further requests gather; they are the next write. So
the disk's time for a sync bounds how long a request waits, and not how many there can be.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from personas_dagster.events.journal import JournalFile, probe
from personas_dagster.serving import logs, metrics
from personas_dagster.serving.errors import ApiError

_REQUEST_BYTES = 4_096  # what a request takes in memory besides its body


@dataclass
class _Waiting:
    """Lines for one folder, and whoever waits for them."""

    done: asyncio.Future[None]
    parts: list[bytes] = field(default_factory=list)


@dataclass
class _Open:
    file: JournalFile
    since: float


class Journal:
    """Appends lines to files under the given folders; used with `async with` by one event loop.

    A file is finished (and taken up by the next intake) when it has `rotate_bytes` or is
    `rotate_seconds` old. `limit` is how many bytes of requests may be in memory.
    """

    def __init__(
        self, *, limit: int = 32 << 20, rotate_bytes: int = 64 << 20, rotate_seconds: float = 10.0
    ) -> None:
        self._limit, self._rotate_bytes, self._seconds = limit, rotate_bytes, rotate_seconds
        self._held = 0
        self._waiting: dict[Path, _Waiting] = {}
        self._open: dict[Path, _Open] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="journal")
        self._wake = asyncio.Event()
        self._ending = False
        self._failing: Path | None = None

    @contextmanager
    def room(self) -> Iterator[Callable[[int], None]]:
        """Memory for one request: call it with each number of bytes that come to be held.

        429 when there is no more.
        """
        taken = 0

        def take(size: int) -> None:
            nonlocal taken
            if self._held + size > self._limit:
                raise ApiError(
                    429, "too much at once; send it again later", headers={"Retry-After": "1"}
                )
            taken += size
            self._held += size
            metrics.WAITING_BYTES.set(self._held)

        try:
            take(_REQUEST_BYTES)
            yield take
        finally:
            self._held -= taken
            metrics.WAITING_BYTES.set(self._held)

    async def append(self, folder: Path, lines: bytes) -> None:
        """Add whole lines to the folder's file; they are on disk when this returns.

        503 when the disk does not take them: then none of them was kept.
        """
        waiting = self._waiting.get(folder)
        if waiting is None:
            done = asyncio.get_running_loop().create_future()
            waiting = self._waiting[folder] = _Waiting(done)
        waiting.parts.append(lines)
        self._wake.set()
        await asyncio.shield(waiting.done)

    def unready(self) -> str | None:
        """Why messages cannot be taken now, None when they can. Blocks for a write at most.

        After a failure the disk is asked again: perhaps nobody sends until this says that it can.
        """
        folder = self._failing
        if folder is None:
            return None
        try:
            probe(folder)
        except OSError as error:
            return f"messages cannot be written to disk: {error.strerror}"
        self._failing = None
        return None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._ending = True
        self._wake.set()
        await self._task
        self._thread.shutdown()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while not (self._ending and not self._waiting):
            try:
                await asyncio.wait_for(self._wake.wait(), self._next_rotation())
            except TimeoutError:
                pass
            self._wake.clear()
            round_, self._waiting = self._waiting, {}
            try:
                failed = await loop.run_in_executor(self._thread, self._write, round_)
            except Exception as error:  # a defect: nobody waits for ever, and the next round comes
                logs.tell("journal failed", level=logging.ERROR, **logs.exception(error))
                failed = dict.fromkeys(round_, _not_kept())
            for folder, waiting in round_.items():
                if folder in failed:
                    waiting.done.set_exception(failed[folder])
                    waiting.done.exception()  # told to those who still wait
                else:
                    waiting.done.set_result(None)
        await loop.run_in_executor(self._thread, self._finish, list(self._open))

    def _next_rotation(self) -> float | None:
        if not self._open:
            return None
        return max(0.0, min(one.since for one in self._open.values()) + self._seconds - _clock())

    def _write(self, round_: dict[Path, _Waiting]) -> dict[Path, ApiError]:
        """In the journal's thread: write and sync what has gathered, then change files."""
        failed: dict[Path, ApiError] = {}
        for folder, waiting in round_.items():
            began = _clock()
            try:
                self._file(folder).append(b"".join(waiting.parts))
            except Exception as error:  # whatever it is, those who wait hear of it
                self._failing = folder
                logs.tell("journal failed", level=logging.ERROR, **logs.exception(error))
                failed[folder] = _not_kept()
            else:
                self._failing = None
                metrics.SYNC_SECONDS.observe(_clock() - began)
        due = [
            folder
            for folder, one in self._open.items()
            if folder in failed
            or one.file.size >= self._rotate_bytes
            or one.since + self._seconds <= _clock()
        ]
        self._finish(due)
        return failed

    def _file(self, folder: Path) -> JournalFile:
        if folder not in self._open:
            stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
            self._open[folder] = _Open(JournalFile(folder, stamp), _clock())
        return self._open[folder].file

    def _finish(self, folders: list[Path]) -> None:
        for folder in folders:
            try:
                self._open.pop(folder).file.finish()
            except OSError as error:  # it stays, and is finished by whoever looks next
                logs.tell("journal failed", level=logging.ERROR, **logs.exception(error))


def _not_kept() -> ApiError:
    return ApiError(
        503, "messages cannot be kept now; send it again later", headers={"Retry-After": "5"}
    )


def _clock() -> float:
    return time.monotonic()
