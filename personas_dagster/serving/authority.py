"""Who asks, and how often: the token of a request, its roles, and the space's rate.

What belongs here: what a route with a space in its path depends on. An unknown space is answered
as an unknown token is.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from fastapi import Request
from filelock import FileLock
from pyrate_limiter import Duration, InMemoryBucket, Limiter, Rate, SQLiteBucket
from starlette.concurrency import run_in_threadpool

from personas_dagster import access
from personas_dagster.serving.credentials import presented
from personas_dagster.serving.errors import ApiError
from personas_dagster.spaces import Space

_SHARED_FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # set where there are several workers
T = TypeVar("T")


@dataclass(frozen=True)
class Caller:
    """A request that was let in: its space, and what its token allows."""

    space: Space
    token: access.Token

    @property
    def has_pii(self) -> bool:
        return self.token.has_pii

    async def ask(self, work: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Read from the space's stores. What is on a server is waited for in a thread."""
        return await reading(self.space, lambda: work(*arguments, **options))


async def reading(space: Space, work: Callable[[], T]) -> T:
    """SQLite answers at once from memory or disk; a thread would only cost time."""
    if space.state.url.get_backend_name() == "sqlite":
        return work()
    return await run_in_threadpool(work)


class Authority:
    """Lets requests in. One for an application: it counts the requests of each space."""

    def __init__(self, spaces: Mapping[str, Space]) -> None:
        self.spaces = spaces
        self._known: dict[str, tuple[int | None, dict[bytes, access.Token]]] = {}
        self._limiters = {name: _limiter(space) for name, space in spaces.items()}

    def needs(self, *roles: str) -> Callable[..., Awaitable[Caller]]:
        """A dependency: the caller, whose token has one of these roles."""

        async def caller(request: Request, space: str) -> Caller:
            text = presented(request.headers.get("authorization"))
            opened = self.spaces.get(space)
            token = await self._find(opened, text) if text and opened is not None else None
            if token is None or opened is None:
                raise ApiError(401, "a valid access token of this space is needed")
            request.state.facts.update(space=space, token=token.name)
            if not token.may(*roles):
                raise ApiError(403, f"this token has not the role `{roles[0]}`")
            await self._count(opened)
            return Caller(opened, token)

        return caller

    async def _find(self, space: Space, text: str) -> access.Token | None:
        """The token. One that was found is known as long as nobody wrote to the state."""
        mark = space.state.mark()
        if mark is None:
            return await reading(space, lambda: access.find(space.state, space.name, text))
        known_at, known = self._known.get(space.name, (None, {}))
        if known_at != mark:
            known = {}
            self._known[space.name] = (mark, known)
        digest = hashlib.sha256(text.encode()).digest()
        if digest not in known:
            token = access.find(space.state, space.name, text)
            if token is None:
                return None
            known[digest] = token
        return known[digest]

    async def _count(self, space: Space) -> None:
        if not self._limiters[space.name].try_acquire(space.name, blocking=False):
            raise ApiError(
                429,
                f"more than {space.settings.profile_api.rate} requests a second in this space",
                headers={"Retry-After": "1"},
            )


class _Shared:
    """A limiter that several processes count in, one at a time."""

    def __init__(self, rates: list[Rate], path: Path) -> None:
        self._lock = FileLock(f"{path}.lock")
        with self._lock:
            bucket = SQLiteBucket.init_from_file(rates, db_path=str(path))
        bucket.conn.execute("PRAGMA synchronous = OFF")  # what it counts is a second old at most
        self._limiter = Limiter(bucket, buffer_ms=0)

    def try_acquire(self, name: str, *, blocking: bool) -> object:
        with self._lock:
            return self._limiter.try_acquire(name, blocking=blocking)


def _limiter(space: Space) -> Limiter | _Shared:
    """A window of a second; over all workers where there are several."""
    rates = [Rate(space.settings.profile_api.rate, Duration.SECOND)]
    folder = os.environ.get(_SHARED_FOLDER)
    if not folder:
        return Limiter(InMemoryBucket(rates), buffer_ms=0)
    return _Shared(rates, Path(folder) / f"rate-{space.name}.sqlite")
