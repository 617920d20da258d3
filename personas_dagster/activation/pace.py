"""How fast a destination may be asked: a cap in any one-second window, and a pause for all.

The cap holds where the tool counts. A request takes its place from when it may start until one
window after its answer: wherever between the two it arrived, no more than the cap arrive in any
window. The places stand in the row of the destination's newest sync, so that processes share them.

The window's arithmetic is pyrate-limiter's. Its own shared buckets would not do: that for SQLite
counts and inserts in two steps unless a file lock is added, that for PostgreSQL wants a pool of
its own, and both forget how long a request was on its way.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeAlias

import sqlalchemy as sa
from pyrate_limiter import Rate
from pyrate_limiter.abstracts.algorithm import SlidingWindowLog

from personas_dagster.errors import PersonasError
from personas_dagster.state.schema import syncs
from personas_dagster.state.store import State

_LOST_MS = 600_000  # a request that is older than this was a killed process's
_POLL_SECONDS = 0.02


# a place -> when it was taken, and when its request was answered, in milliseconds since 1970
Places: TypeAlias = dict[str, list[int | None]]


class Limiter(Protocol):
    """Gives out places, one for each request."""

    async def acquire(self) -> str:
        """A place, as soon as there is one."""

    def release(self, places: Sequence[str]) -> None:
        """The requests in these places were answered, or given up."""


def milliseconds() -> int:
    return time.time_ns() // 1_000_000


class SharedWindow:
    """At most `per_second` requests to a destination within any second, over all processes.

    Below one a second, it is one request in as many seconds as that takes.
    """

    def __init__(
        self,
        state: State,
        destination: str,
        per_second: float,
        *,
        clock: Callable[[], int] = milliseconds,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        whole = per_second >= 1
        self._rate = Rate(int(per_second), 1000) if whole else Rate(1, int(1000 / per_second))
        self._algorithm = SlidingWindowLog()
        self._state, self._destination = state, destination
        self._clock, self._sleep = clock, sleep
        self._turn = asyncio.Lock()
        self._answered: dict[str, int] = {}

    async def acquire(self) -> str:
        async with self._turn:  # one waits for all, so that the first to come goes first
            while True:
                place, seconds = self._take()
                if place is not None:
                    return place
                await self._sleep(seconds)

    def release(self, places: Sequence[str]) -> None:
        self._answered.update(dict.fromkeys(places, self._clock() + 1))
        if not self._turn.locked():  # else it is written down with the place that is waited for
            with self._places():
                pass

    def _take(self) -> tuple[str | None, float]:
        """A place, or how long to wait before asking again."""
        with self._places() as places:
            now = self._clock()
            if self._algorithm.admit([self._rate], [len(places)], 1).allowed:
                place = secrets.token_hex(8)
                places[place] = [now, None]
                return place, 0.0
            answered = [ended for _, ended in places.values() if ended is not None]
            if not answered:
                return None, _POLL_SECONDS
            exact = self._algorithm.retry_after(self._rate, now, min(answered)) / 1000
            # one that is on its way may be answered, and forgotten, by another process
            return None, exact if len(answered) == len(places) else max(_POLL_SECONDS, exact)

    @contextmanager
    def _places(self) -> Iterator[Places]:
        """The places that are taken, to be changed by one process at a time."""
        newest = (
            sa.select(syncs.c.sync_id, syncs.c.places)
            .where(syncs.c.destination == self._destination)
            .order_by(syncs.c.sync_id.desc())
            .limit(1)
            .with_for_update()
        )
        with self._state.begin() as connection:
            row = connection.execute(newest).one_or_none()
            if row is None:
                raise PersonasError(f"no sync of {self._destination} was started; start one first")
            places: Places = dict(row.places or {})
            answered, self._answered = self._answered, {}
            for place, ended in answered.items():
                if place in places:
                    places[place][1] = ended
            now = self._clock()
            start = self._algorithm.window_start(self._rate, now)
            places = {
                place: [started, ended]
                for place, (started, ended) in places.items()
                if ((started or 0) > now - _LOST_MS if ended is None
                    else start <= ended <= now + self._rate.interval)
            }  # fmt: skip
            yield places
            connection.execute(
                sa.update(syncs).where(syncs.c.sync_id == row.sync_id).values(places=places)
            )


def limiter_of(state: State, destination: str, per_second: float | None) -> SharedWindow | None:
    """The cap that all processes share, for what is asked between two syncs.

    None without a cap, and before the first sync: there is no row to count in.
    """
    first = sa.select(syncs.c.sync_id).where(syncs.c.destination == destination).limit(1)
    if per_second is None or not state.rows(first):
        return None
    return SharedWindow(state, destination, per_second)


def answered_now(places: Places | None, at: int) -> Places:
    """The places of a sync that ended, for the next: what was on its way counts from now."""
    return {
        place: [started, at + 1 if ended is None else ended]
        for place, (started, ended) in (places or {}).items()
    }


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

    def turn(self) -> Turn:
        """The pace of one `send`: `with pace.turn() as turn: await destination.send(..., turn)`."""
        return Turn(self, self._limiter)

    async def may_start(self) -> str | None:
        """Wait until a request may start; its place, where there is a cap."""
        await self._open.wait()
        place = await self._limiter.acquire() if self._limiter else None
        self.requests += 1
        return place

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


class Turn:
    """Awaited before each request of one `send`; its end says that the last was answered.

    The next request says so too of the one before: a send that makes more requests than the cap
    has places would wait for itself else.
    """

    def __init__(self, pace: SharedPace, limiter: Limiter | None) -> None:
        self._pace, self._limiter = pace, limiter
        self._places: list[str] = []

    async def __call__(self) -> None:
        self._answered()
        place = await self._pace.may_start()
        if place is not None:
            self._places.append(place)

    def __enter__(self) -> Turn:
        return self

    def __exit__(self, *_: object) -> None:
        self._answered()

    def _answered(self) -> None:
        places, self._places = self._places, []
        if self._limiter and places:
            self._limiter.release(places)
