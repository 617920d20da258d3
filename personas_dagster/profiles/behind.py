"""A store's writing in a thread of its own: it takes rows in while the engine makes more."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from personas_dagster.profiles.store import Writer

WAITING = 8  # batches that are made before the store has taken them


class Behind:
    """Does what it is asked in that order; leaving the context waits, and raises what failed.

    After a failure nothing more is done: SQLite ends a transaction by itself on some errors, and
    what came then would stay.
    """

    def __init__(self, writer: Writer, *, waiting: int = WAITING) -> None:
        self._writer = writer
        self._waiting = waiting
        self._pool = ThreadPoolExecutor(1, "profile-store")
        self._asked: deque[tuple[Future[object], bool]] = deque()  # whether it holds a batch
        self._batches = 0
        self._stopped = False

    def copy(self, table: str, rows: pa.RecordBatchReader) -> int:
        count = 0
        for batch in rows:
            self._writer.expect(table, batch)
            part = pa.RecordBatchReader.from_batches(batch.schema, [batch])
            self._ask(partial(self._writer.copy, table, part), holds=True)
            count += batch.num_rows
        return count

    def run(self, statement: str, parameters: Mapping[str, Any] | None = None) -> None:
        self._ask(partial(self._writer.run, statement, parameters))

    def _ask(self, work: Callable[[], object], *, holds: bool = False) -> None:
        self._asked.append((self._pool.submit(self._do, work), holds))
        self._batches += holds
        while self._asked and (self._stopped or self._batches > self._waiting):
            self._finish_one()

    def _do(self, work: Callable[[], object]) -> None:
        if self._stopped:
            return
        try:
            work()
        except BaseException:
            self._stopped = True
            raise

    def _finish_one(self) -> None:
        done, held = self._asked.popleft()
        self._batches -= held
        done.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: object, trace: TracebackType | None
    ) -> None:
        try:
            while kind is None and self._asked:
                self._finish_one()
        finally:  # nothing is left to do, or nothing of it is to be done
            self._stopped = True
            self._pool.shutdown()
