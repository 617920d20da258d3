"""Deliveries of a space: its declared connections, sent by the delivery engine.

What belongs here: the wiring between declarations and `activation`. Destinations read the last
finished refresh; the ledger is read and written as it is now.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from personas_dagster.activation.connection import Connection, EventNames, Kind
from personas_dagster.activation.report import SyncReport
from personas_dagster.activation.sync import Progress, sync
from personas_dagster.destinations import open_destination
from personas_dagster.errors import PersonasError
from personas_dagster.identity import views
from personas_dagster.interfaces import Session
from personas_dagster.project import models
from personas_dagster.spaces import Space
from personas_dagster.state.schema import refreshes, syncs
from personas_dagster.traits.world import prepare_values


def connections(space: Space, destination: str) -> list[Connection]:
    """The connections that lead to a destination, as the delivery engine knows them."""
    return [
        _connection(space, model)
        for model in space.connections.values()
        if model.destination == destination
    ]


def _connection(space: Space, model: models.Connection) -> Connection:
    own = {definition.key: definition for definition in space.definitions}
    kind: Kind = "sql_trait"
    key = model.key
    collection: Any = "users"
    if key in own:
        kind = "audience" if own[key].kind == "audience" else "computed_trait"
        collection = own[key].collection
    else:
        key = key.split(".")[-1]
    return Connection(
        name=model.name,
        destination=model.destination,
        key=key,
        kind=kind,
        collection=collection,
        forms=tuple(model.send or ()),
        email=model.email,
        enrich=model.enrich,
        backfill=model.backfill,
        resend_new_identifiers=model.resend_new_identifiers,
        events=EventNames(model.events.entered, model.events.exited, model.events.computed),
        max_change=model.max_change,
        alias=model.alias,
    )


def deliver(
    space: Space,
    destination: str,
    *,
    owner: str,
    now: Callable[[], dt.datetime],
    only: tuple[str, ...] = (),
    dry_run: bool = False,
    allow: Mapping[str, str] | None = None,
    progress: Progress | None = None,
) -> SyncReport:
    """Send a destination what changed since it was last told. `only`: these connections."""
    model = space.destinations.get(destination)
    if model is None:
        there = ", ".join(sorted(space.destinations)) or "none"
        raise PersonasError(
            f"no destination `{destination}` in space {space.name}; expected one of: {there}"
        )
    last = space.last_refresh()
    if last is None:
        raise PersonasError(f"space {space.name} has no finished refresh; run `personas refresh`")
    lake = space.lake.at(last["versions"], live=("ledger",))

    def prepare(session: Session) -> None:
        views.prepare(session)
        prepare_values(session, defined=space.computed_keys)

    chosen = [c for c in connections(space, destination) if not only or c.name in only]
    report = sync(
        destination,
        open_destination(model.type, _resolved(model.settings)),
        chosen,
        lake=lake,
        engine=space.engine,
        state=space.state,
        prepare=prepare,
        space_id=space.name,
        refresh_id=last["refresh_id"],
        now=now,
        owner=owner,
        dry_run=dry_run,
        allow=allow,
        progress=progress,
    )
    if report.failed:
        raise PersonasError(
            f"destination {destination}: {report.stopped or 'rows are still due'} "
            f"({report.counts['failed']} failed, {report.counts['postponed']} not tried); they "
            "stay due, and the next sync sends them"
        )
    return report


def _resolved(value: Any) -> Any:
    """Settings with their secrets read: `{env: NAME}` and `{file: PATH}` anywhere in them."""
    if isinstance(value, Mapping):
        if set(value) in ({"env"}, {"file"}):
            return models.Secret.model_validate(value).read()
        return {key: _resolved(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_resolved(part) for part in value]
    return value


def rows(report: SyncReport) -> list[dict[str, Any]]:
    """A sync's connections, one row each, for people."""
    return [
        {
            "connection": name,
            "key": part.key,
            "messages": part.messages,
            "reasons": ", ".join(f"{k} {v}" for k, v in sorted(part.sent.items())) or "no changes",
            "rejected": part.rejected,
            "not_sendable": ", ".join(f"{k} {v}" for k, v in sorted(part.not_sendable.items())),
            "held": part.held or "",
        }
        for name, part in report.connections.items()
    ]


def due(space: Space) -> dict[str, int]:
    """Destinations that a finished refresh changed something for: name -> that refresh.

    A refresh changes something for a destination when a connected trait or audience moved, or
    when profiles gained identifiers that would be sent.
    """
    found: dict[str, int] = {}
    for name in {connection.destination for connection in space.connections.values()}:
        keys = {c.key for c in space.connections.values() if c.destination == name}
        done = sa.select(sa.func.max(syncs.c.refresh_id).label("at")).where(
            syncs.c.destination == name, syncs.c.status == "finished"
        )
        after = space.state.rows(done)[0]["at"] or 0
        query = (
            sa.select(refreshes)
            .where(refreshes.c.status == "finished", refreshes.c.refresh_id > after)
            .order_by(refreshes.c.refresh_id)
        )
        waiting = [row["refresh_id"] for row in space.state.rows(query) if _moves(row, keys)]
        if waiting:
            found[name] = waiting[-1]
    return found


def _moves(row: Mapping[str, Any], keys: set[str]) -> bool:
    counts = row["counts"] or {}
    audiences = {k for k, m in counts.get("audiences", {}).items() if m["entered"] or m["exited"]}
    traits = {k for k, changed in counts.get("traits_changed", {}).items() if changed}
    sql = {k for k, changed in counts.get("sql_traits_changed", {}).items() if changed}
    moved = audiences | traits | sql
    return bool(counts.get("identity", {}).get("identifiers")) or any(
        key.split(".")[-1] in moved for key in keys
    )
