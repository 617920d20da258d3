"""Requests to SendGrid, and what its answers mean."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from personas_dagster.activation.destination import DELIVERED, Message, Outcome, Pace
from personas_dagster.destinations.reading import attributes_of
from personas_dagster.destinations.sendgrid import payload
from personas_dagster.destinations.sendgrid.settings import SendGridSettings
from personas_dagster.destinations.tool import (
    BatchTool,
    Call,
    Person,
    RowsRefused,
    Spacing,
    decoded,
    fields,
    items,
)
from personas_dagster.errors import NeedsSetup, Rejected, Unavailable


class SendGrid(BatchTool):
    """One account's contacts. An upsert is taken at once, and done later (202)."""

    reset_headers = ("x-ratelimit-reset",)

    def __init__(self, settings: SendGridSettings) -> None:
        super().__init__(settings)
        self._create = settings.create_fields
        self._spacing = Spacing(settings.upserts_per_second)
        self._fields: dict[str, payload.Field] | None = None

    async def prepare(self, batch: Sequence[Message], pace: Pace, *, makes: bool = True) -> None:
        """Fields go by id: ask for them once, and make those that are missing."""
        if self._fields is None:
            answer = fields(decoded(await self.ask(Call("GET", payload.FIELDS), pace)))
            found = items(answer.get("custom_fields"))
            self._fields = {
                str(one.get("name")): payload.Field(str(one.get("id")), str(one.get("field_type")))
                for one in found
            }
        wanted = {k: v for message in batch for k, v in attributes_of(message).items()}
        missing = sorted(wanted.keys() - self._fields.keys() - payload.RESERVED)
        if missing and not self._create:
            raise NeedsSetup(
                f"SendGrid has no custom field {', '.join(missing)}; make it there, or set "
                "create_fields to true"
            )
        for key in missing if makes else ():
            made = payload.new_field(key, wanted[key])
            answer = fields(decoded(await self.ask(Call("POST", payload.FIELDS, made), pace)))
            if not answer.get("id"):
                raise Unavailable(f"SendGrid did not say the id of the new field {key}")
            self._fields[key] = payload.Field(str(answer["id"]), made["field_type"])

    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        return [payload.upsert(batch, range(len(batch)), self._fields or {})]

    def deletions(self, people: Sequence[Person]) -> Sequence[Call]:
        return [payload.search(people)]

    async def perform_deletion(
        self, call: Call, people: Sequence[Person], pace: Pace
    ) -> Sequence[Outcome]:
        """Contacts go by id; a search that finds nobody is a 404 with errors."""
        response = await self.ask(call, pace, also=NOBODY)
        answer = fields(decoded(response))
        if response.status_code not in NOBODY:
            if not isinstance(answer.get("result"), dict):
                raise Unavailable("SendGrid did not say which contacts are there")
            if ids := payload.ids(answer):
                await self.ask(payload.deletion(ids), pace)
        elif not items(answer.get("errors")):
            raise self.refusal(response) or Unavailable("HTTP 404")
        return [DELIVERED] * len(call.rows)

    async def perform(self, call: Call, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]:
        await self._spacing()
        return self.outcomes(call, await self.ask(call, pace, also=BAD))

    def outcomes(self, call: Call, response: httpx.Response) -> Sequence[Outcome]:
        self.read_upsert(call, response)
        return super().outcomes(call, response)

    def read_upsert(self, call: Call, response: httpx.Response) -> None:
        """One bad address keeps all of a request out: say which, so that the others go again."""
        if response.status_code != 400:
            return
        reasons = payload.reasons(call.body["contacts"], decoded(response))
        if reasons:
            raise RowsRefused({at: self.said(text) for at, text in reasons.items()})
        raise self.refusal(response) or Rejected("HTTP 400")


BAD = frozenset({400})
NOBODY = frozenset({404})
