"""What every request to a Marketo instance shares: its token, and the errors in its answers.

What belongs here: signing in, and what a code means. What does not: leads (`client.py`) and lists
(`marketo_static_lists`).
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any, Self
from urllib.parse import quote_plus
from zoneinfo import ZoneInfo

import httpx
from pydantic import SecretStr

from personas_dagster.activation.destination import DELIVERED, Message, Outcome, Pace, Request
from personas_dagster.destinations.http import MASK, Masks
from personas_dagster.destinations.marketo import payload
from personas_dagster.destinations.marketo.settings import MarketoAccount
from personas_dagster.destinations.tool import BatchTool, Call, decoded, fields, items, revealed
from personas_dagster.errors import (
    DeliveryError,
    NeedsSetup,
    Rejected,
    Throttled,
    Unauthorized,
    Unavailable,
)

TOKEN = "/identity/oauth/token"
DESCRIBE = "/rest/v1/leads/describe.json"

_RATE, _QUOTA, _NO_DATA, _MISSING = "606", "607", "702", "1013"
_STALE = frozenset({"601", "602"})
_DENIED = frozenset({"600", "603"})
_BUSY = frozenset({"615", "1016", "1029"})  # too many requests, imports or jobs at once
_LATER = frozenset({"500", "502", "604", "608", "611", "614", "713", "719", "1019"})
# what a person must make or allow: a field, an object, a folder, a feature, a partition
_SETUP = frozenset(
    {"610", "616", "703", "710", "711"} | {"1006", "1009", "1011", "1013", "1018", "1026"}
)
_TAKEN = frozenset({"created", "updated", "added", "removed", "deleted", "memberof", "notmemberof"})
_MIDNIGHT_OF = ZoneInfo("America/Chicago")  # where the daily quota begins anew
_AN_HOUR = 3600.0


class Stale(Unauthorized):
    """The token is not, or no longer, valid; another can be had."""


class Missing(NeedsSetup):
    """There is no object of an id or name that somebody gave."""


class MarketoTool(BatchTool):
    """One instance. Errors come inside answers of HTTP 200, tokens last an hour."""

    def __init__(self, settings: MarketoAccount) -> None:
        super().__init__(settings)
        self._account = settings
        self._token: SecretStr | None = None
        self._signing_in = asyncio.Lock()
        self._masks = self._hidden()

    async def __aenter__(self) -> Self:
        self._signing_in = asyncio.Lock()  # a lock belongs to one event loop
        return await super().__aenter__()

    async def ask(
        self, call: Call, pace: Pace, *, also: frozenset[int] = frozenset()
    ) -> httpx.Response:
        token = self._token or await self._sign_in(None, pace)
        try:
            return await super().ask(_signed(call, token), pace, also=also)
        except Stale:
            token = await self._sign_in(token, pace)
        return await super().ask(_signed(call, token), pace, also=also)

    async def _sign_in(self, stale: SecretStr | None, pace: Pace) -> SecretStr:
        """A token; the one that another request has fetched meanwhile will do."""
        async with self._signing_in:
            if self._token is not None and self._token is not stale:
                return self._token
            params = {
                "grant_type": "client_credentials",
                "client_id": revealed(self._account.client_id),
                "client_secret": revealed(self._account.client_secret),
            }
            try:
                answer = await super().ask(Call("GET", TOKEN, params=params), pace)
            except Rejected as error:  # no row is at fault
                raise Unauthorized(str(error)) from None
            found = fields(decoded(answer)).get("access_token")
            if not isinstance(found, str) or not found:
                raise Unavailable("Marketo gave no token; is munchkin_id right?")
            self._token = SecretStr(found)
            self._masks = self._hidden()
            return self._token

    def _hidden(self) -> Masks:
        """Secrets, also as they stand in the address that a token is asked at."""
        secrets = [*self._settings.secrets, *([self._token] if self._token else [])]
        return Masks([*secrets, *(SecretStr(quote_plus(revealed(one))) for one in secrets)])

    def refusal(self, response: httpx.Response) -> DeliveryError | None:
        """Marketo answers 200 whatever happened, and says in the body what did."""
        error = super().refusal(response)
        if error is not None:
            return error
        said = fields(decoded(response))
        if said.get("success") is not False:
            return None
        errors = items(said.get("errors"))
        if not errors:
            return Unavailable("Marketo did not do it, and did not say why")
        first = errors[0]
        if str(first.get("code")) == _NO_DATA:
            return None
        return self.meaning(first, response.headers)

    def meaning(self, error: dict[str, Any], headers: httpx.Headers) -> DeliveryError:
        """What a code means, of a whole answer or of one of its rows."""
        code = str(error.get("code"))
        text = f"{code}: {self.said(error.get('message'))}"
        if code in _STALE:
            return Stale(text)
        if code in _DENIED:
            return Unauthorized(text)
        if code == _RATE:
            return Throttled(text, self._account.throttle_pause)
        if code == _QUOTA:
            return Throttled(text, until_midnight(headers))
        if code in _BUSY:
            return Throttled(text)
        if code in _LATER:
            return Unavailable(text)
        if code in _SETUP:
            kind = Missing if code == _MISSING else NeedsSetup
            return kind(f"{text}; see the set-up steps of this destination's page")
        return Rejected(text)

    def read(
        self, response: httpx.Response, count: int, *, fine: frozenset[str] = frozenset()
    ) -> Sequence[tuple[Any, Outcome]]:
        """Of each row of a request, the record's id (None when it has none) and its outcome.

        `fine` are the codes of rows that were skipped because there was nothing to do.
        """
        rows = fields(decoded(response)).get("result")
        if not isinstance(rows, list) or len(rows) != count:
            raise Unavailable(f"Marketo did not say what became of {count} rows")
        found = [(one.get("id"), self._outcome(one, response, fine)) for one in map(fields, rows)]
        errors = [outcome.error for _, outcome in found]
        if errors and isinstance(errors[0], NeedsSetup) and all(map(_is_setup, errors)):
            raise errors[0]
        return found

    async def leads(
        self, messages: Sequence[Message], pace: Pace
    ) -> Mapping[str, tuple[Any, Outcome]]:
        """The same of whom the messages are about, by name; who is not there is made."""
        call = payload.ensure(messages, self._account)
        names = [row[self._account.lookup_field] for row in call.body["input"]]
        found = self.read(await self.ask(call, pace), len(names))
        unknown = Outcome(Unavailable("Marketo did not say the id of this lead"))
        known = [
            (number, unknown if number is None and outcome.error is None else outcome)
            for number, outcome in found
        ]
        return dict(zip(names, known, strict=True))

    async def lead_fields(self, pace: Pace) -> set[str]:
        """The fields of leads that can be written."""
        answer = fields(decoded(await self.ask(Call("GET", DESCRIBE), pace)))
        if not isinstance(answer.get("result"), list):
            raise Unavailable("Marketo did not say which fields leads have")
        named = [fields(one.get("rest")) for one in items(answer["result"])]
        return {str(field.get("name")) for field in named if field.get("readOnly") is False}

    def _outcome(
        self, row: dict[str, Any], response: httpx.Response, fine: frozenset[str]
    ) -> Outcome:
        status = row.get("status")
        reasons = items(row.get("reasons")) or items(row.get("errors"))
        if reasons and all(str(one.get("code")) in fine for one in reasons):
            return DELIVERED
        if not reasons:
            if status in _TAKEN:
                return DELIVERED
            text = f"Marketo says «{self.said(status or 'nothing')}» of this row"
            return Outcome(Rejected(text) if status == "skipped" else Unavailable(text))
        error = self.meaning(reasons[0], response.headers)
        # the rest was taken: a row alone does not mean that the key is no good
        return Outcome(Unavailable(str(error)) if isinstance(error, Unauthorized) else error)

    def shown(self, call: Call) -> Request:
        request = super().shown(call)
        return replace(request, headers={**request.headers, "Authorization": MASK})


def _is_setup(error: DeliveryError | None) -> bool:
    return isinstance(error, NeedsSetup)


def _signed(call: Call, token: SecretStr) -> Call:
    return replace(call, headers={**call.headers, "Authorization": f"Bearer {revealed(token)}"})


def until_midnight(headers: httpx.Headers) -> float:
    """Seconds until the daily quota begins anew, measured from the answer's own date."""
    try:
        now = parsedate_to_datetime(headers["date"]).astimezone(_MIDNIGHT_OF)
    except (KeyError, ValueError):
        return _AN_HOUR
    tomorrow = (now + dt.timedelta(days=1)).date()
    midnight = dt.datetime.combine(tomorrow, dt.time(), tzinfo=_MIDNIGHT_OF)
    return midnight.timestamp() - now.timestamp()
