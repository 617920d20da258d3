"""Which traits and audiences are stale, for routes that answer about them.

What belongs here: keeping what `freshness` says for some seconds, so that no request waits for it.
"""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping

from starlette.concurrency import run_in_threadpool

from personas_dagster import defining
from personas_dagster.freshness import Freshness, freshness
from personas_dagster.spaces import Space

KEPT = 30.0  # seconds
_NAMED = 20


class Staleness:
    """One for an application. What it says is at most `KEPT` seconds old."""

    def __init__(self, now: Callable[[], dt.datetime]) -> None:
        self._now = now
        self._known: dict[str, tuple[float, Mapping[str, tuple[str, Freshness]]]] = {}

    async def of(self, space: Space, collection: str) -> dict[str, Freshness]:
        """The stale definitions of a collection, by key, and why."""
        until, known = self._known.get(space.name, (0.0, None))
        if known is None or time.monotonic() >= until:
            if known is not None:  # others take what is there while this one asks
                self._known[space.name] = (time.monotonic() + KEPT, known)
            known = await run_in_threadpool(self._ask, space)
            self._known[space.name] = (time.monotonic() + KEPT, known)
        return {key: fresh for key, (kind, fresh) in known.items() if kind == collection}

    def _ask(self, space: Space) -> dict[str, tuple[str, Freshness]]:
        here = defining.fresh(space)
        found = freshness(here, now=self._now())
        return {
            one.key: (one.collection, found[one.key])
            for one in here.definitions
            if found[one.key].is_stale
        }


def header(keys: list[str]) -> dict[str, str]:
    """The header that names stale keys; none when all are current."""
    if not keys:
        return {}
    more = f", and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return {"Personas-Stale": ", ".join(keys[:_NAMED]) + more}
