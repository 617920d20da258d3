"""When traits and audiences were evaluated last, which are due, and which are stale and why.

A definition with a schedule of its own is due at the first refresh at or after each of its ticks,
and at once when it is new or its query changed; one without is due at every refresh.

An answer is stale when two ticks have passed since its instant (one to be evaluated by, one for
the run itself), when a source of the space is overdue, or when a SQL trait that its definition
reads, also through others, failed or is late. Everything that answers about an audience asks here.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import sqlalchemy as sa
from cronsim import CronSim

from personas_dagster.project.declared import query_definitions
from personas_dagster.project.sql_columns import trait_columns
from personas_dagster.query import Definition, check
from personas_dagster.spaces import Space
from personas_dagster.state.schema import landing_files, refreshes

EVALUATED = "evaluated"  # in a refresh's counts: key -> digest of the definition
SQL_TRAITS = "sql_traits_ran"  # in a refresh's counts: key -> its columns, None where it failed
_LOOK_BACK = 3_000  # refreshes: four months of hours


@dataclass(frozen=True)
class Evaluated:
    """The last published evaluation of a definition."""

    as_of: dt.datetime
    digest: str
    size: int | None = None  # members, or profiles with a value


@dataclass(frozen=True)
class Ran:
    """What is known of a SQL trait: its last success, its last failure after that."""

    as_of: dt.datetime | None = None
    columns: tuple[str, ...] | None = None
    failed: dt.datetime | None = None


@dataclass(frozen=True)
class Freshness:
    """How old an answer is. `as_of` is None when it was never evaluated; `stale` says why it is
    not to be taken as current, and is empty where it may. `size`: members, or profiles with a
    value, at the last evaluation."""

    as_of: dt.datetime | None
    stale: tuple[str, ...] = ()
    size: int | None = None

    @property
    def is_stale(self) -> bool:
        return bool(self.stale)

    def as_json(self) -> dict[str, Any]:
        """What an answer shows of it beside its `as_of`."""
        return {"is_stale": self.is_stale, "stale": list(self.stale)}


def digest_of(definition: Definition) -> str:
    """What tells one definition of a key from another."""
    return hashlib.sha256(repr(definition).encode()).hexdigest()[:16]


def marks(definitions: Mapping[str, Definition]) -> dict[str, str]:
    """What a refresh keeps of the definitions that it evaluates."""
    return {key: digest_of(one) for key, one in definitions.items()}


def evaluations(space: Space) -> dict[str, Evaluated]:
    """The last published evaluation of each key that has one."""
    return _record(space, sql_traits=())[0]


def _record(
    space: Space, *, sql_traits: Collection[str]
) -> tuple[dict[str, Evaluated], dict[str, Ran]]:
    """The same, and the last runs of these SQL traits."""
    wanted = {one.key for one in space.definitions}
    waiting = set(sql_traits)
    query = (
        sa.select(refreshes.c.as_of, refreshes.c.counts)
        .where(refreshes.c.status == "finished")
        .order_by(refreshes.c.refresh_id.desc())
        .limit(_LOOK_BACK)
    )
    found: dict[str, Evaluated] = {}
    ran = dict.fromkeys(sql_traits, Ran())
    with space.state.read() as connection:
        for row in connection.execute(query).mappings():
            counts = row["counts"] or {}
            for key, digest in (counts.get(EVALUATED) or {}).items():
                found.setdefault(key, Evaluated(row["as_of"], digest, _size(counts, key)))
            for key in waiting & (counts.get(SQL_TRAITS) or {}).keys():
                columns, failed = counts[SQL_TRAITS][key], ran[key].failed
                if columns is None:
                    ran[key] = Ran(failed=failed or row["as_of"])
                else:
                    ran[key] = Ran(row["as_of"], tuple(columns), failed)
                    waiting.discard(key)
            if wanted <= found.keys() and not waiting:
                break
    return {key: one for key, one in found.items() if key in wanted}, ran


def _size(counts: Mapping[str, Any], key: str) -> int | None:
    audience = (counts.get("audiences") or {}).get(key)
    found = audience["size"] if audience else (counts.get("traits_held") or {}).get(key)
    return None if found is None else int(found)


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
    """Of each trait and audience of the space: as of when it is, and why it is stale if it is."""
    schedules, usual = _schedules(space), space.project.schedules.refresh
    last, ran = _record(space, sql_traits=space.sql_traits)
    why = _reasons(space, ran, now=now)
    found = {}
    for one in space.definitions:
        if one.key not in last:
            found[one.key] = Freshness(None, ("it was never evaluated", *why(one)))
            continue
        as_of = last[one.key].as_of
        late = _late(as_of, schedules.get(one.key, usual), now)
        found[one.key] = Freshness(as_of, (*late, *why(one)), last[one.key].size)
    return found


def of_draft(
    space: Space, definition: Definition, *, as_of: dt.datetime, now: dt.datetime
) -> Freshness:
    """Of a definition that is evaluated at an instant, on what the last refresh published.

    An instant before that refresh's is asked for as the past that it is.
    """
    last = space.last_refresh()
    if last is None or as_of < last["as_of"]:
        return Freshness(as_of)
    _, ran = _record(space, sql_traits=space.sql_traits)
    late = _late(last["as_of"], space.project.schedules.refresh, now)
    return Freshness(as_of, (*late, *_reasons(space, ran, now=now)(definition)))


def _late(as_of: dt.datetime, schedule: str, now: dt.datetime) -> tuple[str, ...]:
    if now < _tick(schedule, as_of, 2):
        return ()
    return (f"it is as of {as_of:%Y-%m-%d %H:%M} UTC, and due at `{schedule}`",)


def _reasons(
    space: Space, ran: Mapping[str, Ran], *, now: dt.datetime
) -> Callable[[Definition], Sequence[str]]:
    """Why an answer of a definition cannot be current, however recently it was evaluated."""
    sources = tuple(overdue_sources(space, now=now).values())
    failed = list(_failed(space, ran, now=now))
    if not failed:
        return lambda _: sources
    own = {one.key: one for one in space.definitions}

    def why(one: Definition) -> Sequence[str]:
        read = _reads(one, own)
        # One whose columns nobody knows may be behind every key that has no definition.
        behind = (text for those, text in failed if read and (those is None or read & those))
        return (*sources, *behind)

    return why


def _failed(
    space: Space, ran: Mapping[str, Ran], *, now: dt.datetime
) -> Iterator[tuple[frozenset[str] | None, str]]:
    """The traits of SQL traits that are not to be taken as current (None: not known), and why."""
    schedule = space.project.schedules.sql_traits
    for key, one in ran.items():
        if one.failed:  # why, its run says: that may hold sample rows
            text = f"SQL trait `{key}` failed as of {one.failed:%Y-%m-%d %H:%M} UTC"
        elif one.as_of is None:
            text = f"SQL trait `{key}` has not run yet"
        elif late := _late(one.as_of, schedule, now):
            text = f"SQL trait `{key}`: {late[0]}"
        else:
            continue
        model = space.sql_traits[key]
        dialect = space.engine.dialect if model.warehouse == "lake" else None
        columns = one.columns or trait_columns(model.query, dialect=dialect)
        yield None if columns is None else frozenset(columns), text


def _reads(definition: Definition, own: Mapping[str, Definition]) -> set[str]:
    """The keys without a definition that it reads, also through others."""
    seen: set[str] = set()
    waiting = [definition]
    while waiting:
        for key in check(waiting.pop()).references - seen:
            seen.add(key)
            if key in own:
                waiting.append(own[key])
    return seen - own.keys()


def overdue_sources(space: Space, *, now: dt.datetime) -> dict[str, str]:
    """Sources from which nothing has come for longer than they declare: id -> what is known."""
    declared = {key: one.expect_every for key, one in space.sources.items() if one.expect_every}
    if not declared:
        return {}
    newest = sa.select(sa.func.max(landing_files.c.landed_at).label("at"))
    found: dict[str, str] = {}
    for source, every in sorted(declared.items()):  # for each, one look into an index
        (last,) = space.state.rows(newest.where(landing_files.c.source_id == source))
        at = last["at"]
        if at is None:
            found[source] = f"{source} has sent nothing yet, and is expected every {every}"
        elif at + every < now:
            found[source] = (
                f"{source} has sent nothing since {at:%Y-%m-%d %H:%M} UTC, and is expected every "
                f"{every}"
            )
    return found


def _schedules(space: Space) -> dict[str, str]:
    found = query_definitions(space.project, space.has)
    models: list[tuple[str, Any]] = [(key, declared.model) for key, declared, _ in found]
    return {key: model.schedule for key, model in models if model.schedule}


def _tick(schedule: str, after: dt.datetime, nth: int) -> dt.datetime:
    """The schedule's `nth` tick after an instant."""
    found: dt.datetime = next(islice(CronSim(schedule, after.astimezone(dt.UTC)), nth - 1, None))
    return found
