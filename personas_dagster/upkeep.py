"""What keeps the tables fast and small: months rewritten, columns filled, old files deleted."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from dataclasses import dataclass

from personas_dagster.events.resolved import compact, fill
from personas_dagster.query import typed_columns
from personas_dagster.spaces import Space

_FILLED_BY_A_REFRESH = 2_000_000  # messages


@dataclass(frozen=True)
class Tended:
    """The months of `events` that were rewritten: crowded ones, and those that lacked columns; and
    how many files, of all tables, were deleted."""

    compacted: Sequence[str]
    filled: Sequence[str]
    swept: int


def tend(space: Space, *, now: dt.datetime, at_most: int | None = _FILLED_BY_A_REFRESH) -> Tended:
    """Compact crowded months of `events`, fill typed columns that definitions read, and, once a
    day, delete files that no reader can need.

    At most so many messages are rewritten to fill columns (None: all that lack some).
    """
    columns = typed_columns(space.definitions)
    with space.engine.session(space.lake) as session:
        compacted = compact(session, space.lake, columns)
        filled = fill(session, space.lake, columns, at_most=at_most)
    return Tended(compacted, filled, _sweep(space, now))


def _sweep(space: Space, now: dt.datetime) -> int:
    """Delete files that went before the refresh that readers see began, a week ago or more."""
    last = space.last_refresh()
    if last is None or last["finished_at"].date() >= now.date():
        return 0
    return space.lake.sweep(hours=math.ceil((now - last["started_at"]) / dt.timedelta(hours=1)))
