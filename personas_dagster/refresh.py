"""A refresh, stage by stage: take messages in, resolve them, compute, publish.

Each stage may run in a process of its own; `begin` is idempotent by run id. A refresh that did
not finish is invisible to readers, and the next one discards what it wrote. What it resolved
into the identity graph stays: a load that was applied is applied.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from personas_dagster import freshness
from personas_dagster.errors import Busy, LakeUnavailable, PersonasError
from personas_dagster.identity import loads as identity_loads
from personas_dagster.identity import rebuilding, views
from personas_dagster.identity.guard import Verdict
from personas_dagster.identity.judging import warm
from personas_dagster.identity.propose import Proposal
from personas_dagster.interfaces import Lake, Session
from personas_dagster.lake import ahead
from personas_dagster.lake.tables import TABLES
from personas_dagster.profiles import keeping
from personas_dagster.profiles.keeping import Kept
from personas_dagster.profiles.store import Published
from personas_dagster.query import Definition, typed_columns
from personas_dagster.spaces import Space
from personas_dagster.state.registry import created, register
from personas_dagster.state.schema import refreshes
from personas_dagster.traits.compute import Computed, compute
from personas_dagster.traits.custom import Refreshed, refresh_custom_traits
from personas_dagster.traits.standing import SAMPLE, Standing, base_of_custom, standing_of
from personas_dagster.traits.tidying import tidy

_GRAPH = ("identifiers", "merges", "account_links")
_STANDING = 30  # refreshes
_TRAITS = ("custom_traits", "computed_traits", "sql_traits")
_LOGS = (*_TRAITS, "audience_changes")


@dataclass(frozen=True)
class Refresh:
    """A refresh under way."""

    refresh_id: int
    run_id: str
    as_of: dt.datetime


def floor_hour(instant: dt.datetime) -> dt.datetime:
    """The start of the instant's hour, in UTC."""
    return instant.astimezone(dt.UTC).replace(minute=0, second=0, microsecond=0)


def begin(
    space: Space, *, run_id: str, now: dt.datetime, as_of: dt.datetime | None = None
) -> Refresh:
    """Open the refresh of a run, or find it if an earlier stage of the run has opened it.

    The caller holds the space's refresh lease, so any other refresh that is open is dead.
    """
    state = space.state
    found = state.rows(sa.select(refreshes).where(refreshes.c.run_id == run_id))
    if found:
        return Refresh(found[0]["refresh_id"], run_id, found[0]["as_of"])
    as_of = floor_hour(now) if as_of is None else as_of.astimezone(dt.UTC)
    check_forward(space, as_of)
    _discard_unfinished(space, now=now)
    derive_anew(space, now=now)
    register(state, _registered(space), now=now)
    counts = {"graph_moved": True} if _graph_moved(space) else {}
    with state.begin() as connection:
        row = sa.insert(refreshes).values(
            run_id=run_id, as_of=as_of, status="started", started_at=now, counts=counts
        )
        refresh_id = connection.execute(row.returning(refreshes.c.refresh_id)).scalar_one()
    return Refresh(int(refresh_id), run_id, as_of)


def _graph_moved(space: Space) -> bool:
    """Whether the graph is not what the last refresh published: by one that did not finish, or by
    a command. Then this refresh has more to tell destinations than what it resolves itself."""
    last = space.last_refresh()
    if last is None:
        return False
    then = last["versions"]
    return any(space.lake.version(name) != then.get(name) for name in _GRAPH)


def check_forward(space: Space, as_of: dt.datetime) -> None:
    """PersonasError when an instant lies before the last refresh's."""
    last = space.last_refresh()
    if last and as_of < last["as_of"]:
        raise PersonasError(
            f"as of {_text(as_of)} is earlier than the last refresh ({_text(last['as_of'])}); "
            "a refresh only goes forward: use `personas query --as-of` to look back"
        )


def derive_anew(
    space: Space, *, now: dt.datetime, progress: Callable[[int, int], None] | None = None
) -> rebuilding.Rebuilt | None:
    """Derive the graph anew from messages if a decision or a person asked for it."""
    identity_loads.finish(space.lake, space.engine, space.state, now=now)
    return rebuilding.run_due(
        space.lake,
        space.engine,
        space.state,
        space_id=space.name,
        now=now,
        columns=typed_columns(space.definitions),
        progress=progress,
    )


def get_ready(space: Space) -> None:
    """Start what takes seconds and runs beside us: a job's first step, or who starts the job."""
    after, through = identity_loads.span(space.state)
    if through > after:  # messages wait for the graph
        warm()
    with suppress(LakeUnavailable):  # who reads it tells what is wrong
        ahead.start(space.lake)


def propose(space: Space, *, now: dt.datetime) -> Proposal | None:
    """Make merge candidates of the messages that the graph does not hold."""
    get_ready(space)
    return identity_loads.propose_load(
        space.lake, space.engine, space.state, space.rules, space_id=space.name, now=now
    )


def check(space: Space) -> Verdict | None:
    """Judge the candidates that wait."""
    return identity_loads.check_load(space.lake, space.engine, space.state, space.rules)


def hubs(space: Space) -> list[dict[str, Any]]:
    """Identifiers of the candidates that would join unusually many profiles; for a person."""
    return identity_loads.hubs(space.state)


def apply(space: Space, *, now: dt.datetime) -> identity_loads.Applied | None:
    """Write the candidates that passed to the graph. From here on a core has little to do."""
    space.profiles.get_ready()
    return identity_loads.apply_load(space.lake, space.engine, space.state, now=now)


def settle(space: Space) -> int:
    """Write the messages of the load that was applied to `events`."""
    return identity_loads.settle_load(
        space.lake, space.engine, space.state, columns=typed_columns(space.definitions)
    )


def custom_traits(space: Space, refresh: Refresh, *, sample: int = SAMPLE) -> Refreshed:
    """Bring custom traits up to the refresh's instant; before that, tidy the logs of traits."""
    before = _finished(space)
    with space.engine.session(space.lake) as session:
        keeping.expect(session, space.profiles, refresh_id=refresh.refresh_id)
        note(space, refresh, log_rows=_tidy(session, space.lake, before))
        views.prepare(session)
        refreshed = refresh_custom_traits(
            session,
            space.lake,
            as_of=refresh.as_of,
            refresh_id=refresh.refresh_id,
            promote=space.promotions,
            conflicts=space.conflicts,
            base=base_of_custom(before),
            sample=sample,
        )
    note(
        space,
        refresh,
        custom=refreshed.record and dict(refreshed.record),
        custom_traits_changed=dict(refreshed.changed),
    )
    return refreshed


def _tidy(session: Session, lake: Lake, before: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Tidy the logs of traits that have grown; how many rows each had when it was tidy last."""
    counted = ((one["counts"] or {}).get("log_rows") for one in before)
    held: Mapping[str, int] = next(filter(None, counted), {})
    finished = before[0]["refresh_id"] if before else 0
    return {log: tidy(session, lake, log, held=held.get(log), finished=finished) for log in _TRAITS}


def compute_definitions(
    space: Space,
    refresh: Refresh,
    *,
    only: Collection[str] | None = None,
    sample: int = SAMPLE,
) -> Computed:
    """Evaluate the space's traits and audiences (only these keys, if given) and record changes.

    Values that stand since an earlier refresh are computed again where something touched them,
    and of `sample` other profiles. The counts are kept with the refresh, for the next one too.
    Of all definitions, only those are evaluated that are due by their schedules.
    """
    definitions = {one.key: one for one in dated_definitions(space)}
    if only is None or set(only) >= definitions.keys():
        only = freshness.due(space, definitions, as_of=refresh.as_of)
    definitions = {key: one for key, one in definitions.items() if key in only}
    with space.session(space.lake) as session:
        computed = compute(
            session,
            space.lake,
            list(definitions.values()),
            as_of=refresh.as_of,
            refresh_id=refresh.refresh_id,
            run_id=refresh.run_id,
            audiences=space.audience_keys,
            defined=space.computed_keys,
            stands=standing(space),
            sample=sample,
        )
    note(
        space,
        refresh,
        traits_changed=dict(computed.traits_changed),
        traits_held=dict(computed.traits_held),
        audiences={
            key: {"size": m.size, "entered": m.entered, "exited": m.exited}
            for key, m in computed.movements.items()
        },
        profiles_computed="all" if computed.touched is None else computed.touched,
        computed=dict(computed.record) if computed.record else None,
        **{freshness.EVALUATED: freshness.marks(definitions)},
    )
    return computed


def standing(space: Space) -> list[Standing]:
    """The latest refreshes that computed, as far as the next one can build on them."""
    return standing_of(_finished(space))


def _finished(space: Space) -> list[dict[str, Any]]:
    """The latest refreshes that finished, the newest first."""
    query = (
        sa.select(refreshes)
        .where(refreshes.c.status == "finished")
        .order_by(refreshes.c.refresh_id.desc())
        .limit(_STANDING)
    )
    return space.state.rows(query)


def sizes(space: Space, audiences: Collection[str]) -> dict[str, dict[dt.datetime, int]]:
    """How many members audiences had at the latest refreshes that evaluated them."""
    found: dict[str, dict[dt.datetime, int]] = {key: {} for key in audiences}
    for row in _finished(space):
        counted = (row["counts"] or {}).get("audiences") or {}
        for key in found.keys() & counted.keys():
            found[key][row["as_of"]] = counted[key]["size"]
    return found


def dated_definitions(space: Space) -> list[Definition]:
    """The space's definitions; those without history know since when they are there."""
    since = created(space.state) if space.keys_without_history else {}
    return [
        replace(one, received_after=since[one.key])
        if one.key in space.keys_without_history
        else one
        for one in space.definitions
    ]


def note(space: Space, refresh: Refresh, **counts: Any) -> None:
    """Keep a stage's counts with the refresh."""
    with space.state.begin() as connection:
        query = sa.select(refreshes.c.counts).where(refreshes.c.refresh_id == refresh.refresh_id)
        before = connection.execute(query).scalar_one() or {}
        connection.execute(
            sa.update(refreshes)
            .where(refreshes.c.refresh_id == refresh.refresh_id)
            .values(counts={**before, **counts})
        )


def finish(space: Space, refresh: Refresh, *, now: dt.datetime) -> dict[str, int]:
    """Publish: from here on readers see this refresh. Returns the snapshot's versions."""
    versions = space.lake.versions()
    with space.state.begin() as connection:
        published = connection.execute(
            sa.update(refreshes)
            .where(refreshes.c.refresh_id == refresh.refresh_id, refreshes.c.status != "discarded")
            .values(status="finished", finished_at=now, versions=versions)
        )
        if published.rowcount != 1:
            raise Busy(
                f"refresh {refresh.refresh_id} lost its lease to a later one, which took back what "
                "it wrote; nothing of it was published, run it again"
            )
        as_of = {"as_of": _text(refresh.as_of)}
        space.state.audit(
            "refresh", space.name, at=now, outcome="finished", counts=as_of, within=connection
        )
    return versions


def keep_profiles(space: Space) -> Kept | None:
    """Bring the profile store in step with the last finished refresh; None before the first.

    The caller holds the space's refresh lease. The store is the last step of a refresh, after
    it was published: one that died on the way is caught up with by the next.
    """
    last = space.last_refresh()
    if last is None:
        return None
    published = Published(
        last["refresh_id"],
        last["as_of"],
        last["versions"],
        tuple(sorted(space.computed_keys)),
        tuple(sorted(space.audience_keys)),
    )
    return keeping.bring_up(space.profiles, space.lake, space.engine, published, rules=space.rules)


def _registered(space: Space) -> Mapping[str, tuple[str, Mapping[str, Any]]]:
    def facts(definition: Definition) -> dict[str, Any]:
        return {"query": definition.query.strip(), "collection": definition.collection}

    return {
        definition.key: (
            "audience" if definition.kind == "audience" else "computed trait",
            facts(definition),
        )
        for definition in space.definitions
    }


def _discard_unfinished(space: Space, *, now: dt.datetime) -> None:
    """Take back what refreshes that did not finish wrote to the tables of values."""
    query = sa.select(refreshes).where(refreshes.c.status == "started")
    unfinished = space.state.rows(query)
    dead = [row["refresh_id"] for row in unfinished]
    if not dead:
        return
    last = space.last_refresh()
    kept: Mapping[str, int] = last["versions"] if last else {}
    there = space.lake.versions()
    numbers = ", ".join(str(int(number)) for number in dead)
    for table in _LOGS:
        if there.get(table) != kept.get(table):
            empty = TABLES[table].schema.empty_table()
            space.lake.replace(table, empty, where=f"refresh_id IN ({numbers})")
    table = "audience_memberships"
    if there.get(table) != kept.get(table):
        with space.engine.session(space.lake.at(kept)) as session:
            session.view(table)
            space.lake.replace(table, session.fetch(f"SELECT * FROM {table}"))
    with space.state.begin() as connection:
        connection.execute(
            sa.update(refreshes).where(refreshes.c.refresh_id.in_(dead)).values(status="discarded")
        )
        for row in unfinished:
            space.state.audit(
                "refresh",
                space.name,
                at=now,
                outcome="discarded",
                reason=f"run {row['run_id']} did not finish",
                within=connection,
            )


def _text(instant: dt.datetime) -> str:
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ")


def waiting(space: Space, *, now: dt.datetime) -> str | None:
    """What waits to be refreshed, as a key that changes only with it; None if nothing does."""
    space.landing.discover(now=now)
    pending = space.landing.pending()
    if pending:
        return f"file:{max(file.file_id for file in pending)}"
    due = rebuilding.due(space.state)
    if due:
        return f"rebuild:{due[-1]['rebuild_id']}"
    after, through = identity_loads.span(space.state)
    return f"load:{through}" if through > after else None
