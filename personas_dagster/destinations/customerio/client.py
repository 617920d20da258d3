"""Requests to Customer.io, and what its answers mean."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from personas_dagster.activation.destination import DELIVERED, Message, Outcome, Pace
from personas_dagster.destinations.customerio.payload import deletion, operation
from personas_dagster.destinations.customerio.settings import CustomerIoSettings
from personas_dagster.destinations.tool import BatchTool, Call, Person, decoded, fields, items
from personas_dagster.errors import Rejected


class CustomerIo(BatchTool):
    """One workspace."""

    def __init__(self, settings: CustomerIoSettings) -> None:
        super().__init__(settings)
        self._object_type, self._event_ids = settings.object_type, settings.event_ids

    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        operations = [
            operation(message, object_type=self._object_type, event_ids=self._event_ids)
            for message in batch
        ]
        return [Call("POST", "/api/v2/batch", {"batch": operations}, rows=tuple(range(len(batch))))]

    def deletions(self, people: Sequence[Person]) -> Sequence[Call]:
        operations = [deletion(person) for person in people]
        return [Call("POST", "/api/v2/batch", {"batch": operations}, tuple(range(len(people))))]

    async def perform_deletion(
        self, call: Call, people: Sequence[Person], pace: Pace
    ) -> Sequence[Outcome]:
        return self.outcomes(call, await self.ask(call, pace))

    def outcomes(self, call: Call, response: httpx.Response) -> Sequence[Outcome]:
        """207 names the operations that were refused by their place in the batch."""
        outcomes = [DELIVERED] * len(call.rows)
        for error in items(fields(decoded(response)).get("errors")):
            index = error.get("batch_index")
            if isinstance(index, int) and 0 <= index < len(outcomes):
                parts = (error.get("reason"), error.get("field"), error.get("message"))
                text = ": ".join(str(part) for part in parts if part)
                outcomes[index] = Outcome(Rejected(self.said(text)))
        return outcomes
