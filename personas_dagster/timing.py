"""When things are due: syncs that have something to tell, audiences to be held.

What belongs here: questions to the state database that sensors and syncs ask. What does not: the
clock (`now` is an argument), and schedules, which are Dagster's.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa

from personas_dagster.activation.outbox import Outbox
from personas_dagster.activation.sync import interval_of
from personas_dagster.freshness import overdue_sources
from personas_dagster.project import models
from personas_dagster.spaces import Space, abilities_of
from personas_dagster.state.schema import connections, refreshes, syncs

_LOOK_BACK = 100  # syncs of a destination


def due(space: Space, *, now: dt.datetime) -> dict[str, int]:
    """Destinations that have something to hear and may be told now: name -> newest refresh.

    A connection has something to tell when no sync of it has finished, when a resync of it was cut
    short, when it was held and a refresh has ended since, or when a refresh since its last sync
    moved its trait or audience, or identifiers.
    """
    last = space.last_refresh()
    if last is None:
        return {}
    found: dict[str, int] = {}
    for destination in sorted({one.destination for one in space.connections.values()}):
        own = [one for one in space.connections.values() if one.destination == destination]
        if _has_news(space, destination, own) or _has_results(space, destination, now):
            begin = next_sync(space, destination)
            if begin is None or begin <= now:
                found[destination] = last["refresh_id"]
    return found


def next_sync(space: Space, destination: str) -> dt.datetime | None:
    """When a destination may be synced again; None: at any time."""
    model = space.destinations[destination]
    interval = interval_of(abilities_of(model), model.every)
    if interval is None:
        return None
    outbox = Outbox(space.sync_state, space.ledger_lake, destination, lambda: dt.datetime.max)
    started = outbox.last_sent()
    return None if started is None else started + interval


def last_sync(space: Space, destination: str) -> dict[str, Any] | None:
    """When the last sync of a destination began, how it ended, and its counts."""
    query = (
        sa.select(syncs.c.started_at, syncs.c.status, syncs.c.counts)
        .where(syncs.c.destination == destination, syncs.c.status != "results")
        .order_by(syncs.c.sync_id.desc())
        .limit(1)
    )
    for row in space.sync_state.rows(query):
        counts = {k: n for k, n in (row["counts"] or {}).items() if isinstance(n, int)}
        return {"at": row["started_at"], "status": row["status"], **counts}
    return None


def _has_results(space: Space, destination: str, now: dt.datetime) -> bool:
    """Whether a tool that works off requests later may have done so."""
    outbox = Outbox(space.sync_state, space.ledger_lake, destination, lambda: now)
    return bool(outbox.open_receipts(now))


def held_since(space: Space, destination: str, connection: str) -> dt.datetime | None:
    """When the first of the syncs began that have held a connection without a break."""
    since = None
    for row in _finished(space, destination):
        counts = row["counts"] or {}
        if connection in counts.get("held_connections", ()):
            since = row["started_at"]
        elif connection in counts.get("asked", ()):
            break
    return since


def _finished(space: Space, destination: str) -> list[dict[str, Any]]:
    """The last finished syncs of a destination, the newest first."""
    query = (
        sa.select(syncs.c.refresh_id, syncs.c.started_at, syncs.c.counts)
        .where(syncs.c.destination == destination, syncs.c.status == "finished")
        .order_by(syncs.c.sync_id.desc())
        .limit(_LOOK_BACK)
    )
    return space.sync_state.rows(query)


def _has_news(space: Space, destination: str, own: Collection[models.Connection]) -> bool:
    asked, held = _last_asked(space, destination)
    names = [one.name for one in own]
    again = sa.select(connections.c.name).where(
        connections.c.name.in_(names), connections.c.resync_from.is_not(None)
    )
    if not asked.keys() >= set(names) or space.sync_state.rows(again):
        return True
    since = (
        sa.select(refreshes.c.refresh_id, refreshes.c.counts)
        .where(
            refreshes.c.status == "finished",
            refreshes.c.refresh_id > min(asked[name] for name in names),
        )
        .order_by(refreshes.c.refresh_id)
    )
    later = space.state.rows(since)
    return any(
        one.name in held or _moves(row["counts"] or {}, one.key)
        for one in own
        for row in later
        if row["refresh_id"] > asked[one.name]
    )


def _last_asked(space: Space, destination: str) -> tuple[dict[str, int], set[str]]:
    """Connection -> the refresh that its last finished sync compared; those held then."""
    asked: dict[str, int] = {}
    held: set[str] = set()
    for row in _finished(space, destination):
        counts = row["counts"] or {}
        new = set(counts.get("asked", ())) - asked.keys()
        held |= new & set(counts.get("held_connections", ()))
        asked.update(dict.fromkeys(new, row["refresh_id"]))
    return asked, held


def _moves(counts: Mapping[str, Any], key: str) -> bool:
    """Whether a refresh changed something for a connection of this trait or audience."""
    if counts.get("graph_moved") or counts.get("identity", {}).get("identifiers"):
        return True
    name = key.split(".")[-1]
    audience = counts.get("audiences", {}).get(name, {})
    return bool(
        audience.get("entered")
        or audience.get("exited")
        or counts.get("traits_changed", {}).get(name)
        or counts.get("sql_traits_changed", {}).get(name)
    )


def overdue(space: Space, *, now: dt.datetime) -> dict[str, str]:
    """Audiences that are held while a source is overdue: key -> what is known of it.

    An audience is computed from the messages of all sources of its space.
    """
    late = overdue_sources(space, now=now)
    return dict.fromkeys(space.audience_keys, "; ".join(late.values())) if late else {}
