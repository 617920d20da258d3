"""A sync of one destination, from start to end.

Lease, leftovers of a killed sync, difference, circuit breaker, sending, ledger: the order is the
guarantee. Nothing is sent that is not written down first, and what is written down becomes rows
of the ledger whatever happens to this process.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from personas_dagster.activation import results
from personas_dagster.activation.breaker import reason_to_hold
from personas_dagster.activation.connection import Connection, problems
from personas_dagster.activation.delivery import Delivery, Parcel, batches, parcels
from personas_dagster.activation.destination import Abilities, Destination
from personas_dagster.activation.difference import Difference
from personas_dagster.activation.messages import Writer, read_changes
from personas_dagster.activation.outbox import Outbox
from personas_dagster.activation.pace import Limiter, SharedPace, SharedWindow
from personas_dagster.activation.recording import Progress, Recording
from personas_dagster.activation.report import ConnectionReport, SyncReport
from personas_dagster.activation.retries import Retries
from personas_dagster.activation.standing import NOTE_FROM
from personas_dagster.errors import PersonasError, Unauthorized
from personas_dagster.interfaces import Engine, Lake, Session
from personas_dagster.state.store import State

_EXAMPLES = 20
_HISTORY, _USUAL_FROM = 20, 3  # syncs that are looked back to; how many make something usual
_ALL_SYNCS = 2**62
_MEMORY = "1GB"  # what a sync's tables take of it at most, however large the audience
_MOST_FILES = 64  # of the ledger; each sync that sends something adds one or two
_HOURLY = dt.timedelta(hours=1)


def sync(
    destination_name: str,
    destination: Destination,
    connections: Sequence[Connection],
    *,
    lake: Lake,
    engine: Engine,
    state: State,
    prepare: Callable[[Session], None],
    space_id: str,
    refresh_id: int,
    now: Callable[[], dt.datetime],
    owner: str,
    dry_run: bool = False,
    allow: Mapping[str, str] | None = None,
    overdue: Mapping[str, str] | None = None,
    resync: Collection[str] = (),
    force: bool = False,
    every: dt.timedelta | None = None,
    attempt: int = 1,
    limiter: Limiter | None = None,
    retries: Retries | None = None,
    progress: Progress | None = None,
) -> SyncReport:
    """Deliver what changed to one destination, for all its connections.

    `prepare` makes the graph's relations, `trait_values` and `members` readable in a session.
    `allow` maps connections or keys to the reason why the circuit breaker lets them pass once.
    `overdue` maps connections or keys to what is known of a source that has not delivered: then
    an audience that changed is held. `resync` names connections or keys that are sent everything
    again. `every` is an interval that is wanted; what the tool asks for holds where it is longer.
    `force` passes over both; without it, a sync that comes too early does nothing, and the
    report's `skipped` says so. `attempt` counts from 1, for the audit trail.
    `limiter` replaces the cap on requests that all processes share; `progress` is told how many
    rows are done, and of how many.

    Raises `Busy` when another sync of this destination runs, and `Unauthorized` when the tool
    does not accept the credentials. All else that went wrong is in the report.
    """
    per_second = destination.abilities.requests_per_second
    job = _Job(
        name=destination_name,
        destination=destination,
        connections=connections,
        prepare=prepare,
        space_id=space_id,
        refresh_id=refresh_id,
        now=now,
        owner=owner,
        allow=dict(allow or {}),
        overdue=dict(overdue or {}),
        again=frozenset(resync),
        force=force,
        every=every,
        attempt=attempt,
        limiter=limiter
        or (SharedWindow(state, destination_name, per_second) if per_second else None),
        retries=retries or Retries(),
        progress=progress or (lambda done, total: None),
    )
    job.check()
    outbox = Outbox(state, lake, destination_name, now)
    if dry_run:
        with engine.session(lake, memory=_MEMORY) as session:
            return job.rehearse(session, outbox)
    lease = state.lease(
        f"destination:{destination_name}", owner=owner, holder=f"sync of {destination_name}"
    )
    with lease, engine.session(lake, memory=_MEMORY) as session:
        return job.run(session, outbox, lake, state)


@dataclass(frozen=True)
class _Job:
    """One sync's arguments, and its steps."""

    name: str
    destination: Destination
    connections: Sequence[Connection]
    prepare: Callable[[Session], None]
    space_id: str
    refresh_id: int
    now: Callable[[], dt.datetime]
    owner: str
    allow: Mapping[str, str]
    overdue: Mapping[str, str]
    again: frozenset[str]
    force: bool
    every: dt.timedelta | None
    attempt: int
    limiter: Limiter | None
    retries: Retries
    progress: Progress
    passed: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [one.name for one in self.connections]

    @property
    def resync(self) -> list[str]:
        return [one.name for one in self.connections if {one.name, one.key} & self.again]

    def check(self) -> None:
        """Refuse connections that this destination cannot take."""
        abilities = self.destination.abilities
        found = [text for one in self.connections for text in problems(one, abilities)]
        found += [
            f"connection {one.name} belongs to destination {one.destination}, not to {self.name}"
            for one in self.connections
            if one.destination != self.name
        ]
        known = {name for one in self.connections for name in (one.name, one.key)}
        found += [
            f"no connection or key `{name}` leads to {self.name}; it cannot be sent again"
            for name in sorted(self.again - known)
        ]
        if found:
            raise PersonasError("\n".join(found))

    def rehearse(self, session: Session, outbox: Outbox) -> SyncReport:
        """Write and send nothing: counts, the first requests, the time at the tool's rate."""
        first = outbox.never_synced(self.names)
        resync = {**outbox.resyncs(self.names), **dict.fromkeys(self.resync, _ALL_SYNCS)}
        difference, report = self._compare(session, outbox, first, resync, None)
        abilities = self.destination.abilities
        for parcel in self._parcels(difference, None):
            report.connections[parcel.connection].messages += len(parcel.messages)
            for batch in batches(parcel, abilities):
                requests = self.destination.preview(batch)
                report.requests += len(requests)
                report.examples.extend(requests[: _EXAMPLES - len(report.examples)])
        if abilities.requests_per_second:
            report.seconds = report.requests / abilities.requests_per_second
        return report

    def run(self, session: Session, outbox: Outbox, lake: Lake, state: State) -> SyncReport:
        """The real thing; the caller holds the lease."""
        if not self.force and (early := self._too_early(outbox)):
            report = SyncReport(self.name, self.refresh_id, None, False, skipped=early)
            self._audit(state, self.name, outcome="skipped", reason=early)
            return report
        recovered = outbox.flush()
        self._ask_results(session, outbox, lake, state)
        sync_id = outbox.start(self.refresh_id, self.attempt)
        first = outbox.first_seen(self.names, self.refresh_id)
        outbox.resync(self.resync, sync_id)
        resync = outbox.resyncs(self.names)
        difference, report = self._compare(session, outbox, first, resync, sync_id)
        report.recovered = recovered
        self._note(state, report)
        if difference.silent_rows:
            silent = difference.silent(refresh_id=self.refresh_id, sync_id=sync_id, at=self.now())
            lake.append("ledger", silent)
        if difference.notes >= NOTE_FROM:
            noted = difference.noted(refresh_id=self.refresh_id, sync_id=sync_id, at=self.now())
            lake.append("ledger", noted)
        # their past is in the ledger now, whatever becomes of the rest
        historical = self.destination.abilities.takes_historical
        kept_back = [c.name for c in self.connections if not (c.backfill and historical)]
        outbox.synced([name for name in kept_back if name not in resync], self.refresh_id)
        pace = SharedPace(self.limiter, self.retries.sleep)
        results_after = self.destination.abilities.results_after
        log = Recording(outbox, report, self.progress, results_after)
        delivery = Delivery(self.destination, pace, self.retries, log)
        new = [one for one in self.connections if one.name in first]

        async def go() -> None:
            await delivery.check(new)
            report.checked = pace.requests
            if delivery.stopped is None:
                difference.hold([*report.held, *delivery.needs])
                await delivery.run(self._parcels(difference, sync_id))

        try:
            asyncio.run(go())
        except BaseException as error:
            self._close(state, outbox, report, type(error).__name__)
            raise
        report.requests = pace.requests - report.checked
        report.failed_attempts = delivery.failed_attempts
        report.stopped = str(delivery.stopped) if delivery.stopped else None
        outbox.flush()
        lake.compact("ledger", above=_MOST_FILES)
        self._close(state, outbox, report, report.stopped)
        if isinstance(delivery.stopped, Unauthorized):
            raise Unauthorized(
                f"destination {self.name}: {delivery.stopped}; check its credentials, then sync "
                "again: what was not confirmed is still due"
            )
        return report

    def _ask_results(self, session: Session, outbox: Outbox, lake: Lake, state: State) -> None:
        """What became of what the tool took before; what was not done is due again."""
        asked = results.ask(
            self.destination,
            outbox,
            SharedPace(self.limiter, self.retries.sleep),
            self.retries,
            refresh_id=self.refresh_id,
            attempt=self.attempt,
            now=self.now(),
        )
        if asked.failed:
            lake.append("ledger", results.corrections(session, self.name, asked, at=self.now()))
        for receipt, result in asked.found:
            if result.error or result.note:
                self._audit(
                    state,
                    receipt["connection"],
                    outcome="undone" if result.error else "partial",
                    reason=f"{receipt['receipt']}: {result.error or result.note}",
                )
        for receipt in results.close(outbox, asked, now=self.now()):
            said = f"{receipt['receipt']}: the tool never said what became of it"
            self._audit(state, receipt["connection"], outcome="unknown", reason=said)

    def _too_early(self, outbox: Outbox) -> str | None:
        """Why the tool is not to be synced yet, if so."""
        interval = interval_of(self.destination.abilities, self.every)
        started = outbox.last_sent() if interval else None
        if not interval or started is None or self.now() >= started + interval:
            return None
        next_at = started + interval
        return (
            f"destination {self.name} takes a sync every {interval}; the last began at "
            f"{started:%Y-%m-%d %H:%M:%S} UTC, the next may begin at {next_at:%Y-%m-%d %H:%M:%S} "
            "UTC, or sooner if forced"
        )

    def _compare(
        self,
        session: Session,
        outbox: Outbox,
        first: frozenset[str],
        resync: Mapping[str, int],
        sync_id: int | None,
    ) -> tuple[Difference, SyncReport]:
        """The difference, and a report that knows what is due and what is held."""
        self.prepare(session)
        session.view("ledger")
        abilities = self.destination.abilities
        difference = Difference(session, self.connections, abilities, first=first, resync=resync)
        history = [row["counts"].get("connections", {}) for row in outbox.history(_HISTORY)]
        report = SyncReport(self.name, self.refresh_id, sync_id, sync_id is None)
        for one in self.connections:
            size = difference.sizes[one.name]
            part = ConnectionReport(one.name, one.key, one.name in first, size.before, size.now)
            part.usual_changes = _usual(one.name, history)
            part.due.update(difference.due[one.name])
            part.not_sendable.update(difference.not_sendable[one.name])
            late = self.overdue.get(one.name) or self.overdue.get(one.key)
            reason = None if part.first else reason_to_hold(one, size, late)
            if reason and {one.name, one.key} & self.allow.keys():
                self.passed[one.name] = reason
            else:
                part.held = reason
            report.connections[one.name] = part
        difference.hold(list(report.held))
        return difference, report

    def _parcels(self, difference: Difference, sync_id: int | None) -> Iterator[Parcel]:
        abilities, at = self.destination.abilities, self.now()
        writers = {
            one.name: Writer(one, abilities, space_id=self.space_id, timestamp=at)
            for one in self.connections
        }
        changes = read_changes(difference.changes(), self.refresh_id, sync_id)
        return parcels(changes, writers, abilities)

    def _note(self, state: State, report: SyncReport) -> None:
        """The audit trail learns what is held, and what a person let pass, who and why."""
        for name, reason in report.held.items():
            self._audit(state, name, outcome="held", reason=reason)
        for one in self.connections:
            if one.name in self.passed:
                why = self.allow.get(one.name) or self.allow[one.key]
                state.audit(
                    "allow",
                    one.name,
                    at=self.now(),
                    outcome="allowed",
                    reason=f"{self.owner}: {why} (held because it {self.passed[one.name]})",
                )

    def _close(self, state: State, outbox: Outbox, report: SyncReport, reason: str | None) -> None:
        """The sync's row, the audit trail, and which connections were gone through to the end."""
        done = [
            name
            for name, one in report.connections.items()
            if not (one.held or one.needs or one.postponed or one.not_taken)
            and not (one.first and report.stopped and not report.requests)  # it was not checked
        ]
        outbox.synced(done, self.refresh_id)
        for name, what in report.needs.items():
            self._audit(state, name, outcome="needs_setup", reason=what)
        # what others were sent counts for the interval; with nothing sent, the next may begin
        waits = report.needs_setup_only and report.confirmed
        is_bad = reason is not None or (report.failed and not waits)
        outcome = "failed" if is_bad else "finished"
        each = {
            name: one.changes
            for name, one in report.connections.items()
            if not one.first and not one.held
        }
        more = {
            "connections": each,
            "asked": sorted(report.connections.keys() - report.needs.keys()),
            "held_connections": sorted(report.held),
        }
        if reason is None and report.failed:
            reason = report.why
        line = {"outcome": outcome, "attempt": self.attempt, "reason": reason}
        assert report.sync_id is not None
        outbox.finish(
            report.sync_id,
            outcome,
            {**report.counts, **more},
            audit={**line, "counts": report.counts},
        )

    def _audit(self, state: State, subject: str, **what: Any) -> None:
        state.audit("sync", subject, at=self.now(), attempt=self.attempt, **what)


def interval_of(abilities: Abilities, every: dt.timedelta | None) -> dt.timedelta | None:
    """How long from one sync to the next, at least: what is wanted, or what the tool asks for.

    List destinations are synced hourly where neither says.
    """
    asked = abilities.interval
    if asked is None and abilities.kind == "list":
        asked = _HOURLY
    return max(filter(None, (asked, every)), default=None)


def _usual(connection: str, history: Sequence[Mapping[str, int]]) -> int | None:
    """The median of a connection's changes in earlier syncs; None while they are few."""
    known = [counts[connection] for counts in history if connection in counts]
    return round(median(known)) if len(known) >= _USUAL_FROM else None
