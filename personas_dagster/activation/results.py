"""What became of requests that a tool took at once and worked off later.

Rows that went out in such a request are `confirmed` in the ledger, with its receipt as their
`detail`. Before the next sync the tool is asked for the results. Of a request that came to
nothing, the rows that are still the last of their recipient get another one: `failed`, which has
them sent again, or `rejected`. Where a tool says of a part only how much was not done, the audit
trail has it.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from personas_dagster.activation.destination import Destination, Result
from personas_dagster.activation.outbox import Outbox
from personas_dagster.activation.pace import SharedPace
from personas_dagster.activation.retries import Retries
from personas_dagster.errors import DeliveryError, Rejected
from personas_dagster.interfaces import Session

GIVE_UP = dt.timedelta(days=7)

# The corrections carry the number of the asking, which lies between those of the syncs around it.
_CORRECTIONS = """
WITH last AS (
  SELECT destination, connection, key, recipient,
         arg_max(struct_pack(profile_id := profile_id, value := value, reason := reason,
                             outcome := outcome, detail := detail, message_id := message_id),
                 sync_id) AS row
  FROM ledger
  WHERE destination = ? AND recipient IS NOT NULL
  GROUP BY destination, connection, key, recipient
)
SELECT l.destination, l.connection, l.key, l.row.profile_id AS profile_id, l.recipient,
       l.row.value AS value, l.row.reason AS reason, r.outcome, r.detail,
       l.row.message_id AS message_id, CAST(? AS BIGINT) AS refresh_id,
       CAST(? AS BIGINT) AS sync_id, CAST(? AS TIMESTAMPTZ) AS confirmed_at,
       CAST(NULL AS BIGINT) AS mark
FROM last l
JOIN results_undone r ON r.connection = l.connection AND r.receipt = l.row.detail
WHERE l.row.outcome = 'confirmed'
"""


@dataclass(frozen=True)
class Asked:
    """What was asked, and what the tool said. `number` stands among those of the syncs."""

    number: int = 0
    refresh_id: int = 0
    receipts: list[dict[str, Any]] = field(default_factory=list)
    results: Mapping[int, Result] = field(default_factory=dict)

    @property
    def found(self) -> list[tuple[dict[str, Any], Result]]:
        """Receipts whose result is known."""
        return [
            (one, self.results[one["receipt_id"]])
            for one in self.receipts
            if one["receipt_id"] in self.results
        ]

    @property
    def failed(self) -> bool:
        """Whether something came to nothing."""
        return any(result.error for result in self.results.values())


def ask(
    destination: Destination,
    outbox: Outbox,
    pace: SharedPace,
    retries: Retries,
    *,
    refresh_id: int,
    attempt: int,
    now: dt.datetime,
) -> Asked:
    """Ask for the results that may be there by now. A tool that cannot be asked is asked later."""
    receipts = outbox.open_receipts(now)
    if not receipts:
        return Asked()
    number = outbox.start(refresh_id, attempt)

    async def go() -> dict[int, Result]:
        found = {}
        async with destination:
            for one in receipts:
                try:
                    async for attempt in retries.attempts(pace):
                        with attempt, pace.turn() as turn:
                            result = await destination.result(one["receipt"], turn)
                except DeliveryError:
                    break  # what is wrong is said when something is sent
                if result is not None:
                    found[one["receipt_id"]] = result
        return found

    return Asked(number, refresh_id, receipts, asyncio.run(go()))


def corrections(
    session: Session, destination: str, asked: Asked, *, at: dt.datetime
) -> pa.RecordBatchReader:
    """Rows for the ledger: what was taken for done, and was not."""
    undone = [(one, result.error) for one, result in asked.found if result.error]
    session.register(
        "results_undone",
        pa.table(
            {
                "connection": [one["connection"] for one, _ in undone],
                "receipt": [one["receipt"] for one, _ in undone],
                "outcome": [
                    "rejected" if isinstance(error, Rejected) else "failed" for _, error in undone
                ],
                "detail": [str(error) for _, error in undone],
            }
        ),
    )
    session.view("ledger")
    return session.stream(_CORRECTIONS, [destination, asked.refresh_id, asked.number, at])


def close(outbox: Outbox, asked: Asked, *, now: dt.datetime) -> list[dict[str, Any]]:
    """Forget what is known; ask for the rest when it is twice as old. Returns what is given up."""
    if not asked.receipts:
        return []
    waiting = {
        one["receipt_id"]: now + (now - one["taken_at"])
        for one in asked.receipts
        if one["receipt_id"] not in asked.results and now - one["taken_at"] < GIVE_UP
    }
    done = [one for one in asked.receipts if one["receipt_id"] not in waiting]
    outbox.close_receipts([one["receipt_id"] for one in done], waiting)
    outbox.finish(asked.number, "results", {"asked": [], "results": len(asked.results)})
    return [one for one in done if one["receipt_id"] not in asked.results]
