"""Requests to Braze, and what its answers mean."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from personas_dagster.activation.destination import DELIVERED, Message, Outcome
from personas_dagster.destinations.braze import payload
from personas_dagster.destinations.braze.settings import BrazeSettings
from personas_dagster.destinations.tool import BatchTool, Call, Person, decoded, fields, items
from personas_dagster.errors import Rejected


class Braze(BatchTool):
    """One workspace."""

    wait_headers = ("x-ratelimit-retry-after",)
    reset_headers = ("x-ratelimit-reset",)

    def __init__(self, settings: BrazeSettings) -> None:
        super().__init__(settings)
        self._app_id, self._existing_only = settings.app_id, settings.update_existing_only

    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        return [payload.call(batch, app_id=self._app_id, existing_only=self._existing_only)]

    def deletions(self, people: Sequence[Person]) -> Sequence[Call]:
        return payload.deletions(people)

    def outcomes(self, call: Call, response: httpx.Response) -> Sequence[Outcome]:
        """`message: success` does not say that all is well: `errors` names objects by index."""
        outcomes = [DELIVERED] * len(call.rows)
        starts = {"attributes": 0, "events": len(call.body.get("attributes", ()))}
        for error in items(fields(decoded(response)).get("errors")):
            start, index = starts.get(str(error.get("input_array"))), error.get("index")
            if start is None or not isinstance(index, int):
                continue
            if 0 <= index < len(call.body.get(error["input_array"], ())):
                outcomes[start + index] = Outcome(Rejected(self.said(error.get("type"))))
        return outcomes
