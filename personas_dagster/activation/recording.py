"""A sync as it goes on: intents and answers written, and the report's counts kept."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence

from personas_dagster.activation.delivery import Parcel
from personas_dagster.activation.outbox import Outbox, Settled
from personas_dagster.activation.report import SyncReport

Progress = Callable[[int, int], None]
"""Told how many rows are done, of how many."""


class Recording:
    """Writes intents and answers, and keeps the report's counts."""

    def __init__(
        self, outbox: Outbox, report: SyncReport, progress: Progress, results_after: dt.timedelta
    ) -> None:
        self._results_after = results_after
        self._outbox, self._report, self._progress = outbox, report, progress
        parts = report.connections.values()
        self._total = sum(sum(one.due.values()) for one in parts if not one.held)
        self._done = 0

    def intend(self, parcel: Parcel) -> int:
        key = self._report.connections[parcel.connection].key
        assert self._report.sync_id is not None
        changes = [change for change, _ in parcel.rows]
        return self._outbox.intend(self._report.sync_id, key, self._report.refresh_id, changes)

    def answer(self, intent_id: int, parcel: Parcel, settled: Sequence[Settled]) -> None:
        self._outbox.answer(intent_id, settled, parcel.connection, self._results_after)
        part = self._report.connections[parcel.connection]
        for (change, messages), one in zip(parcel.rows, settled, strict=True):
            if one.outcome == "not_taken" and part.needs:
                continue  # as if it had not been tried
            part.sent[change.reason] += 1
            if one.outcome == "confirmed":
                part.confirmed += 1
                part.messages += len(messages)
                if one.detail and not one.receipts:
                    part.example(change.profile_id, one.outcome, one.detail)
                continue
            if one.outcome in ("rejected", "partial"):
                part.rejected += 1
            else:
                part.failed += 1
                part.not_taken += one.outcome == "not_taken"
            part.example(change.profile_id, one.outcome, one.detail or "")
        self._done += len(settled)
        self._progress(self._done, self._total)

    def lacks(self, connection: str, what: str) -> None:
        self._report.connections[connection].needs = what
