"""When traits and audiences were evaluated last, which are due, and which are stale.

A definition with a schedule of its own is due at the first refresh at or after each of its ticks,
and at once when it is new or its query changed; one without is due at every refresh. An answer is
stale when two ticks have passed since its instant: one to be evaluated by, one for the run itself.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import sqlalchemy as sa
from cronsim import CronSim

from personas_dagster.project.declared import query_definitions
from personas_dagster.query import Definition
from personas_dagster.spaces import Space
from personas_dagster.state.schema import refreshes

EVALUATED = "evaluated"  # in a refresh's counts: key -> digest of the definition
_LOOK_BACK = 3_000  # refreshes: four months of hours


@dataclass(frozen=True)
class Evaluated:
    """The last published evaluation of a definition."""

    as_of: dt.datetime
    digest: str


@dataclass(frozen=True)
class Freshness:
    """How old an answer is. `as_of` is None when it was never evaluated."""

    as_of: dt.datetime | None
    is_stale: bool


def digest_of(definition: Definition) -> str:
    """What tells one definition of a key from another."""
    return hashlib.sha256(repr(definition).encode()).hexdigest()[:16]


def marks(definitions: Mapping[str, Definition]) -> dict[str, str]:
    """What a refresh keeps of the definitions that it evaluates."""
    return {key: digest_of(one) for key, one in definitions.items()}


def evaluations(space: Space) -> dict[str, Evaluated]:
    """The last published evaluation of each key that has one."""
    wanted = {one.key for one in space.definitions}
    query = (
        sa.select(refreshes.c.as_of, refreshes.c.counts)
        .where(refreshes.c.status == "finished")
        .order_by(refreshes.c.refresh_id.desc())
        .limit(_LOOK_BACK)
    )
    found: dict[str, Evaluated] = {}
    with space.state.read() as connection:
        for row in connection.execute(query).mappings():
            for key, digest in ((row["counts"] or {}).get(EVALUATED) or {}).items():
                found.setdefault(key, Evaluated(row["as_of"], digest))
            if wanted <= found.keys():
                break
    return {key: one for key, one in found.items() if key in wanted}


def due(space: Space, definitions: Mapping[str, Definition], *, as_of: dt.datetime) -> set[str]:
    """The keys among `definitions` that a refresh as of this instant has to evaluate."""
    schedules = _schedules(space)
    if not schedules:
        return set(definitions)
    last = evaluations(space)
    return {
        key
        for key, one in definitions.items()
        if key not in schedules
        or key not in last
        or last[key].digest != digest_of(one)
        or _tick(schedules[key], last[key].as_of, 1) <= as_of
    }


def freshness(space: Space, *, now: dt.datetime) -> dict[str, Freshness]:
    """Of each trait and audience of the space: as of when it is, and whether that is stale."""
    schedules, usual = _schedules(space), space.project.schedules.refresh
    last = evaluations(space)
    found = {}
    for one in space.definitions:
        if one.key not in last:
            found[one.key] = Freshness(None, True)
            continue
        as_of = last[one.key].as_of
        late = _tick(schedules.get(one.key, usual), as_of, 2)
        found[one.key] = Freshness(as_of, late <= now)
    return found


def _schedules(space: Space) -> dict[str, str]:
    found = query_definitions(space.project, space.has)
    models: list[tuple[str, Any]] = [(key, declared.model) for key, declared, _ in found]
    return {key: model.schedule for key, model in models if model.schedule}


def _tick(schedule: str, after: dt.datetime, nth: int) -> dt.datetime:
    """The schedule's `nth` tick after an instant."""
    found: dt.datetime = next(islice(CronSim(schedule, after.astimezone(dt.UTC)), nth - 1, None))
    return found
