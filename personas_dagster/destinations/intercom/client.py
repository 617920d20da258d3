"""Requests to Intercom, and what its answers mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from personas_dagster.activation.destination import DELIVERED, Message, Outcome, Pace
from personas_dagster.destinations.intercom import payload
from personas_dagster.destinations.intercom.settings import IntercomSettings
from personas_dagster.destinations.tool import BatchTool, Call, Person, decoded, fields, items
from personas_dagster.errors import NeedsSetup, Rejected, Unavailable

_UNKNOWN = frozenset({404})


class Intercom(BatchTool):
    """One workspace. It takes one contact at a time, and must be asked whether it is there."""

    reset_headers = ("x-ratelimit-reset",)

    gone = frozenset({404})

    def __init__(self, settings: IntercomSettings) -> None:
        super().__init__(settings)
        self._create = settings.create_attributes
        self._known: dict[str, set[str]] = {}  # model -> names of its custom attributes

    async def prepare(self, batch: Sequence[Message], pace: Pace, *, makes: bool = True) -> None:
        """A custom attribute that is missing refuses the contact: ask once which there are."""
        for message in batch:
            if message.form == "track":
                continue
            model = "company" if message.form == "group" else "contact"
            if model not in self._known:
                asked = Call("GET", payload.ATTRIBUTES, params={"model": model})
                answer = fields(decoded(await self.ask(asked, pace)))
                if not isinstance(answer.get("data"), list):
                    raise Unavailable("Intercom did not say which attributes there are")
                self._known[model] = {str(one.get("name")) for one in items(answer["data"])}
            values = payload.custom(message, model)
            for key in sorted(values.keys() - self._known[model]):
                if not self._create:
                    raise NeedsSetup(
                        f"Intercom's {model} has no custom attribute {key}; make it there, or set "
                        "create_attributes to true"
                    )
                if not makes:
                    continue
                made = payload.new_attribute(key, values[key], model)
                await self.ask(Call("POST", payload.ATTRIBUTES, made), pace)
                self._known[model].add(key)

    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        """As for contacts that are not there yet."""
        found = []
        for row, message in enumerate(batch):
            if message.form == "track":
                call = payload.event(message)
            elif message.form == "group":
                call = payload.company(message)
            else:
                call = Call("POST", payload.CONTACTS, payload.contact(message))
            found.append(Call(call.method, call.path, call.body, rows=(row,)))
        return found

    def before(self, call: Call, batch: Sequence[Message]) -> Sequence[Call]:
        message = batch[call.rows[0]]
        return [payload.search(message.recipient)] if message.form == "identify" else []

    async def perform(self, call: Call, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]:
        message = batch[call.rows[0]]
        if message.form == "identify":
            number = await self._find(payload.search(message.recipient), pace)
            if number:
                call = Call("PUT", f"{payload.CONTACTS}/{number}", call.body, rows=call.rows)
        response = await self.ask(
            call, pace, also=_UNKNOWN if message.form == "track" else frozenset()
        )
        if response.status_code == 404:
            raise Rejected("Intercom knows nobody by this identifier; send `identify` too")
        answer = fields(decoded(response))
        if message.form == "group" and "userId" in message.body and answer.get("id"):
            who = payload.search_by("external_id", message.body["userId"])
            number = await self._find(who, pace)
            if number:
                path = f"{payload.CONTACTS}/{number}/companies"
                await self.ask(Call("POST", path, {"id": str(answer["id"])}), pace)
        return [DELIVERED]

    def deletions(self, people: Sequence[Person]) -> Sequence[Call]:
        return [replace(payload.search(one), rows=(row,)) for row, one in enumerate(people)]

    async def perform_deletion(
        self, call: Call, people: Sequence[Person], pace: Pace
    ) -> Sequence[Outcome]:
        """Each contact that the search finds."""
        for number in await self._search(call, pace):
            gone = Call("DELETE", f"{payload.CONTACTS}/{number}", rows=call.rows)
            await super().perform_deletion(gone, people, pace)
        return [DELIVERED]

    async def _search(self, search: Call, pace: Pace) -> list[str]:
        answer = fields(decoded(await self.ask(search, pace)))
        if not isinstance(answer.get("data"), list):
            raise Unavailable("Intercom did not say whether the contact is there")
        return [str(one["id"]) for one in items(answer["data"]) if one.get("id")]

    async def _find(self, search: Call, pace: Pace) -> str | None:
        found = await self._search(search, pace)
        if len(found) > 1:
            raise Rejected(f"{len(found)} contacts have this identifier; merge them in Intercom")
        return found[0] if found else None
