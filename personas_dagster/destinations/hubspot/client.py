"""Requests to HubSpot, and what its answers mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import httpx

from personas_dagster.activation.destination import DELIVERED, Message, Outcome, Pace
from personas_dagster.destinations.hubspot import payload
from personas_dagster.destinations.hubspot.settings import HubSpotSettings
from personas_dagster.destinations.reading import attributes_of
from personas_dagster.destinations.tool import BatchTool, Call, Person, decoded, fields, items
from personas_dagster.errors import DeliveryError, NeedsSetup, Rejected, Unavailable

_LATER = frozenset({"RATE_LIMITS", "INTERNAL_ERROR", "CONFLICT"})
_HERE_ALREADY = frozenset({409})


class HubSpot(BatchTool):
    """One account."""

    gone = frozenset({404})

    def __init__(self, settings: HubSpotSettings) -> None:
        super().__init__(settings)
        self._hubspot = settings
        self._known: dict[str, set[str]] = {}  # kind of object -> its properties

    async def prepare(self, batch: Sequence[Message], pace: Pace, *, makes: bool = True) -> None:
        """A property that is missing would refuse the whole batch: ask once which there are."""
        for kind, form in (("contacts", "identify"), ("companies", "group")):
            values = {
                key: value
                for message in batch
                if message.form == form
                for key, value in attributes_of(message).items()
            }
            if values:
                await self._have(kind, values, pace, makes=makes)

    async def _have(self, kind: str, values: dict[str, Any], pace: Pace, *, makes: bool) -> None:
        path = f"{payload.PROPERTIES}/{kind}"
        if kind not in self._known:
            answer = fields(decoded(await self.ask(Call("GET", path), pace)))
            if not isinstance(answer.get("results"), list):
                raise Unavailable(f"HubSpot did not say which properties {kind} have")
            self._known[kind] = {str(one.get("name")) for one in items(answer["results"])}
        identity = self._hubspot.company_property
        if kind == "companies" and identity not in self._known[kind]:
            raise NeedsSetup(
                f"HubSpot's companies have no property {identity}; make it there, with unique "
                "values, or name another in company_property"
            )
        missing = {k: v for k, v in values.items() if payload.name(k) not in self._known[kind]}
        if missing and not self._hubspot.create_properties:
            names = ", ".join(sorted(map(payload.name, missing)))
            raise NeedsSetup(
                f"HubSpot's {kind} have no property {names}; make it there, or set "
                "create_properties to true"
            )
        group = self._hubspot.property_group if kind == "contacts" else "companyinformation"
        for key, value in missing.items() if makes else ():
            made = payload.new_property(key, value, group)
            await self.ask(Call("POST", path, made), pace, also=_HERE_ALREADY)
            self._known[kind].add(made["name"])

    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        return payload.calls(batch, self._hubspot.company_property)

    def deletions(self, people: Sequence[Person]) -> Sequence[Call]:
        return [payload.deletion(person, row) for row, person in enumerate(people)]

    def outcomes(self, call: Call, response: httpx.Response) -> Sequence[Outcome]:
        errors = named(decoded(response), self)
        found = [errors.get(one["id"].lower()) for one in call.body["inputs"]]
        return [Outcome(error) if error else DELIVERED for error in found]


def named(answer: Any, tool: BatchTool) -> dict[str, DeliveryError]:
    """What 207 says about which ids; ids in lower case."""
    found: dict[str, DeliveryError] = {}
    said = fields(answer)
    for error in items(said.get("errors")):
        text = f"{error.get('category')}: {tool.said(error.get('message'))}"
        later = error.get("category") in _LATER
        for values in fields(error.get("context")).values():
            for value in values if isinstance(values, list) else ():
                found[str(value).lower()] = Unavailable(text) if later else Rejected(text)
    count = said.get("numErrors")
    if isinstance(count, int) and count > 0 and not found:
        raise Rejected(f"{count} objects were refused, and not named")
    return found
