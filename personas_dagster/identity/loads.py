"""A load's way into the graph: proposed, passed or refused, applied, settled.

The state database says where each load stands; the lake's appends carry the load's id, so that
a load that was killed at any point is finished by the next run and nothing enters twice.

    proposed ──► passed ──► applying ──► applied ──► settled
        └──────► refused          (graph written)  (events written)

A load that is proposed or refused is given up (`superseded`) when the next one is proposed: its
messages are taken up again, with what came since.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from personas_dagster.errors import CheckFailed
from personas_dagster.events.resolved import append_resolved
from personas_dagster.identity import totals
from personas_dagster.identity.assignment import months_between, resolve_messages
from personas_dagster.identity.decisions import decisions, let_pass, under_facts
from personas_dagster.identity.digests import combine, digest
from personas_dagster.identity.findings import find
from personas_dagster.identity.guard import CHECKS, Finding, Verdict, excused
from personas_dagster.identity.judging import judge
from personas_dagster.identity.links import LINK_COLUMNS, carried_links
from personas_dagster.identity.propose import Proposal, propose
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.identity.totals import Totals
from personas_dagster.identity.views import prepare
from personas_dagster.interfaces import Engine, Lake, Session
from personas_dagster.lake.tables import TABLES
from personas_dagster.query import Typed
from personas_dagster.state import State
from personas_dagster.state.schema import identity_loads, loads

GRAPH_TABLES = ("profiles", "identifiers", "merges", "account_links", "dropped_identifiers")
_DONE = ("applied", "settled")
_TRAILING = 20
_MEMORY = "25%"  # for the engine: the arrays beside it take twice as much


@dataclass(frozen=True)
class Applied:
    """What entered the graph: rows per table; each table's digest, and the totals, afterwards."""

    load_id: int
    rows: Mapping[str, int]
    digests: Mapping[str, str]
    totals: Totals


def propose_load(
    lake: Lake,
    engine: Engine,
    state: State,
    rules: IdentityRules,
    *,
    space_id: str,
    now: dt.datetime,
) -> Proposal | None:
    """Make merge candidates of every message that is not in the graph. None if there is none."""
    finish(lake, engine, state, now=now)
    after, through = span(state)
    if through == after:
        return None
    with state.begin() as connection:
        connection.execute(
            sa.update(identity_loads)
            .where(identity_loads.c.status.in_(("proposed", "passed", "refused")))
            .values(status="superseded")
        )
        row = sa.insert(identity_loads).values(
            status="proposing",
            after_load=after,
            through_load=through,
            proposed_at=now,
            counts={},
        )
        load_id = int(connection.execute(row.returning(identity_loads.c.load_id)).scalar_one())
    with engine.session(lake, memory=_MEMORY) as session:
        places = {"after_load": after, "through_load": through}
        rules = under_facts(session, rules, decisions(state), **places)
        proposal = propose(
            session,
            lake,
            rules,
            space_id=space_id,
            load_id=load_id,
            **places,
        )
    counts = {**asdict(proposal), "rules": rules.recorded()}
    _update(state, load_id, status="proposed", counts=counts)
    return proposal


def check_load(lake: Lake, engine: Engine, state: State, rules: IdentityRules) -> Verdict | None:
    """Judge the load that waits, and record the verdict. None when no load waits."""
    row = _waiting(state)
    if row is None:
        return None
    counts, decided = row["counts"], decisions(state)
    places = {name: row[name] for name in ("after_load", "through_load")}
    with engine.session(lake) as session:
        findings = find(
            session,
            under_facts(session, rules, decided, **places),
            messages=counts["messages"],
            merged=counts["counts"]["merges"],
            profiles=_touched(counts),
            earlier_shares=_earlier_shares(state),
        )
    verdict = judge(row["load_id"], excused(findings, let_pass(decided, **places)))
    _update(
        state,
        row["load_id"],
        status="passed" if verdict.passed else "refused",
        reason=None if verdict.passed else verdict.reason,
        counts={**counts, **verdict.notes},
    )
    return verdict


def apply_load(lake: Lake, engine: Engine, state: State, *, now: dt.datetime) -> Applied | None:
    """Write the waiting load to the graph if its checks passed. None when no load waits.

    Raises CheckFailed when its checks failed, or when they have not been run for this load.
    """
    row = _waiting(state) or _unfinished(state)
    if row is None:
        return None
    if row["status"] == "refused":
        raise CheckFailed(
            f"load {row['load_id']} stays out of the graph: {row['reason']}; mend the identity "
            "rules or the source, then refresh: its messages are taken up again; or let them pass "
            "once (`personas identity pass`)"
        )
    if row["status"] == "proposed":
        raise CheckFailed(
            f"load {row['load_id']} has not been checked; run the checks of merge_candidates too"
        )
    return _apply(lake, engine, state, row, now=now)


def settle_load(
    lake: Lake, engine: Engine, state: State, *, columns: Collection[Typed] = ()
) -> int:
    """Write the applied load's messages to `events`; returns how many. 0 when none waits.

    `columns` are the properties that are kept as typed columns.
    """
    row = _one(state, identity_loads.c.status == "applied")
    if row is None:
        return 0
    rules = IdentityRules.from_record(row["counts"]["rules"])
    with engine.session(lake) as session:
        loads = {name: row[name] for name in ("after_load", "through_load")}
        resolve_messages(session, rules, **loads)
        months = months_between(session, **loads)
        written = append_resolved(
            session, lake, load_id=row["load_id"], columns=columns, months=months
        )
    _update(state, row["load_id"], status="settled")
    return written


def finish(lake: Lake, engine: Engine, state: State, *, now: dt.datetime) -> None:
    """Complete what a killed run left between its first write to the graph and its last."""
    row = _one(state, identity_loads.c.status == "applying")
    if row is not None:
        _apply(lake, engine, state, row, now=now)
    settle_load(lake, engine, state)


def _apply(
    lake: Lake, engine: Engine, state: State, row: Mapping[str, Any], *, now: dt.datetime
) -> Applied:
    load_id = row["load_id"]
    _update(state, load_id, status="applying")
    rows = write_candidates(lake, load_id)
    digests, counted = _before(state, load_id)
    with engine.session(lake) as session:
        if digests is None:
            digests = graph_digests(session)
        else:
            digests = carried(session, digests, load_id=load_id)
        counted = totals.whole(session) if counted is None else totals.carried(session, counted)
    _update(state, load_id, status="applied", applied_at=now, digests=digests, totals=counted)
    return Applied(load_id, rows, digests, counted)


def write_candidates(lake: Lake, load_id: int) -> dict[str, int]:
    """Append the candidates to the graph's tables, once per load, and index them; rows by table."""
    rows = {
        table: lake.adopt(table, f"candidate_{table}", once=("identity", load_id))
        for table in GRAPH_TABLES
    }
    for table in GRAPH_TABLES:
        lake.index(table)
    return rows


def _columns(table: str) -> tuple[str, ...]:
    """What a table's digest covers."""
    spec = TABLES[table]
    return tuple(name for name in spec.schema.names if name not in spec.bookkeeping)


def graph_digests(session: Session) -> dict[str, str]:
    """The digest of each identity table as the lake holds it now.

    A link's first and last message are spread over loads, so links are taken as readers see them.
    """
    prepare(session)
    session.view("dropped_identifiers")
    stored = {"profiles": "stored_profiles"}
    return {
        table: digest(session, "graph_links", LINK_COLUMNS)
        if table == "account_links"
        else digest(session, stored.get(table, table), _columns(table))
        for table in GRAPH_TABLES
    }


def carried(session: Session, before: Mapping[str, str], *, load_id: int) -> dict[str, str]:
    """The digests after a load, from those before it and the load's own rows."""
    found = {}
    for table in GRAPH_TABLES:
        if table == "account_links":
            found[table] = carried_links(session, before[table], load_id=load_id)
        else:
            session.view(f"candidate_{table}")
            added = digest(session, f"candidate_{table}", _columns(table))
            found[table] = combine([before[table], added])
    return found


def _before(state: State, load_id: int) -> tuple[dict[str, str] | None, Totals | None]:
    """The digests and the totals that the last load left; None for what is not known."""
    query = (
        sa.select(identity_loads.c.digests, identity_loads.c.totals)
        .where(identity_loads.c.status.in_(_DONE), identity_loads.c.load_id < load_id)
        .order_by(identity_loads.c.load_id.desc())
        .limit(1)
    )
    found = state.rows(query)
    if not found:
        return dict.fromkeys(GRAPH_TABLES, combine([])), {}
    return found[0]["digests"] or None, found[0]["totals"]


def hubs(state: State) -> list[dict[str, Any]]:
    """The hubs of the load that waits: type, value, degree, and whether they are `new`.

    New are those that none of the trailing loads had.
    """
    row = _waiting(state)
    if row is None:
        return []
    query = (
        sa.select(identity_loads.c.counts)
        .where(identity_loads.c.status.in_(_DONE))
        .order_by(identity_loads.c.load_id.desc())
        .limit(_TRAILING)
    )
    told = {
        (hub["type"], hub["value"])
        for earlier in state.rows(query)
        for hub in earlier["counts"].get("hubs", ())
    }
    return [
        {**hub, "new": (hub["type"], hub["value"]) not in told} for hub in row["counts"]["hubs"]
    ]


def passed_trivially(load_id: int) -> Verdict:
    """The verdict on a load without candidates."""
    return Verdict(load_id, True, tuple(Finding(check, 0) for check in CHECKS))


def _touched(counts: Mapping[str, Any]) -> int:
    return int(counts["counts"]["profiles"]) + int(counts["touched_profiles"])


def _earlier_shares(state: State) -> list[float]:
    query = (
        sa.select(identity_loads.c.counts)
        .where(identity_loads.c.status.in_(_DONE))
        .order_by(identity_loads.c.load_id.desc())
        .limit(_TRAILING)
    )
    counts = [row["counts"] for row in state.rows(query)]
    return [c["counts"]["merges"] / _touched(c) for c in counts if _touched(c)]


def span(state: State) -> tuple[int, int]:
    """The raw loads that the graph holds already, and those that are there."""
    done = sa.select(sa.func.max(identity_loads.c.through_load).label("at")).where(
        identity_loads.c.status.in_(_DONE)
    )
    there = sa.select(sa.func.max(loads.c.load_id).label("at")).where(loads.c.status == "loaded")
    after = state.rows(done)[0]["at"] or 0
    return after, max(state.rows(there)[0]["at"] or 0, after)


def _waiting(state: State) -> dict[str, Any] | None:
    return _one(state, identity_loads.c.status.in_(("proposed", "passed", "refused")))


def _unfinished(state: State) -> dict[str, Any] | None:
    return _one(state, identity_loads.c.status == "applying")


def _one(state: State, condition: sa.ColumnElement[bool]) -> dict[str, Any] | None:
    query = (
        sa.select(identity_loads)
        .where(condition)
        .order_by(identity_loads.c.load_id.desc())
        .limit(1)
    )
    found = state.rows(query)
    return found[0] if found else None


def _update(state: State, load_id: int, **values: Any) -> None:
    with state.begin() as connection:
        connection.execute(
            sa.update(identity_loads).where(identity_loads.c.load_id == load_id).values(**values)
        )
