"""What is on its way: intents written before sending, answers beside them, then the ledger.

An intent is one batch. It is written before the tool hears of it and answered as soon as the tool
did; at the end of a sync, or at the start of the next one if this one was killed, all intents
become rows of the ledger in one commit. A row whose intent has no answer is `unknown` there.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from personas_dagster.activation.messages import Change
from personas_dagster.activation.pace import answered_now, milliseconds
from personas_dagster.interfaces import Lake
from personas_dagster.lake.tables import TABLES
from personas_dagster.state.schema import connections, intents, receipts, syncs
from personas_dagster.state.store import State

_PAGE, _PAGE_MOST, _PAGE_ROWS = 20, 2_000, 20_000  # intents read at once; the rows aimed at
_LEDGER = TABLES["ledger"].schema


@dataclass(frozen=True, slots=True)
class Settled:
    """What became of one row. `not_taken` is certain and leaves no trace in the ledger."""

    outcome: str  # confirmed, partial, rejected, failed, not_taken
    detail: str | None = None
    receipts: tuple[str, ...] = ()  # what the tool works off later; `detail` has the first


class Outbox:
    """The intents of one destination. The caller holds the destination's lease."""

    def __init__(
        self, state: State, lake: Lake, destination: str, now: Callable[[], dt.datetime]
    ) -> None:
        self._state, self._lake = state, lake
        self._destination, self._now = destination, now

    def first_seen(self, names: Sequence[str], refresh_id: int) -> frozenset[str]:
        """Note connections that are new; returns those that were never synced to the end."""
        table = connections
        with self._state.begin() as connection:
            known = {
                row.name: row.synced_refresh_id
                for row in connection.execute(sa.select(table).where(table.c.name.in_(names)))
            }
            for name in names:
                if name not in known:
                    connection.execute(
                        sa.insert(table).values(
                            name=name,
                            created_at=self._now(),
                            first_refresh_id=refresh_id,
                            synced_refresh_id=0,
                        )
                    )
        return frozenset(name for name in names if not known.get(name))

    def never_synced(self, names: Sequence[str]) -> frozenset[str]:
        """As `first_seen`, noting nothing."""
        query = sa.select(connections.c.name).where(
            connections.c.name.in_(names), connections.c.synced_refresh_id > 0
        )
        return frozenset(names) - {row["name"] for row in self._state.rows(query)}

    def synced(self, names: Sequence[str], refresh_id: int) -> None:
        """These connections are as this refresh wants them."""
        with self._state.begin() as connection:
            connection.execute(
                sa.update(connections)
                .where(connections.c.name.in_(names))
                .values(synced_refresh_id=refresh_id, resync_from=None)
            )

    def resync(self, names: Sequence[str], sync_id: int) -> None:
        """These connections are to be sent everything again; remembered until that is done."""
        with self._state.begin() as connection:
            connection.execute(
                sa.update(connections)
                .where(connections.c.name.in_(names), connections.c.resync_from.is_(None))
                .values(resync_from=sync_id)
            )

    def resyncs(self, names: Sequence[str]) -> dict[str, int]:
        """Connections that are to be sent everything again: what syncs before this told them."""
        query = sa.select(connections.c.name, connections.c.resync_from).where(
            connections.c.name.in_(names), connections.c.resync_from.is_not(None)
        )
        return {row["name"]: row["resync_from"] for row in self._state.rows(query)}

    def history(self, most: int) -> list[dict[str, Any]]:
        """The counts of the last finished syncs that sent something, the newest first."""
        query = (
            sa.select(syncs.c.started_at, syncs.c.counts)
            .where(syncs.c.destination == self._destination, syncs.c.status == "finished")
            .order_by(syncs.c.sync_id.desc())
            .limit(most * 10)
        )
        sent = [row for row in self._state.rows(query) if (row["counts"] or {}).get("requests")]
        return sent[:most]

    def last_sent(self) -> dt.datetime | None:
        """When the last finished sync that sent something began."""
        found = self.history(1)
        return found[0]["started_at"] if found else None

    def start(self, refresh_id: int, attempt: int) -> int:
        """A new sync. One before it that never ended is marked as failed, and audited as killed."""
        mine = syncs.c.destination == self._destination
        with self._state.begin() as connection:
            never_ended = sa.select(syncs).where(mine, syncs.c.status == "started")
            for dead in connection.execute(never_ended).all():
                connection.execute(
                    sa.update(syncs)
                    .where(syncs.c.sync_id == dead.sync_id)
                    .values(status="failed", finished_at=self._now(), counts={"killed": True})
                )
                self._state.audit(
                    "sync",
                    self._destination,
                    at=self._now(),
                    outcome="killed",
                    attempt=(dead.counts or {}).get("attempt", 1),
                    reason=f"the sync that began at {dead.started_at:%Y-%m-%d %H:%M:%S} UTC never "
                    "ended; what it sent is in the ledger",
                    within=connection,
                )
            last = connection.execute(
                sa.select(syncs.c.places).where(mine).order_by(syncs.c.sync_id.desc()).limit(1)
            ).scalar()
            row = connection.execute(
                sa.insert(syncs).values(
                    destination=self._destination,
                    refresh_id=refresh_id,
                    status="started",
                    started_at=self._now(),
                    counts={"attempt": attempt},
                    places=answered_now(last, milliseconds()),
                )
            )
            return _key(row)

    def finish(
        self,
        sync_id: int,
        status: str,
        counts: dict[str, Any],
        *,
        audit: Mapping[str, Any] | None = None,
    ) -> None:
        """A sync has ended. `audit` is its line in the audit trail, written together with it."""
        with self._state.begin() as connection:
            if audit is not None:
                self._state.audit(
                    "sync", self._destination, at=self._now(), within=connection, **audit
                )
            connection.execute(
                sa.update(syncs)
                .where(syncs.c.sync_id == sync_id)
                .values(status=status, finished_at=self._now(), counts=counts)
            )

    def intend(self, sync_id: int, key: str, refresh_id: int, changes: Sequence[Change]) -> int:
        """Write down what is about to be sent: one connection's batch."""
        rows = [
            [c.profile_id, c.recipient, c.value, c.reason, c.message_id, c.mark] for c in changes
        ]
        with self._state.begin() as connection:
            row = connection.execute(
                sa.insert(intents).values(
                    sync_id=sync_id,
                    destination=self._destination,
                    connection=changes[0].connection,
                    rows={"key": key, "refresh_id": refresh_id, "rows": rows},
                    written_at=self._now(),
                )
            )
            return _key(row)

    def answer(
        self,
        intent_id: int,
        settled: Sequence[Settled],
        connection: str = "",
        results_after: dt.timedelta = dt.timedelta(),
    ) -> None:
        """Record what the tool said, row by row, and what is to be asked later."""
        outcomes = {
            "at": self._now().isoformat(),
            "rows": [[one.outcome, one.detail] for one in settled],
        }
        with self._state.begin() as answered:
            answered.execute(
                sa.update(intents).where(intents.c.intent_id == intent_id).values(outcomes=outcomes)
            )
            taken = [
                {
                    "destination": self._destination,
                    "connection": connection,
                    "receipt": receipt,
                    "taken_at": self._now(),
                    "ask_from": self._now() + results_after,
                }
                for receipt in dict.fromkeys(text for one in settled for text in one.receipts)
            ]
            if taken:
                answered.execute(sa.insert(receipts), taken)

    def open_receipts(self, at: dt.datetime) -> list[dict[str, Any]]:
        """What the tool may have worked off by now."""
        query = (
            sa.select(receipts)
            .where(receipts.c.destination == self._destination, receipts.c.ask_from <= at)
            .order_by(receipts.c.receipt_id)
        )
        return self._state.rows(query)

    def close_receipts(self, done: Sequence[int], later: Mapping[int, dt.datetime]) -> None:
        """Forget those that are known; ask for the others again at their time."""
        with self._state.begin() as connection:
            connection.execute(sa.delete(receipts).where(receipts.c.receipt_id.in_(done)))
            for number, ask_from in later.items():
                connection.execute(
                    sa.update(receipts)
                    .where(receipts.c.receipt_id == number)
                    .values(ask_from=ask_from)
                )

    def flush(self) -> int:
        """Move all intents to the ledger, in one commit; returns how many rows they held.

        Killed between the commit and the clearing, the next flush finds the same intents and the
        lake knows their number already.
        """
        mine = intents.c.destination == self._destination
        last = self._state.rows(sa.select(sa.func.max(intents.c.intent_id).label("n")).where(mine))
        through = last[0]["n"]
        if through is None:
            return 0
        reader = pa.RecordBatchReader.from_batches(_LEDGER, self._batches(through))
        moved = self._lake.append("ledger", reader, once=(f"sync:{self._destination}", through))
        with self._state.begin() as connection:
            connection.execute(sa.delete(intents).where(mine, intents.c.intent_id <= through))
        return moved

    def _batches(self, through: int) -> Iterator[pa.RecordBatch]:
        after, limit = 0, _PAGE
        while after < through:
            page = self._state.rows(
                sa.select(intents)
                .where(
                    intents.c.destination == self._destination,
                    intents.c.intent_id > after,
                    intents.c.intent_id <= through,
                )
                .order_by(intents.c.intent_id)
                .limit(limit)
            )
            if not page:
                return
            after = page[-1]["intent_id"]
            rows = [row for intent in page for row in _ledger_rows(intent)]
            columns = list(zip(*rows, strict=True)) or [()] * len(_LEDGER)
            arrays = [pa.array(c, f.type) for c, f in zip(columns, _LEDGER, strict=True)]
            yield pa.RecordBatch.from_arrays(arrays, schema=_LEDGER)
            limit = min(_PAGE_MOST, max(_PAGE, len(page) * _PAGE_ROWS // max(1, len(rows))))


def _key(result: sa.CursorResult[Any]) -> int:
    key = result.inserted_primary_key
    assert key is not None
    return int(key[0])


def _ledger_rows(intent: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    """An intent's rows, in the order of the ledger's columns."""
    told, answer = intent["rows"], intent["outcomes"]
    at = dt.datetime.fromisoformat(answer["at"]) if answer else intent["written_at"]
    outcomes = (
        answer["rows"] if answer else [["unknown", "no answer was recorded"]] * len(told["rows"])
    )
    destination, connection, key = intent["destination"], intent["connection"], told["key"]
    refresh_id, sync_id = told["refresh_id"], intent["sync_id"]
    for row, (outcome, detail) in zip(told["rows"], outcomes, strict=True):
        if outcome != "not_taken":
            profile_id, recipient, value, reason, message_id, mark = row
            yield (
                *(destination, connection, key, profile_id, recipient, value, reason),
                *(outcome, detail, message_id, refresh_id, sync_id, at, mark),
            )
