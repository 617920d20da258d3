"""Deliveries of a space: its declared connections, sent by the delivery engine.

What belongs here: the wiring between declarations and `activation`. Destinations read the last
finished refresh; the ledger is read and written as it is now.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from uuid import uuid4

from personas_dagster.activation import deletion
from personas_dagster.activation.connection import Connection, EventNames, Kind
from personas_dagster.activation.destination import Destination
from personas_dagster.activation.pace import SharedPace, limiter_of
from personas_dagster.activation.recording import Progress
from personas_dagster.activation.report import SyncReport, Unusual
from personas_dagster.activation.retries import Retries
from personas_dagster.activation.sync import sync
from personas_dagster.destinations import open_destination
from personas_dagster.errors import PersonasError
from personas_dagster.identity import views
from personas_dagster.interfaces import Session
from personas_dagster.project import fields, models
from personas_dagster.query import Definition
from personas_dagster.spaces import SECRET_FOUND, Space, literal_secrets
from personas_dagster.timing import overdue
from personas_dagster.traits.world import prepare_values


def connections(space: Space, destination: str) -> list[Connection]:
    """The connections that lead to a destination, as the delivery engine knows them."""
    chosen = [one for one in space.connections.values() if one.destination == destination]
    own = {definition.key: definition for definition in space.definitions}
    by_sql = _of_accounts(space, [one for one in chosen if one.key not in own])
    return [_connection(model, own.get(model.key), model.name in by_sql) for model in chosen]


_SQL_COLLECTIONS = """
SELECT key, arg_max(collection, (refresh_id, value IS NOT NULL)) AS collection
FROM sql_traits WHERE key IN (SELECT unnest($1)) GROUP BY key
"""


def _of_accounts(space: Space, by_sql: Sequence[models.Connection]) -> set[str]:
    """Connections of SQL traits about accounts: their results say so, else what they send."""
    if not by_sql:
        return set()
    keys = {one.name: one.key.split(".")[-1] for one in by_sql}
    with space.engine.session(space.snapshot()) as session:
        session.view("sql_traits")
        rows = session.fetch(_SQL_COLLECTIONS, [list(keys.values())]).to_pylist()
    known = {row["key"]: row["collection"] == "accounts" for row in rows}
    return {one.name for one in by_sql if known.get(keys[one.name], "group" in (one.send or ()))}


def _connection(
    model: models.Connection, definition: Definition | None, is_of_accounts: bool
) -> Connection:
    kind: Kind = "sql_trait"
    key = model.key
    collection: Any = "accounts" if is_of_accounts else "users"
    if definition is not None:
        kind = "audience" if definition.kind == "audience" else "computed_trait"
        collection = definition.collection
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
        list_id=model.list_id,
    )


def deliver(
    space: Space,
    destination: str,
    *,
    owner: str,
    now: Callable[[], dt.datetime],
    only: Collection[str] = (),
    dry_run: bool = False,
    allow: Mapping[str, str] | None = None,
    resync: Collection[str] = (),
    force: bool = False,
    attempt: int = 1,
    progress: Progress | None = None,
) -> SyncReport:
    """Send a destination what changed since it was last told. `only`: these connections.

    Audiences with a source that is overdue are held. In a simulation, the destination's simulator
    takes its place, and the space's own ledger is left alone.
    """
    model = _destination(space, destination)
    last = space.last_refresh()
    if last is None:
        raise PersonasError(f"space {space.name} has no finished refresh; run `personas refresh`")

    def prepare(session: Session) -> None:
        views.prepare(session)
        prepare_values(session, defined=space.computed_keys)

    chosen = [c for c in connections(space, destination) if not only or c.name in only]
    mine = {name for one in chosen for name in (one.name, one.key)}
    return sync(
        destination,
        opened(space, destination),
        chosen,
        lake=space.ledger_lake.at(last["versions"], live=("ledger",)),
        engine=space.engine,
        state=space.sync_state,
        prepare=prepare,
        space_id=space.name,
        refresh_id=last["refresh_id"],
        now=now,
        owner=owner,
        dry_run=dry_run,
        allow=allow,
        overdue=overdue(space, now=now()),
        resync=[name for name in resync if name in mine],
        force=force,
        every=model.every,
        attempt=attempt,
        progress=progress,
    )


def delete_people(
    space: Space,
    destination: str,
    recipients: Sequence[Mapping[str, str]],
    *,
    now: dt.datetime,
    retries: Retries | None = None,
) -> str | None:
    """Ask a destination to delete people for good; None where the tool cannot.

    `recipients` are as the ledger has them. Says in one line, without personal data, what became
    of it, also when the tool could not be reached, and leaves that in the audit trail. Nobody
    syncs the destination meanwhile: raises `Busy` when somebody does.
    """
    tool = opened(space, destination)
    if not tool.abilities.can_delete:
        return None
    state, tries = space.sync_state, retries or Retries()
    lease = state.lease(
        f"destination:{destination}", owner=uuid4().hex, holder=f"deletion at {destination}"
    )
    with lease:
        limiter = limiter_of(state, destination, tool.abilities.requests_per_second)
        pace = SharedPace(limiter, tries.sleep)
        found = asyncio.run(deletion.delete(tool, recipients, pace=pace, retries=tries))
    counts = {"deleted": found.done, "refused": found.refused, "unreachable": found.unreachable}
    state.audit(
        "deletion", destination, at=now, outcome="finished" if found.is_whole else "failed",
        reason=found.said, counts=counts,
    )  # fmt: skip
    return found.said


def failure(report: SyncReport) -> str | None:
    """Why a sync did not get through, and what becomes of the rest; None if it did."""
    if not report.failed:
        return None
    if report.needs_setup_only:
        return f"destination {report.destination}: {report.why}; what is due stays due until then"
    counts = report.counts
    return (
        f"destination {report.destination}: {report.why or 'rows are still due'} "
        f"({counts['failed']} failed, {counts['postponed']} not tried); they stay due, and the "
        "next sync sends them"
    )


def unusual(space: Space, report: SyncReport) -> list[Unusual]:
    """What of a sync is beyond the shares that the space's alerts declare."""
    limits = space.project.alerts
    return report.unusual(changes=limits.changes, size=limits.size, at_least=limits.at_least)


def _destination(space: Space, name: str) -> models.Destination:
    model = space.destinations.get(name)
    if model is None:
        there = ", ".join(sorted(space.destinations)) or "none"
        raise PersonasError(
            f"no destination `{name}` in space {space.name}; expected one of: {there}"
        )
    return model


def opened(space: Space, name: str) -> Destination:
    """A destination of the space with its secrets, or its simulator."""
    model = _destination(space, name)
    if space.simulation is not None:
        return open_destination(model.type, space.simulation.of(space.name, name))
    for setting in literal_secrets(model):
        raise PersonasError(f"destination {name}: {setting}: {SECRET_FOUND}")
    return open_destination(model.type, _resolved(model.settings))


def _resolved(value: Any) -> Any:
    """Settings with their secrets read: `{env: NAME}` and `{file: PATH}` anywhere in them."""
    if isinstance(value, Mapping):
        if set(value) in ({"env"}, {"file"}):
            return fields.Secret.model_validate(value).read()
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
            "members": part.members,
            "messages": part.messages,
            "reasons": ", ".join(f"{k} {v}" for k, v in sorted(part.sent.items())) or "no changes",
            "rejected": part.rejected,
            "failed": part.failed,
            "not_sendable": ", ".join(f"{k} {v}" for k, v in sorted(part.not_sendable.items())),
            "held": part.held or "",
        }
        for name, part in report.connections.items()
    ]
