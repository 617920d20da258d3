"""The graph derived anew from messages: the recorded loads replayed, under the facts.

`ask` records that it is due, `run_due` does it: for a decision about an identifier with the
messages of its component alone (`component.py`), else with all. What is made is written over the
tables; readers are at the versions of the last refresh until the next one publishes. A run that
was killed leaves it due, and the next does it again, with all messages if the tables may be
written in part: the outcome depends on messages, rules and facts alone.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from personas_dagster.identity import totals
from personas_dagster.identity.component import derived, put, put_messages
from personas_dagster.identity.decisions import decisions
from personas_dagster.identity.facts import Identifier
from personas_dagster.identity.loads import GRAPH_TABLES, graph_digests
from personas_dagster.identity.propose import Proposal
from personas_dagster.identity.replaying import (
    DONE,
    Load,
    Progress,
    by_time,
    recorded_loads,
    replay,
)
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.identity.totals import Totals
from personas_dagster.interfaces import Engine, Lake
from personas_dagster.query import Typed
from personas_dagster.state import State
from personas_dagster.state.schema import identity_loads, identity_rebuilds


@dataclass(frozen=True)
class Rebuilt:
    """What a rebuild replayed and left: rows per table, each table's digest, and the totals."""

    why: str
    loads: int
    messages: int
    rows: Mapping[str, int]
    digests: Mapping[str, str]
    totals: Totals


def ask(
    connection: sa.Connection,
    *,
    why: str,
    now: dt.datetime,
    rules: IdentityRules | None = None,
    in_time: bool = False,
    facts: Sequence[int] = (),
) -> int:
    """Record that the graph is to be derived anew, within a transaction; returns its number.

    With `rules`, all loads are replayed under them; else each under those it was resolved with.
    `facts` are the decisions that ask for it, when nothing else does.
    Candidates that wait are given up: they were made on top of another graph.
    """
    give_up_candidates(connection)
    row = sa.insert(identity_rebuilds).values(
        status="due",
        why=why,
        by_time=in_time,
        rules=rules.recorded() if rules else None,
        asked_at=now,
        counts={"facts": list(facts)},
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
    decided = decisions(state)
    facts = [fact for row in waiting for fact in row["counts"].get("facts", ())]
    names = {one.identifier for one in decided if one.fact_id in facts}
    alone = all(row["status"] == "due" and row["counts"].get("facts") for row in waiting)
    if alone and is_separable(loads, names):
        with derived(lake, engine, loads, decided, names, space_id=space_id) as found:
            _write(state, waiting)
            put(found, lake)
            put_messages(found, lake, columns)
        done = _left(lake, engine, waiting, len(loads), found.messages)
        _done(state, waiting, loads, None, done, now=now)
        return done
    in_time = any(row["by_time"] for row in waiting)
    if in_time:
        loads = by_time(loads)
    proposals = replay(
        lake,
        engine,
        loads,
        decided,
        space_id=space_id,
        columns=columns,
        progress=progress,
    )
    messages = sum(one.messages for one in proposals)
    done = _left(lake, engine, waiting, len(loads), messages)
    _done(state, waiting, loads, proposals, done, now=now, in_time=in_time)
    return done


def is_separable(loads: Sequence[Load], names: Collection[Identifier]) -> bool:
    """Whether what hangs on these identifiers can be told without reading all messages.

    Under `alias: merge` the reading of an alias hangs on an identifier that it may not name.
    """
    return len({name[0] for name in names}) == 1 and all(
        one.rules.alias != "merge" for one in loads
    )


def _write(state: State, waiting: Sequence[Mapping[str, Any]]) -> None:
    """From here on the tables may be written in part."""
    with state.begin() as connection:
        connection.execute(
            sa.update(identity_rebuilds)
            .where(identity_rebuilds.c.rebuild_id.in_([row["rebuild_id"] for row in waiting]))
            .values(status="writing")
        )


def _left(
    lake: Lake, engine: Engine, waiting: Sequence[Mapping[str, Any]], loads: int, messages: int
) -> Rebuilt:
    """What the tables hold now."""
    rows = {}
    with engine.session(lake) as session:
        digests = graph_digests(session)
        for table in (*GRAPH_TABLES, "events"):
            session.view(table)
            rows[table] = int(session.fetch(f"SELECT count(*) FROM {table}").column(0)[0].as_py())
        counted = totals.whole(session)
    why = "; ".join(row["why"] for row in waiting)
    return Rebuilt(why, loads, messages, rows, digests, counted)


def _done(
    state: State,
    waiting: Sequence[Mapping[str, Any]],
    loads: Sequence[Load],
    proposals: Sequence[Proposal] | None,
    done: Rebuilt,
    *,
    now: dt.datetime,
    in_time: bool = False,
) -> None:
    """Record, in one transaction, what the loads are now and that nothing is due any more.

    `proposals` are those of the loads, if they were replayed whole.
    """
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
        for load, proposal in zip(loads, proposals or (), strict=proposals is not None):
            counts = {**asdict(proposal), "rules": load.rules.recorded()}
            connection.execute(
                sa.update(identity_loads)
                .where(identity_loads.c.load_id == load.load_id)
                .values(counts=counts, after_load=load.after)
            )
        if loads:
            connection.execute(
                sa.update(identity_loads)
                .where(identity_loads.c.load_id.in_([load.load_id for load in loads]))
                .values(digests=None, totals=None)
            )
            connection.execute(
                sa.update(identity_loads)
                .where(identity_loads.c.load_id == loads[-1].load_id)
                .values(digests=dict(done.digests), totals=done.totals)
            )
        connection.execute(
            sa.update(identity_rebuilds)
            .where(identity_rebuilds.c.rebuild_id.in_([row["rebuild_id"] for row in waiting]))
            .values(status="done", done_at=now, counts=dict(done.rows), digests=dict(done.digests))
        )
