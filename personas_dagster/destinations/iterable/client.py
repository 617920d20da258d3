"""Requests to Iterable, and what its answers mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from personas_dagster.activation.destination import DELIVERED, Message, Outcome, Pace
from personas_dagster.destinations.iterable import payload
from personas_dagster.destinations.iterable.settings import IterableSettings
from personas_dagster.destinations.tool import BatchTool, Call, Person, Spacing, decoded, fields
from personas_dagster.errors import DeliveryError, Rejected, Unavailable

_DELETIONS_PER_SECOND = 100
_NOBODY = frozenset({400, 404})  # if the code says so
# what `failedUpdates` calls the rows that it did not take; all but conflicts are for good
_REASONS = {
    "invalid": "is not valid",
    "invalidData": "has a field of another type than before",
    "notFound": "is not known to Iterable",
    "forgotten": "was forgotten on request",
    "conflict": "was changed by another request at once",
}


class Iterable(BatchTool):
    """One project."""

    def __init__(self, settings: IterableSettings) -> None:
        super().__init__(settings)
        self._deleting = Spacing(_DELETIONS_PER_SECOND)
        self._spacing = {
            payload.USERS: Spacing(settings.bulk_users_per_second),
            payload.EVENTS: Spacing(settings.bulk_events_per_second),
        }

    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        return payload.calls(batch)

    async def perform(self, call: Call, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]:
        await self._spacing[call.path]()
        return await super().perform(call, batch, pace)

    def deletions(self, people: Sequence[Person]) -> Sequence[Call]:
        return [payload.deletion(person, row) for row, person in enumerate(people)]

    async def perform_deletion(
        self, call: Call, people: Sequence[Person], pace: Pace
    ) -> Sequence[Outcome]:
        await self._deleting()
        response = await self.ask(call, pace, also=_NOBODY)
        error = self.refusal(response)
        if error is not None:
            code = str(fields(decoded(response)).get("code"))
            if code != "NotFound" and not code.startswith("Unknown"):
                raise error
        return [DELIVERED]

    def outcomes(self, call: Call, response: httpx.Response) -> Sequence[Outcome]:
        rows = call.body.get("users") or call.body["events"]
        return outcomes(rows, decoded(response))


def outcomes(
    rows: Sequence[dict[str, Any]], answer: Any, *, missing_is_success: bool = False
) -> list[Outcome]:
    """What a bulk answer says about each row: it names failures by e-mail or user id."""
    said = fields(answer)
    reasons = _failures(said)
    blocked = _texts(said.get("disallowedEventNames"))
    found = []
    for row in rows:
        reason = reasons.get(("userId", row.get("userId"))) or reasons.get(
            ("email", str(row.get("email")).lower())
        )
        error: DeliveryError | None = None
        if reason == "notFound" and missing_is_success:
            pass
        elif reason is not None:
            text = f"the user {_REASONS[reason]}"
            error = Unavailable(text) if reason == "conflict" else Rejected(text)
        elif row.get("eventName") in blocked:
            error = Rejected("events of this name are not allowed in the project")
        found.append(Outcome(error) if error else DELIVERED)
    failed = said.get("failCount")
    if isinstance(failed, int) and failed > 0 and not reasons and not blocked:
        raise Rejected(f"{failed} rows were refused, and not named")
    return found


def _failures(said: dict[str, Any]) -> dict[tuple[str, Any], str]:
    found: dict[tuple[str, Any], str] = {}
    for values in (said, fields(said.get("failedUpdates"))):
        for reason in _REASONS:
            for email in _texts(values.get(f"{reason}Emails")):
                found["email", email.lower()] = reason
            for user_id in _texts(values.get(f"{reason}UserIds")):
                found["userId", user_id] = reason
    return found


def _texts(found: Any) -> set[str]:
    return {one for one in found if isinstance(one, str)} if isinstance(found, list) else set()
