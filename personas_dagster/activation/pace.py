"""How fast a destination may be asked: a cap in any one-second window, and a pause for all.

The window is kept in this process. A cap that holds over several processes needs a shared bucket
(`pyrate_limiter` has one for SQLite and PostgreSQL): it fulfils `Limiter` and is handed to `sync`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

from pyrate_limiter import InMemoryBucket, MonotonicClock, Rate
from pyrate_limiter import Limiter as Window
from pyrate_limiter.limiter import SingleBucketFactory

_BUFFER_MS = 1
_TIDY_AFTER = 10_000


class Limiter(Protocol):
    """Grants one request at a time."""

    async def acquire(self) -> None: ...


class SlidingWindow:
    """At most `per_second` requests within any second; below one, that share of a request."""

    def __init__(self, per_second: float) -> None:
        rate = Rate(int(per_second), 1000) if per_second >= 1 else Rate(1, int(1000 / per_second))
        self._bucket = InMemoryBucket([rate])
        factory = SingleBucketFactory(self._bucket, schedule_leak=False)
        self._window = Window(factory, buffer_ms=_BUFFER_MS)
        self._clock = MonotonicClock()
        self._granted = 0

    async def acquire(self) -> None:
        await self._window.try_acquire_async("request")
        self._granted += 1
        if self._granted % _TIDY_AFTER == 0:
            self._bucket.leak(self._clock.now())


class SharedPace:
    """The pace of all batches of one sync. `hold` stops every new request for a while."""

    def __init__(
        self,
        limiter: Limiter | None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._limiter, self._sleep = limiter, sleep
        self._closed = 0
        self.requests = 0
        self._open = asyncio.Event()
        self._open.set()

    async def __call__(self) -> None:
        await self._open.wait()
        if self._limiter:
            await self._limiter.acquire()
        self.requests += 1

    async def hold(self, seconds: float) -> None:
        """Let no request start for this long. Overlapping holds end with the last."""
        self._closed += 1
        self._open.clear()
        try:
            await self._sleep(seconds)
        finally:
            self._closed -= 1
            if not self._closed:
                self._open.set()
