"""Requests to Mixpanel, and what its answers mean."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from personas_dagster.activation.destination import DELIVERED, Message, Outcome
from personas_dagster.destinations.mixpanel import payload
from personas_dagster.destinations.mixpanel.settings import MixpanelSettings
from personas_dagster.destinations.tool import BatchTool, Call, Person, decoded, fields, items
from personas_dagster.errors import DeliveryError, Rejected


class Mixpanel(BatchTool):
    """One project."""

    def __init__(self, settings: MixpanelSettings) -> None:
        super().__init__(settings)
        self._mixpanel = settings

    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        return payload.calls(batch, self._mixpanel)

    def deletions(self, people: Sequence[Person]) -> Sequence[Call]:
        return [payload.deletion(people)]

    def refusal(self, response: httpx.Response) -> DeliveryError | None:
        """A strict import that names what failed has taken the rest, though it says 400."""
        answer = fields(decoded(response))
        if response.status_code == 400 and items(answer.get("failed_records")):
            return None
        if response.is_success and answer.get("status") == 0:
            return Rejected(self.said(answer.get("error")))
        return super().refusal(response)

    def outcomes(self, call: Call, response: httpx.Response) -> Sequence[Outcome]:
        outcomes = [DELIVERED] * len(call.rows)
        for record in items(fields(decoded(response)).get("failed_records")):
            index = record.get("index")
            if isinstance(index, int) and 0 <= index < len(outcomes):
                text = f"{record.get('field')}: {record.get('message')}"
                outcomes[index] = Outcome(Rejected(self.said(text)))
        return outcomes
