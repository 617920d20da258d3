"""Requests to Mailchimp, and what its answers mean."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from personas_dagster.activation.destination import Message, Pace
from personas_dagster.destinations.mailchimp import payload
from personas_dagster.destinations.mailchimp.settings import MailchimpSettings
from personas_dagster.destinations.tool import BatchTool, Call, Person, decoded, fields, items
from personas_dagster.errors import DeliveryError, NeedsSetup, Throttled, Unavailable

_MOST_FIELDS = "1000"
_MISSING = frozenset({404})


class Mailchimp(BatchTool):
    """One audience at Mailchimp. It takes one member at a time."""

    gone = frozenset({404})

    def __init__(self, settings: MailchimpSettings) -> None:
        super().__init__(settings)
        self._mailchimp = settings
        self._tags: set[str] | None = None  # merge tags that are there

    def refusal(self, response: httpx.Response) -> DeliveryError | None:
        """At its limits Mailchimp answers 403, too, and then says nothing else."""
        if response.status_code == 403 and not fields(decoded(response)):
            return Throttled("HTTP 403 without a reason: too many requests")
        return super().refusal(response)

    async def prepare(self, batch: Sequence[Message], pace: Pace, *, makes: bool = True) -> None:
        """Values of merge fields that are missing would be lost in silence."""
        settings = self._mailchimp
        if not makes:
            await self._find_audience(pace)
        values = {k: v for m in batch for k, v in payload.merge_values(m, settings).items()}
        if not values:
            return
        path = f"{payload.list_path(settings.list_id)}/merge-fields"
        if self._tags is None:
            asked = Call("GET", path, params={"count": _MOST_FIELDS, "fields": "merge_fields.tag"})
            answer = fields(decoded(await self.ask(asked, pace)))
            if not isinstance(answer.get("merge_fields"), list):
                raise Unavailable("Mailchimp did not say which merge fields there are")
            self._tags = {str(one.get("tag")) for one in items(answer["merge_fields"])}
        for key, value in sorted(values.items()):
            made = payload.new_field(key, value, settings)
            if made["tag"] in self._tags:
                continue
            if not settings.create_merge_fields:
                raise NeedsSetup(
                    f"Mailchimp has no merge field {made['tag']} for {key}; make it there, or set "
                    "create_merge_fields to true"
                )
            if not makes:
                continue
            await self.ask(Call("POST", path, made), pace)
            self._tags.add(made["tag"])

    async def _find_audience(self, pace: Pace) -> None:
        number = self._mailchimp.list_id
        asked = Call("GET", payload.list_path(number), params={"fields": "id"})
        if (await self.ask(asked, pace, also=_MISSING)).status_code == 404:
            raise NeedsSetup(
                f"Mailchimp has no audience {number}; make one, and set list_id to its id"
            )

    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        return [
            Call(call.method, call.path, call.body, rows=(row,), params=call.params)
            for row, message in enumerate(batch)
            for call in self._of(message)
        ]

    def deletions(self, people: Sequence[Person]) -> Sequence[Call]:
        return [payload.deletion(person, row, self._mailchimp) for row, person in enumerate(people)]

    def _of(self, message: Message) -> list[Call]:
        """The member, and the tag: a member who is refused gets none."""
        found = [payload.member(message, self._mailchimp)]
        if payload.is_tag(message, self._mailchimp):
            found.append(payload.tags(message, self._mailchimp))
        return found
