"""Requests to HubSpot's lists, and what its answers mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import quote

import httpx

from personas_dagster.activation.destination import DELIVERED, Message, Outcome, Pace
from personas_dagster.destinations.hubspot.client import named
from personas_dagster.destinations.hubspot.payload import CONTACTS, address
from personas_dagster.destinations.hubspot_lists import payload
from personas_dagster.destinations.lists import ListTool
from personas_dagster.destinations.tool import Call, decoded, fields, items
from personas_dagster.errors import NeedsSetup, Unavailable

_MISSING = frozenset({404})


class HubSpotLists(ListTool):
    """One account's lists. Members are records, so contacts are looked up, or made, first."""

    async def find_list(self, name: str, pace: Pace) -> str | None:
        path = f"{payload.LISTS}/object-type-id/{payload.CONTACT_TYPE}/name/{quote(name, safe='')}"
        response = await self.ask(Call("GET", path), pace, also=_MISSING)
        if response.status_code == 404:
            return None
        return _number(_manual(response, name).get("listId"))

    async def has_list(self, number: str, pace: Pace) -> bool:
        call = Call("GET", f"{payload.LISTS}/{quote(number, safe='')}")
        response = await self.ask(call, pace, also=_MISSING)
        return response.status_code != 404 and bool(_manual(response, number))

    async def make_list(self, name: str, pace: Pace) -> str:
        body = {
            "name": name,
            "objectTypeId": payload.CONTACT_TYPE,
            "processingType": "MANUAL",
        }
        made = fields(decoded(await self.ask(Call("POST", payload.LISTS, body), pace)))
        return _number(fields(made.get("list")).get("listId"))

    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        return payload.calls(batch, self.list_id)

    def before(self, call: Call, batch: Sequence[Message]) -> Sequence[Call]:
        people = [batch[row] for row in call.rows]
        is_add = bool(call.body["recordIdsToAdd"])
        return [payload.ensure(people) if is_add else payload.find(people)]

    async def perform(self, call: Call, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]:
        """Look up or make, then change. Who is not there when leaving has left."""
        people = [batch[row] for row in call.rows]
        is_add = bool(call.body["recordIdsToAdd"])
        (asked,) = self.before(call, batch)
        answer = decoded(await self.ask(asked, pace, also=frozenset() if is_add else _MISSING))
        ids = {
            str(fields(one.get("properties")).get("email")).lower(): str(one.get("id"))
            for one in items(fields(answer).get("results"))
        }
        absent = named(answer, self)
        errors = absent if is_add else {}
        for email in (address(one) for one in people):
            if email not in ids and email not in absent and asked_all(answer):
                number = await self._one(email, pace)
                ids.update({email: number} if number else {})
        found = [ids[address(one)] for one in people if address(one) in ids]
        if found:
            field = "recordIdsToAdd" if is_add else "recordIdsToRemove"
            change = replace(call, body={**call.body, field: found})
            if (await self.ask(change, pace, also=_MISSING)).status_code == 404:
                raise self.lacks(self.list_id(batch[call.rows[0]]))
        lost = Outcome(Unavailable("HubSpot did not say the id of this contact"))
        return [
            Outcome(errors[address(one)])
            if address(one) in errors
            else (DELIVERED if address(one) in ids or not is_add else lost)
            for one in people
        ]

    async def _one(self, email: str, pace: Pace) -> str | None:
        """Somebody known by another address first comes back under that one: ask by itself."""
        path = f"{CONTACTS}/{quote(email, safe='')}"
        call = Call("GET", path, params={"idProperty": "email"})
        response = await self.ask(call, pace, also=_MISSING)
        found = fields(decoded(response)).get("id")
        return None if response.status_code == 404 or not found else str(found)


def asked_all(answer: object) -> bool:
    """Whether an answer is one of a batch at all, so that who is not in it is not hidden."""
    return isinstance(fields(answer).get("results"), list)


def _manual(response: httpx.Response, name: str) -> dict[str, Any]:
    """The list that an answer describes; members of an active one are HubSpot's to choose."""
    found = fields(fields(decoded(response)).get("list"))
    if found.get("processingType") == "DYNAMIC":
        raise NeedsSetup(f"list `{name}` decides on its members itself; make a static one")
    return found


def _number(found: object) -> str:
    if not isinstance(found, str | int):
        raise Unavailable("HubSpot did not say the id of the list")
    return str(found)
