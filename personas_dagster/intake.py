"""Messages into the tables of messages: what has landed, and partitions made again.

One intake of a space at a time: another one's end is waited for.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from uuid import uuid4

import stamina

from personas_dagster.errors import Busy
from personas_dagster.events import LoadReport, RebuildReport, load, rebuild
from personas_dagster.spaces import Space
from personas_dagster.suppressing import filter_of

_PATIENCE = 600.0  # seconds that an intake waits for another one


def take_in(
    space: Space, *, now: dt.datetime, progress: Callable[[int], None] | None = None
) -> LoadReport:
    """Load every file that landed, also those that somebody put into the folder.

    One intake of a space at a time: another one's end is waited for.
    """
    with _intake(space):
        space.landing.discover(now=now)
        return load(
            space.landing,
            space.lake,
            space.engine,
            space.state,
            settings=space.events,
            now=now,
            progress=progress,
            suppress=filter_of(space.state, space.rules),
        )


def rebuild_partitions(
    space: Space, dates: Sequence[dt.date], *, now: dt.datetime
) -> RebuildReport:
    """Make these days of `raw_events` again from the landing copies, with the same content."""
    take_in(space, now=now)
    with _intake(space):
        return rebuild(
            space.landing,
            space.lake,
            space.engine,
            space.state,
            settings=space.events,
            dates=dates,
            suppress=filter_of(space.state, space.rules),
        )


@contextmanager
def _intake(space: Space) -> Iterator[None]:
    lease = space.state.lease("intake", owner=uuid4().hex, holder="an intake of messages")
    for attempt in stamina.retry_context(on=Busy, attempts=None, timeout=_PATIENCE, wait_max=1.0):
        with attempt:
            lease.acquire()
    try:
        yield
    finally:
        lease.release()
