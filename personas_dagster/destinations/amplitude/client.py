"""Requests to Amplitude, and what its answers mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import httpx

from personas_dagster.activation.destination import Message, Outcome, Pace
from personas_dagster.destinations.amplitude import payload
from personas_dagster.destinations.amplitude.settings import AmplitudeSettings
from personas_dagster.destinations.tool import (
    BatchTool,
    Call,
    Person,
    RowsRefused,
    decoded,
    fields,
    revealed,
)
from personas_dagster.errors import DeliveryError, Throttled, Unauthorized

# what of a 400 names events by index: field -> indexes
_NAMED = {
    "events_with_invalid_fields": "is not valid",
    "events_with_missing_fields": "is missing",
    "events_with_invalid_id_lengths": "is too short",
}


class Amplitude(BatchTool):
    """One project."""

    def __init__(self, settings: AmplitudeSettings) -> None:
        super().__init__(settings)
        self._amplitude = settings

    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        return payload.calls(batch, self._amplitude)

    def deletions(self, people: Sequence[Person]) -> Sequence[Call]:
        return [payload.deletion(people, self._amplitude.privacy_url)]

    async def perform_deletion(
        self, call: Call, people: Sequence[Person], pace: Pace
    ) -> Sequence[Outcome]:
        secret = {k: revealed(v) for k, v in self._amplitude.privacy_credentials.items()}
        return await super().perform_deletion(replace(call, headers=secret), people, pace)

    def refusal(self, response: httpx.Response) -> DeliveryError | None:
        """A wrong key is a 400 here; a 400 may name the events at fault, and takes none."""
        error = super().refusal(response)
        if response.status_code == 429 and isinstance(error, Throttled):
            return Throttled(str(error), error.retry_after or self._amplitude.throttle_pause)
        if response.status_code == 400:
            text = response.text.lower()
            if "invalid api key" in text or "invalid_api_key" in text:
                return Unauthorized(f"HTTP 400: {self.said(response.text)}")
            reasons = _reasons(response)
            return RowsRefused(reasons) if reasons else error
        return error


def _reasons(response: httpx.Response) -> dict[int, str]:
    answer = fields(decoded(response))
    return {
        index: f"{name} {text}"
        for kind, text in _NAMED.items()
        for name, indexes in fields(answer.get(kind)).items()
        for index in (indexes if isinstance(indexes, list) else ())
        if isinstance(index, int)
    }
