"""Requests to Iterable's lists, and what its answers mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from personas_dagster.activation.destination import Message, Outcome, Pace
from personas_dagster.destinations.iterable.client import outcomes
from personas_dagster.destinations.iterable_lists import payload
from personas_dagster.destinations.lists import ListTool
from personas_dagster.destinations.tool import Call, decoded, fields, items
from personas_dagster.errors import Unavailable


class IterableLists(ListTool):
    """One project's lists."""

    async def find_list(self, name: str, pace: Pace) -> str | None:
        found = [one["id"] for one in await self._all(pace) if one.get("name") == name]
        return str(min(found)) if found else None

    async def has_list(self, number: str, pace: Pace) -> bool:
        return number in {str(one.get("id")) for one in await self._all(pace)}

    async def _all(self, pace: Pace) -> list[dict[str, Any]]:
        answer = fields(decoded(await self.ask(Call("GET", "/api/lists"), pace)))
        if not isinstance(answer.get("lists"), list):
            raise Unavailable("Iterable did not say which lists there are")
        return items(answer["lists"])

    async def make_list(self, name: str, pace: Pace) -> str:
        answer = await self.ask(Call("POST", "/api/lists", {"name": name}), pace)
        made = fields(decoded(answer)).get("listId")
        if not isinstance(made, int):
            raise Unavailable("Iterable did not say which list it made")
        return str(made)

    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        return payload.calls(batch, self.list_id)

    def outcomes(self, call: Call, response: httpx.Response) -> Sequence[Outcome]:
        leaving = call.path == payload.UNSUBSCRIBE
        return outcomes(call.body["subscribers"], decoded(response), missing_is_success=leaving)
