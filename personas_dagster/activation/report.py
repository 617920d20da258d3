"""What a sync did, as data: for metadata, the audit trail, alerts and the command line."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from personas_dagster.activation.destination import Request

_SAMPLES = 20


@dataclass(frozen=True)
class Sample:
    """One row that did not arrive, and what was said about it."""

    profile_id: str
    outcome: str
    detail: str


@dataclass(frozen=True)
class Unusual:
    """Something that is not as it was before: a connection's changes, or its audience's size.

    `usual` is the median of earlier syncs' changes, or the size that the tool knew.
    """

    connection: str
    what: Literal["changes", "size"]
    usual: int
    now: int

    @property
    def share(self) -> float:
        """How far off: 0.5 is half as much again, -0.5 is half as much."""
        return (self.now - self.usual) / max(1, self.usual)

    def __str__(self) -> str:
        noun = "changes" if self.what == "changes" else "members"
        return (
            f"connection {self.connection}: {self.now} {noun}, usually {self.usual} "
            f"({self.share:+.0%})"
        )


@dataclass
class ConnectionReport:
    """One connection's part. Rows are recipients; `messages` are what they were told."""

    name: str
    key: str
    first: bool
    members_before: int = 0
    members: int = 0
    usual_changes: int | None = None  # the median of earlier syncs, once there are some
    due: Counter[str] = field(default_factory=Counter)  # reason -> rows that the difference found
    sent: Counter[str] = field(default_factory=Counter)  # reason -> rows that were attempted
    confirmed: int = 0
    rejected: int = 0
    failed: int = 0
    not_taken: int = 0  # of these, rows that certainly never reached the tool
    messages: int = 0  # that the tool confirmed; in a dry run, that would be sent
    not_sendable: Counter[str] = field(default_factory=Counter)
    held: str | None = None
    needs: str | None = None  # what a person must make at the tool first
    samples: list[Sample] = field(default_factory=list)

    @property
    def changes(self) -> int:
        """Rows that were due because something changed."""
        return sum(count for reason, count in self.due.items() if reason != "resync")

    @property
    def postponed(self) -> int:
        """Rows that were due and not attempted; the next sync finds them again."""
        return sum(self.due.values()) - sum(self.sent.values())

    def example(self, profile_id: str, outcome: str, detail: str) -> None:
        if len(self.samples) < _SAMPLES:
            self.samples.append(Sample(profile_id, outcome, detail))


@dataclass
class SyncReport:
    """One sync of one destination. `seconds` is the time at the tool's rate (dry run only)."""

    destination: str
    refresh_id: int
    sync_id: int | None
    dry_run: bool
    connections: dict[str, ConnectionReport] = field(default_factory=dict)
    requests: int = 0  # that were to send something
    checked: int = 0  # that asked what is there, before a first sync
    recovered: int = 0
    failed_attempts: Counter[str] = field(default_factory=Counter)  # what was said -> attempts
    stopped: str | None = None
    skipped: str | None = None  # why nothing was done at all
    seconds: float | None = None
    examples: list[Request] = field(default_factory=list)

    @property
    def held(self) -> dict[str, str]:
        """Connection -> why the circuit breaker holds it."""
        return {name: one.held for name, one in self.connections.items() if one.held}

    @property
    def needs(self) -> dict[str, str]:
        """Connection -> what a person must make at the tool before it can be synced."""
        return {name: one.needs for name, one in self.connections.items() if one.needs}

    @property
    def messages(self) -> int:
        """How many messages were confirmed; in a dry run, how many would be sent."""
        return sum(one.messages for one in self.connections.values())

    @property
    def confirmed(self) -> int:
        """Rows that the tool took."""
        return sum(one.confirmed for one in self.connections.values())

    @property
    def rejected(self) -> int:
        """Rows that the tool refused for good, in whole or in part."""
        return sum(one.rejected for one in self.connections.values())

    @property
    def failed(self) -> bool:
        """Whether a row is still due after the first try and all retries."""
        return self._rows_failed or bool(self.needs)

    @property
    def needs_setup_only(self) -> bool:
        """Whether all that is still due waits for something that a person must make first."""
        return bool(self.needs) and not self._rows_failed

    @property
    def _rows_failed(self) -> bool:
        return self.stopped is not None or any(one.failed for one in self.connections.values())

    @property
    def why(self) -> str | None:
        """What was said when rows failed: the first thing, of any connection."""
        said = (one for part in self.connections.values() for one in part.samples)
        rows = next((one.detail for one in said if one.outcome == "failed"), None)
        needs = "; ".join(f"connection {name}: {what}" for name, what in self.needs.items())
        return self.stopped or rows or needs or None

    def unusual(self, *, changes: float, size: float, at_least: int = 100) -> list[Unusual]:
        """What is beyond these shares, and by this many rows: for alerts.

        First syncs are never unusual; what is held says so itself. A resync is not a change, nor
        is what is sent again.
        """
        found = []
        for name, one in self.connections.items():
            pairs = [Unusual(name, "size", one.members_before, one.members)]
            if one.usual_changes is not None:
                pairs.insert(0, Unusual(name, "changes", one.usual_changes, one.changes))
            limits = {"changes": changes, "size": size}
            found += [
                pair
                for pair in pairs
                if not (one.first or one.held)
                and abs(pair.share) > limits[pair.what]
                and abs(pair.now - pair.usual) >= at_least
            ]
        return found

    @property
    def counts(self) -> dict[str, Any]:
        """The totals, as JSON."""
        parts = self.connections.values()
        reasons: Counter[str] = Counter()
        unsendable: Counter[str] = Counter()
        for part in parts:
            reasons.update(part.sent)
            unsendable.update(part.not_sendable)
        return {
            "messages": self.messages,
            "confirmed": self.confirmed,
            "rejected": self.rejected,
            "failed": sum(part.failed for part in parts),
            "postponed": 0 if self.dry_run else sum(part.postponed for part in parts),
            "held": len(self.held),
            "needs_setup": len(self.needs),
            "requests": self.requests,
            "recovered": self.recovered,
            "failed_attempts": self.failed_attempts.total(),
            "reasons": dict(sorted(reasons.items())),
            "not_sendable": dict(sorted(unsendable.items())),
        }
