"""Requests to a webhook, and what its answers mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import httpx
import msgspec

from personas_dagster.activation.connection import Connection
from personas_dagster.activation.destination import (
    DELIVERED,
    Abilities,
    Message,
    Outcome,
    Pace,
    Request,
    Result,
)
from personas_dagster.activation.messages import deletion
from personas_dagster.destinations.http import (
    FOREIGN,
    MASK,
    Masks,
    from_exception,
    from_response,
    open_client,
)
from personas_dagster.destinations.webhook.payload import SIGNATURE, body, signature
from personas_dagster.destinations.webhook.settings import WebhookSettings
from personas_dagster.errors import Rejected, Unavailable

_LARGEST_ANSWER = 1_000_000


class _Error(msgspec.Struct):
    """One message that the receiver did not take; `retry` asks for it again."""

    index: int
    message: str = "refused by the receiver"
    retry: bool = False


class _Answer(msgspec.Struct):
    errors: list[_Error] = []


class Webhook:
    """One address."""

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings
        self._masks = Masks(settings.secrets)
        self._client: httpx.AsyncClient | None = None

    def __repr__(self) -> str:
        return f"Webhook({self._settings.shown_url})"

    @property
    def settings(self) -> WebhookSettings:
        return self._settings

    @property
    def abilities(self) -> Abilities:
        return self._settings.abilities

    async def __aenter__(self) -> Self:
        self._client = open_client(
            timeout=self._settings.timeout, connections=self._settings.concurrency
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.aclose()
        self._client = None

    async def send(self, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]:
        return await self._post([message.body for message in batch], pace)

    async def delete(self, people: Sequence[Mapping[str, str]], pace: Pace) -> Sequence[Outcome]:
        return await self._post([deletion(person) for person in people], pace)

    async def _post(self, bodies: Sequence[Mapping[str, Any]], pace: Pace) -> Sequence[Outcome]:
        if self._client is None:
            raise RuntimeError("open the destination first: `async with destination:`")
        content = body(bodies, batched=self._settings.batch_size > 1)
        headers = {name: value.get_secret_value() for name, value in self._settings.headers.items()}
        await pace()
        try:
            response = await self._client.request(
                self._settings.method,
                self._settings.url.get_secret_value(),
                content=content,
                headers={**headers, **self._own_headers(content)},
            )
        except FOREIGN as error:
            # not chained: httpx and h11 quote addresses and headers
            raise from_exception(error, self._masks) from None
        refusal = from_response(response, self._masks)
        if refusal is not None:
            raise refusal
        return self._outcomes(response, len(bodies))

    def preview(self, batch: Sequence[Message]) -> Sequence[Request]:
        bodies = [message.body for message in batch]
        content = body(bodies, batched=self._settings.batch_size > 1)
        own = self._own_headers(content)
        shown = {name: MASK if name == SIGNATURE else value for name, value in own.items()}
        headers = {**dict.fromkeys(self._settings.headers, MASK), **shown}
        return [Request(self._settings.method, self._settings.shown_url, content.decode(), headers)]

    async def result(self, receipt: str, pace: Pace) -> Result:
        return Result()

    async def check(self, connection: Connection, pace: Pace) -> None:
        """An address cannot be asked."""

    def _own_headers(self, content: bytes) -> dict[str, str]:
        own = {"Content-Type": "application/json"}
        if self._settings.secret is not None:
            own[SIGNATURE] = signature(content, self._settings.secret)
        return own

    def _outcomes(self, response: httpx.Response, count: int) -> list[Outcome]:
        """Delivered, but for the messages that the answer names; other answers are not read."""
        outcomes = [DELIVERED] * count
        if b'"errors"' not in response.content[:_LARGEST_ANSWER]:
            return outcomes
        try:
            answer = msgspec.json.decode(response.content, type=_Answer)
        except msgspec.MsgspecError:
            return outcomes
        for one in answer.errors:
            if 0 <= one.index < count:
                text = self._masks(one.message)
                outcomes[one.index] = Outcome(Unavailable(text) if one.retry else Rejected(text))
        return outcomes
