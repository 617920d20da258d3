"""The graph derived anew from messages: the recorded loads replayed, under the facts.

`ask` records that it is due, `run_due` does it. The loads are written over the tables one after
the other; readers are at the versions of the last refresh until the next one publishes. A run
that was killed leaves it due, and the next does it again from the start: the outcome depends on
messages, rules and facts alone.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from personas_dagster.events.resolved import append_resolved
from personas_dagster.identity.assignment import resolve_messages
from personas_dagster.identity.decisions import Decision, decisions, under_facts
from personas_dagster.identity.loads import GRAPH_TABLES, graph_digests
from personas_dagster.identity.propose import Proposal, propose
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.interfaces import Engine, Lake
from personas_dagster.lake.tables import TABLES
from personas_dagster.query import Typed
from personas_dagster.state import State
from personas_dagster.state.schema import identity_loads, identity_rebuilds

DONE = ("applied", "settled")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Load:
    """A load to replay: the raw loads in (after, through], under these rules."""

    load_id: int
    after: int
    through: int
    rules: IdentityRules


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild left: rows per table, and each table's digest."""

    why: str
    loads: int
    rows: Mapping[str, int]
    digests: Mapping[str, str]


def recorded_loads(state: State, rules: IdentityRules | None = None) -> list[Load]:
    """The loads that the graph holds, in order; under `rules`, or each under its own."""
    query = (
        sa.select(identity_loads)
        .where(identity_loads.c.status.in_(DONE))
        .order_by(identity_loads.c.load_id)
    )
    return [
        Load(
            row["load_id"],
            row["after_load"],
            row["through_load"],
            rules or IdentityRules.from_record(row["counts"]["rules"]),
        )
        for row in state.rows(query)
    ]


def by_time(loads: Sequence[Load]) -> list[Load]:
    """The same messages as one load: one order by `receivedAt` for all."""
    return [Load(loads[-1].load_id, 0, loads[-1].through, loads[-1].rules)] if loads else []


def replay(
    lake: Lake,
    engine: Engine,
    loads: Sequence[Load],
    decided: Sequence[Decision],
    *,
    space_id: str,
    with_events: bool = True,
    columns: Collection[Typed] = (),
    progress: Progress | None = None,
) -> list[Proposal]:
    """Write the graph that these loads make, one after the other, over what `lake` holds."""
    for table in (*GRAPH_TABLES, *(("events",) if with_events else ())):
        lake.replace(table, TABLES[table].schema.empty_table())
    proposals = []
    for number, load in enumerate(loads):
        if progress:
            progress(number, len(loads))
        with engine.session(lake) as session:
            places = {"after_load": load.after, "through_load": load.through}
            rules = under_facts(session, load.rules, decided, **places)
            proposal = propose(
                session, lake, rules, space_id=space_id, load_id=load.load_id, **places
            )
        with engine.session(lake) as session:
            for table in GRAPH_TABLES:
                lake.adopt(table, f"candidate_{table}")
            if with_events:
                resolve_messages(session, rules, **places)
                append_resolved(session, lake, load_id=load.load_id, columns=columns, once=False)
        proposals.append(proposal)
    return proposals


def ask(
    connection: sa.Connection,
    *,
    why: str,
    now: dt.datetime,
    rules: IdentityRules | None = None,
    in_time: bool = False,
) -> int:
    """Record that the graph is to be derived anew, within a transaction; returns its number.

    With `rules`, all loads are replayed under them; else each under those it was resolved with.
    Candidates that wait are given up: they were made on top of another graph.
    """
    give_up_candidates(connection)
    row = sa.insert(identity_rebuilds).values(
        status="due",
        why=why,
        by_time=in_time,
        rules=rules.recorded() if rules else None,
        asked_at=now,
        counts={},
    )
    return int(connection.execute(row.returning(identity_rebuilds.c.rebuild_id)).scalar_one())


def give_up_candidates(connection: sa.Connection) -> None:
    """Candidates that wait are proposed anew by the next run."""
    connection.execute(
        sa.update(identity_loads)
        .where(identity_loads.c.status.in_(("proposed", "passed", "refused")))
        .values(status="superseded")
    )


def due(state: State) -> list[dict[str, Any]]:
    """The rebuilds that were asked for and are not done, in order."""
    query = (
        sa.select(identity_rebuilds)
        .where(identity_rebuilds.c.status != "done")
        .order_by(identity_rebuilds.c.rebuild_id)
    )
    return state.rows(query)


def run_due(
    lake: Lake,
    engine: Engine,
    state: State,
    *,
    space_id: str,
    now: dt.datetime,
    columns: Collection[Typed] = (),
    progress: Progress | None = None,
) -> Rebuilt | None:
    """Derive the graph anew if that is due. None when it is not.

    `columns` are the properties that `events` keeps as typed columns.

    The caller holds the space's refresh lease, and has finished the load that was under way.
    """
    waiting = due(state)
    if not waiting:
        return None
    rules = [IdentityRules.from_record(row["rules"]) for row in waiting if row["rules"]]
    loads = recorded_loads(state, rules[-1] if rules else None)
    in_time = any(row["by_time"] for row in waiting)
    if in_time:
        loads = by_time(loads)
    proposals = replay(
        lake,
        engine,
        loads,
        decisions(state),
        space_id=space_id,
        columns=columns,
        progress=progress,
    )
    with engine.session(lake) as session:
        digests = graph_digests(session)
        rows = _rows(lake, engine)
    _done(state, waiting, loads, proposals, digests, rows, now=now, in_time=in_time)
    return Rebuilt("; ".join(row["why"] for row in waiting), len(loads), rows, digests)


def _rows(lake: Lake, engine: Engine) -> dict[str, int]:
    found = {}
    with engine.session(lake) as session:
        for table in (*GRAPH_TABLES, "events"):
            session.view(table)
            found[table] = int(session.fetch(f"SELECT count(*) FROM {table}").column(0)[0].as_py())
    return found


def _done(
    state: State,
    waiting: Sequence[Mapping[str, Any]],
    loads: Sequence[Load],
    proposals: Sequence[Proposal],
    digests: Mapping[str, str],
    rows: Mapping[str, int],
    *,
    now: dt.datetime,
    in_time: bool,
) -> None:
    """Record, in one transaction, what the loads are now and that nothing is due any more."""
    with state.begin() as connection:
        if in_time and loads:
            connection.execute(
                sa.update(identity_loads)
                .where(
                    identity_loads.c.status.in_(DONE),
                    identity_loads.c.load_id != loads[-1].load_id,
                )
                .values(status="replaced")
            )
        for load, proposal in zip(loads, proposals, strict=True):
            counts = {**asdict(proposal), "rules": load.rules.recorded()}
            connection.execute(
                sa.update(identity_loads)
                .where(identity_loads.c.load_id == load.load_id)
                .values(counts=counts, after_load=load.after, digests=None)
            )
        if loads:
            connection.execute(
                sa.update(identity_loads)
                .where(identity_loads.c.load_id == loads[-1].load_id)
                .values(digests=dict(digests))
            )
        connection.execute(
            sa.update(identity_rebuilds)
            .where(identity_rebuilds.c.rebuild_id.in_([row["rebuild_id"] for row in waiting]))
            .values(status="done", done_at=now, counts=dict(rows), digests=dict(digests))
        )
