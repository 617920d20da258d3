"""A tool whose requests carry a token that is fetched, and fetched anew when it has run out.

What belongs here: keeping one token for all requests, and hiding it. What does not: how a tool
gives one, which its client says.
"""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Self

import httpx
from pydantic import SecretStr

from personas_dagster.activation.destination import Pace, Request
from personas_dagster.destinations.http import MASK, Masks
from personas_dagster.destinations.settings import ToolSettings
from personas_dagster.destinations.tool import BatchTool, Call, decoded, fields, revealed
from personas_dagster.errors import Rejected, Unauthorized, Unavailable

_EARLY = 60.0  # seconds before its end that a token is not used any more


class Stale(Unauthorized):
    """The token is not, or no longer, valid; another can be had. A tool's `refusal` returns it."""


class SignedTool(BatchTool):
    """Requests with a bearer token. A tool says how to ask for one: `token_call`."""

    def __init__(self, settings: ToolSettings) -> None:
        super().__init__(settings)
        self._token: SecretStr | None = None
        self._until = 0.0
        self._signing_in = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._signing_in = asyncio.Lock()  # a lock belongs to one event loop
        return await super().__aenter__()

    @abstractmethod
    def token_call(self) -> Call:
        """The request that an `access_token` is the answer to, in an object with `expires_in`."""

    async def ask(
        self, call: Call, pace: Pace, *, also: frozenset[int] = frozenset()
    ) -> httpx.Response:
        token = await self._sign_in(None, pace)
        try:
            return await super().ask(_signed(call, token), pace, also=also)
        except Stale:
            token = await self._sign_in(token, pace)
        try:
            return await super().ask(_signed(call, token), pace, also=also)
        except Stale as error:
            raise Unauthorized(str(error)) from None

    async def _sign_in(self, stale: SecretStr | None, pace: Pace) -> SecretStr:
        """A token; the one that another request has fetched meanwhile will do."""
        async with self._signing_in:
            known = self._token
            if known is not None and known is not stale and time.monotonic() < self._until:
                return known
            try:
                answer = fields(decoded(await super().ask(self.token_call(), pace)))
            except (Rejected, Stale) as error:  # no row is at fault
                raise Unauthorized(f"no token was given: {error}") from None
            token, seconds = answer.get("access_token"), answer.get("expires_in")
            if not isinstance(token, str) or not token:
                raise Unavailable("no token was in the answer to signing in")
            self._token = SecretStr(token)
            self._until = time.monotonic() + _lasts(seconds) - _EARLY
            self._masks = Masks([*self._settings.secrets, self._token])
            return self._token

    def shown(self, call: Call) -> Request:
        request = super().shown(call)
        headers: Mapping[str, str] = {**request.headers, "Authorization": MASK}
        return replace(request, headers=headers)


def _signed(call: Call, token: SecretStr) -> Call:
    return replace(call, headers={**call.headers, "Authorization": f"Bearer {revealed(token)}"})


def _lasts(seconds: Any) -> float:
    """An hour, where the tool does not say."""
    return float(seconds) if isinstance(seconds, int | float) and seconds > 0 else 3600.0
