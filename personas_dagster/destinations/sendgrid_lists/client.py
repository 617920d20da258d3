"""Requests to SendGrid's lists, and what its answers mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import quote

import httpx

from personas_dagster.activation.destination import DELIVERED, Message, Outcome, Pace
from personas_dagster.destinations.lists import ListTool
from personas_dagster.destinations.sendgrid.client import BAD
from personas_dagster.destinations.sendgrid.payload import address, reasons
from personas_dagster.destinations.sendgrid_lists import payload
from personas_dagster.destinations.sendgrid_lists.settings import SendGridListsSettings
from personas_dagster.destinations.tool import (
    Call,
    RowsRefused,
    Spacing,
    decoded,
    fields,
    items,
)
from personas_dagster.errors import Rejected, Unavailable

_NOBODY = frozenset({404})


class SendGridLists(ListTool):
    """One account's lists."""

    reset_headers = ("x-ratelimit-reset",)

    def __init__(self, settings: SendGridListsSettings) -> None:
        super().__init__(settings)
        self._spacing = Spacing(settings.upserts_per_second)

    async def find_list(self, name: str, pace: Pace) -> str | None:
        token = ""
        while True:
            params = {"page_size": "1000", **({"page_token": token} if token else {})}
            answer = fields(
                decoded(await self.ask(Call("GET", payload.LISTS, params=params), pace))
            )
            if not isinstance(answer.get("result"), list):
                raise Unavailable("SendGrid did not say which lists there are")
            for one in items(answer["result"]):
                if one.get("name") == name:
                    return str(one.get("id"))
            url = httpx.URL(str(fields(answer.get("_metadata")).get("next") or ""))
            if url.params.get("page_token", token) == token:
                return None
            token = url.params["page_token"]

    async def has_list(self, number: str, pace: Pace) -> bool:
        call = Call("GET", f"{payload.LISTS}/{quote(number, safe='')}")
        return (await self.ask(call, pace, also=_NOBODY)).status_code != 404

    async def make_list(self, name: str, pace: Pace) -> str:
        answer = await self.ask(Call("POST", payload.LISTS, {"name": name}), pace)
        made = fields(decoded(answer)).get("id")
        if not made:
            raise Unavailable("SendGrid did not say which list it made")
        return str(made)

    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        return payload.calls(batch, self.list_id)

    def before(self, call: Call, batch: Sequence[Message]) -> Sequence[Call]:
        if call.method == "PUT":
            return []
        emails = [address(batch[row]) for row in call.rows]
        return [Call("POST", payload.SEARCH, {"emails": emails})]

    async def perform(self, call: Call, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]:
        if call.method == "PUT":
            await self._spacing()
            response = await self.ask(call, pace, also=BAD)
            if response.status_code == 400:
                named = reasons(call.body["contacts"], decoded(response))
                if named:
                    raise RowsRefused({at: self.said(text) for at, text in named.items()})
                if _names_lists(response):
                    raise self.lacks(self.list_id(batch[call.rows[0]]))
                raise self.refusal(response) or Rejected("HTTP 400")
        else:
            (search,) = self.before(call, batch)
            ids = await self._contacts(search, pace)
            if ids:
                await self.ask(replace(call, params={"contact_ids": ",".join(ids)}), pace)
        return [DELIVERED] * len(call.rows)

    async def _contacts(self, search: Call, pace: Pace) -> list[str]:
        """The ids of the contacts that are there; who is not there is on no list."""
        response = await self.ask(search, pace, also=_NOBODY)
        result = fields(fields(decoded(response)).get("result"))
        if response.status_code != 404 and not result:
            raise Unavailable("SendGrid did not say which contacts there are")
        found = [fields(fields(one).get("contact")).get("id") for one in result.values()]
        return [str(one) for one in found if one]


def _names_lists(response: httpx.Response) -> bool:
    """Whether an answer finds fault with the list rather than with people."""
    errors = items(fields(decoded(response)).get("errors"))
    return any(str(one.get("field")).startswith("list_ids") for one in errors)
