"""The recorded loads replayed, each under the rules and the facts that hold for it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from personas_dagster.events.resolved import append_resolved
from personas_dagster.identity.assignment import months_between, resolve_messages
from personas_dagster.identity.decisions import Decision, under_facts
from personas_dagster.identity.loads import GRAPH_TABLES
from personas_dagster.identity.propose import Proposal, propose
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.interfaces import Engine, Lake
from personas_dagster.lake.tables import TABLES
from personas_dagster.query import Typed
from personas_dagster.state import State
from personas_dagster.state.schema import identity_loads

DONE = ("applied", "settled")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Load:
    """A load to replay: the raw loads in (after, through], under these rules."""

    load_id: int
    after: int
    through: int
    rules: IdentityRules


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
                lake.index(table)
            if with_events:
                resolve_messages(session, rules, **places)
                months = months_between(session, **places)
                append_resolved(
                    session,
                    lake,
                    load_id=load.load_id,
                    columns=columns,
                    months=months,
                    once=False,
                )
        proposals.append(proposal)
    return proposals
