"""Requests to Zendesk, and what its answers mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from personas_dagster.activation.destination import DELIVERED, Message, Outcome, Pace
from personas_dagster.destinations.tool import BatchTool, Call, Person, decoded, fields, items
from personas_dagster.destinations.zendesk import payload
from personas_dagster.destinations.zendesk.settings import ZendeskSettings
from personas_dagster.errors import NeedsSetup, Rejected, Unavailable

_INVALID = frozenset({422})


class Zendesk(BatchTool):
    """One account. It takes one user at a time."""

    gone = frozenset({404})

    def __init__(self, settings: ZendeskSettings) -> None:
        super().__init__(settings)
        self._create, self._name_people = settings.create_fields, settings.name_people
        self._known: dict[str, set[str]] = {}  # user or organization -> keys of its fields
        self._half: dict[str, set[int]] = {}  # search -> users who are deleted, but not for good

    async def prepare(self, batch: Sequence[Message], pace: Pace, *, makes: bool = True) -> None:
        """Values of fields that are missing would be lost in silence."""
        for message in batch:
            kind, values = payload.kind_of(message), payload.custom(message)
            if kind not in self._known:
                self._known[kind] = await self._fields(kind, pace)
            for key in sorted(values.keys() - self._known[kind]):
                if not self._create:
                    raise NeedsSetup(
                        f"Zendesk's {kind} has no field {key}; make it there, or set "
                        "create_fields to true"
                    )
                if not makes:
                    continue
                await self.ask(payload.new_field(kind, key, values[key]), pace)
                self._known[kind].add(key)

    async def _fields(self, kind: str, pace: Pace) -> set[str]:
        found: set[str] = set()
        params = {"page[size]": "100"}
        while True:
            asked = Call("GET", payload.FIELDS[kind], params=params)
            answer = fields(decoded(await self.ask(asked, pace)))
            if not isinstance(answer.get(f"{kind}_fields"), list):
                raise Unavailable(f"Zendesk did not say which fields a {kind} has")
            found |= {str(one.get("key")) for one in items(answer[f"{kind}_fields"])}
            meta = fields(answer.get("meta"))
            after = meta.get("after_cursor")
            if not meta.get("has_more") or not after or params.get("page[after]") == after:
                return found
            params = {"page[size]": "100", "page[after]": str(after)}

    def deletions(self, people: Sequence[Person]) -> Sequence[Call]:
        return [payload.search(person, row) for row, person in enumerate(people)]

    async def perform_deletion(
        self, call: Call, people: Sequence[Person], pace: Pace
    ) -> Sequence[Outcome]:
        """A user is deleted, and then for good: between the two, no search finds the user."""
        answer = fields(decoded(await self.ask(call, pace)))
        if not isinstance(answer.get("users"), list):
            raise Unavailable("Zendesk did not say which users are there")
        half = self._half.setdefault(call.target, set())
        found = payload.found(items(answer["users"]), people[call.rows[0]])
        for number in sorted(found | half):
            half.add(number)
            for path in (payload.USER, payload.DELETED_USER):
                gone = Call("DELETE", f"{path}/{number}", rows=call.rows)
                await super().perform_deletion(gone, people, pace)
            half.discard(number)
        return [DELIVERED]

    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        return [payload.call(message, row) for row, message in enumerate(batch)]

    async def perform(self, call: Call, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]:
        """Who is new needs a name; who is not keeps the one there is, so it is not always sent."""
        response = await self.ask(call, pace, also=_INVALID)
        if response.status_code in _INVALID:
            error = self.refusal(response) or Rejected("HTTP 422")
            user = fields(call.body.get("user"))
            details = fields(fields(decoded(response)).get("details"))
            if not self._name_people or "name" not in details or user.get("name") or not user:
                raise error
            name = user.get("email") or user.get("external_id")
            await self.ask(replace(call, body={"user": {**user, "name": name}}), pace)
        return [DELIVERED]
