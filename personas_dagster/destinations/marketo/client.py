"""Requests about Marketo's leads and companies, and what the answers mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import httpx

from personas_dagster.activation.destination import DELIVERED, Message, Outcome, Pace
from personas_dagster.destinations.marketo import payload
from personas_dagster.destinations.marketo.api import MarketoTool, Missing
from personas_dagster.destinations.marketo.settings import MarketoSettings
from personas_dagster.destinations.tool import Call, Person, decoded, fields, items
from personas_dagster.errors import NeedsSetup, Rejected, Unavailable

_DESCRIBE_COMPANIES = "/rest/v1/companies/describe.json"
_GONE = frozenset({"1004"})  # no such lead


class Marketo(MarketoTool):
    """One instance's leads."""

    def __init__(self, settings: MarketoSettings) -> None:
        super().__init__(settings)
        self._marketo = settings
        self._known: dict[str, set[str]] = {}  # kind of object -> fields that can be written
        self._type: int | None = None

    async def prepare(self, batch: Sequence[Message], pace: Pace, *, makes: bool = True) -> None:
        """A field that is missing would refuse the whole batch: ask once which there are."""
        for kind, form in (("leads", "identify"), ("companies", "group")):
            wanted = {
                name: value
                for message in batch
                if message.form == form
                for name, value in payload.values(message, self._marketo).items()
            }
            if kind == "leads" and wanted:
                wanted.setdefault(self._marketo.lookup_field, "")
            if wanted:
                await self._have(kind, wanted, pace, makes=makes)
        if self._type is None and any(message.form == "track" for message in batch):
            self._type = await self._activity_type(self._marketo.activity_type or "", pace)

    async def _have(self, kind: str, wanted: Mapping[str, Any], pace: Pace, *, makes: bool) -> None:
        if kind not in self._known:
            ask = self.lead_fields if kind == "leads" else self._company_fields
            self._known[kind] = await ask(pace)
        missing = {name: wanted[name] for name in sorted(wanted.keys() - self._known[kind])}
        if not missing:
            return
        if kind == "companies" or not self._marketo.create_fields:
            names = ", ".join(missing)
            raise NeedsSetup(
                f"Marketo's {kind} have no field {names} that can be written; make it there, or "
                + ("map it in `fields`" if kind == "companies" else "set create_fields to true")
            )
        if not makes:
            return
        made = {"input": [payload.new_field(name, value) for name, value in missing.items()]}
        call = Call("POST", payload.FIELDS, made)
        for _, outcome in self.read(await self.ask(call, pace), len(missing)):
            if outcome.error is not None:
                raise NeedsSetup(f"Marketo made not all of {', '.join(missing)}: {outcome.error}")
        self._known[kind] |= missing.keys()

    async def _company_fields(self, pace: Pace) -> set[str]:
        answer = fields(decoded(await self.ask(Call("GET", _DESCRIBE_COMPANIES), pace)))
        if not isinstance(answer.get("result"), list):
            raise Unavailable("Marketo did not say which fields companies have")
        found = [field for one in items(answer["result"]) for field in items(one.get("fields"))]
        return {str(field.get("name")) for field in found if field.get("updateable")}

    async def _activity_type(self, name: str, pace: Pace) -> int:
        path = f"{payload.TYPES}/{name}/describe.json"
        try:
            answer = fields(decoded(await self.ask(Call("GET", path), pace)))
        except Missing:
            answer = {}
        found = next(iter(items(answer.get("result"))), {})
        number = found.get("id")
        have = {one.get("apiName") for one in items(found.get("attributes"))}
        missing = [one for one in payload.ATTRIBUTES if one not in have]
        if not isinstance(number, int) or missing:
            raise NeedsSetup(
                f"Marketo has no custom activity type `{name}` with the attributes "
                f"{' and '.join(payload.ATTRIBUTES)}; make it there, and approve it"
            )
        return number

    def deletions(self, people: Sequence[Person]) -> Sequence[Call]:
        return [payload.find_lead(one, row, self._marketo) for row, one in enumerate(people)]

    async def perform_deletion(
        self, call: Call, people: Sequence[Person], pace: Pace
    ) -> Sequence[Outcome]:
        """All leads of that name; a first page holds up to 300, and a request deletes as many."""
        if "," in (call.form or {})["filterValues"]:
            raise Rejected("Marketo looks up no name that has a comma")
        answer = fields(decoded(await self.ask(call, pace)))
        if answer.get("success") is False:  # nothing found, which is no error
            return [DELIVERED]
        if not isinstance(answer.get("result"), list):
            raise Unavailable("Marketo did not say which leads there are")
        ids = [one["id"] for one in items(answer["result"]) if one.get("id")]
        if not ids:
            return [DELIVERED]
        response = await self.ask(payload.deletion(ids), pace)
        found = [outcome for _, outcome in self.read(response, len(ids), fine=_GONE)]
        if answer.get("nextPageToken"):
            raise Unavailable("more leads of this name are left")
        return [next((one for one in found if one.error), DELIVERED)]

    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        return payload.calls(batch, self._marketo)

    def before(self, call: Call, batch: Sequence[Message]) -> Sequence[Call]:
        if call.path != payload.ACTIVITIES:
            return ()
        return [payload.ensure([batch[row] for row in call.rows], self._marketo)]

    async def perform(self, call: Call, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]:
        """An activity needs the lead's id; leads that are not there are made."""
        if call.path != payload.ACTIVITIES:
            return self.outcomes(call, await self.ask(call, pace))
        people = [batch[row] for row in call.rows]
        leads = await self.leads(people, pace)
        found = [leads[payload.person(one, self._marketo)] for one in people]
        outcomes = [outcome for _, outcome in found]
        known = [at for at, outcome in enumerate(outcomes) if outcome.error is None]
        if known:
            rows = [
                {**call.body["input"][at], "leadId": found[at][0], "activityTypeId": self._type}
                for at in known
            ]
            less = replace(call, body={"input": rows})
            taken = self.outcomes(less, await self.ask(less, pace))
            for at, outcome in zip(known, taken, strict=True):
                outcomes[at] = outcome
        return outcomes

    def outcomes(self, call: Call, response: httpx.Response) -> Sequence[Outcome]:
        return [outcome for _, outcome in self.read(response, len(call.body["input"]))]
