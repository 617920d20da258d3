"""Requests to Google's Data Manager API, and what its answers mean."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote, urlsplit

import httpx

from personas_dagster.activation.destination import DELIVERED, Message, Outcome, Pace, Result
from personas_dagster.destinations.google_ads import payload
from personas_dagster.destinations.google_ads.settings import GoogleAdsSettings
from personas_dagster.destinations.http import retry_after
from personas_dagster.destinations.lists import ListTool
from personas_dagster.destinations.signing import SignedTool, Stale
from personas_dagster.destinations.tool import (
    Call,
    RowsRefused,
    decoded,
    fields,
    items,
    revealed,
)
from personas_dagster.errors import (
    DeliveryError,
    NeedsSetup,
    Rejected,
    Throttled,
    Unavailable,
)

_BAD = frozenset({400})
_MISSING = frozenset({404})
# reasons that only a person can mend
_SETUP = frozenset({
    "TERMS_AND_CONDITIONS_NOT_SIGNED", "INVALID_USER_LIST_ID", "INVALID_USER_LIST_TYPE",
    "INVALID_DESTINATION", "DATA_PARTNER_USER_LIST_MUTATE_NOT_ALLOWED", "SERVICE_DISABLED",
})  # fmt: skip
_DENIED = frozenset({"PERMISSION_DENIED", "NOT_FOUND", "FAILED_PRECONDITION"})
_ROW = re.compile(r"audience_?members\[(\d+)\]", re.IGNORECASE)
_FAILED = frozenset({"FAILED", "FAILURE"})
_PAGE = "1000"


class GoogleAds(SignedTool, ListTool):
    """One account. Requests are taken at once and worked off later."""

    def __init__(self, settings: GoogleAdsSettings) -> None:
        super().__init__(settings)
        self._google = settings

    def token_call(self) -> Call:
        parts = urlsplit(self._google.token_url)
        form = {
            "grant_type": "refresh_token",
            "client_id": self._google.client_id,
            "client_secret": revealed(self._google.client_secret),
            "refresh_token": revealed(self._google.refresh_token),
        }
        return Call("POST", parts.path, form=form, host=f"{parts.scheme}://{parts.netloc}")

    def refusal(self, response: httpx.Response) -> DeliveryError | None:
        """Errors are a status and reasons."""
        error = fields(fields(decoded(response)).get("error"))
        if response.is_success or not error:
            return super().refusal(response)
        status, details = error.get("status"), items(error.get("details"))
        reasons = {str(one.get("reason")) for one in (*details, *_violations(details))} - {"None"}
        why = f" ({', '.join(sorted(reasons))})" if reasons else ""
        said = self.said(f"{status}: {error.get('message')}{why}")
        if status == "RESOURCE_EXHAUSTED":
            asked = _delay(details)
            return Throttled(said, retry_after(response.headers) if asked is None else asked)
        if status == "UNAUTHENTICATED" or response.status_code == 401:
            return Stale(said)
        if status in _DENIED or reasons & _SETUP:
            return NeedsSetup(f"Google does not let the audience be changed: {said}")
        if status in ("INVALID_ARGUMENT", "OUT_OF_RANGE"):
            return Rejected(said)
        return super().refusal(response)

    async def find_list(self, name: str, pace: Pace) -> str | None:
        quoted = name.replace("\\", "\\\\").replace('"', '\\"')
        params = {"filter": f'display_name = "{quoted}"', "pageSize": _PAGE}
        while True:
            call = Call("GET", payload.lists(self._google), params=params)
            answer = decoded(await self.ask(call, pace))
            if not isinstance(answer, dict):
                raise Unavailable("Google did not say which audiences there are")
            for one in items(answer.get("userLists")):
                if one.get("displayName") == name:
                    return self._usable(one, name)
            token = answer.get("nextPageToken")
            if not token or token == params.get("pageToken"):
                return None
            params = {**params, "pageToken": str(token)}

    async def make_list(self, name: str, pace: Pace) -> str:
        made = fields(decoded(await self.ask(payload.new_list(name, self._google), pace)))
        return _number(made)

    async def has_list(self, number: str, pace: Pace) -> bool:
        call = Call("GET", f"{payload.lists(self._google)}/{quote(number, safe='')}")
        response = await self.ask(call, pace, also=_MISSING)
        if response.status_code == 404:
            return False
        return bool(self._usable(fields(decoded(response)), number))

    def _usable(self, found: dict[str, Any], name: str) -> str:
        """The id of a list whose members can be changed by what is sent here."""
        kind = payload.KEY_TYPES[self._google.match_by]
        kinds = fields(found.get("ingestedUserListInfo")).get("uploadKeyTypes", [kind])
        if found.get("readOnly") is True:
            raise NeedsSetup(f"audience `{name}` may only be read; make one of the account's own")
        if found.get("membershipStatus") == "CLOSED":
            raise NeedsSetup(f"audience `{name}` is closed; open it in Google Ads")
        if kind not in kinds:
            raise NeedsSetup(
                f"audience `{name}` takes {', '.join(map(str, kinds))}, not {kind}; use another, "
                "or change match_by"
            )
        return _number(found)

    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        return payload.calls(batch, self.list_id, self._google)

    async def perform(self, call: Call, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]:
        """Rows that nobody could be matched on are refused here, before anything is sent."""
        unfit = [payload.unfit(batch[row], self._google) for row in call.rows]
        bad = {at: reason for at, reason in enumerate(unfit) if reason}
        if bad:
            raise RowsRefused(bad)
        response = await self.ask(call, pace, also=_BAD)
        if response.status_code in _BAD:
            error = self.refusal(response) or Rejected("HTTP 400")
            named = self._named(response, len(call.rows))
            raise RowsRefused(named) if named and isinstance(error, Rejected) else error
        return self.outcomes(call, response)

    def _named(self, response: httpx.Response, count: int) -> dict[int, str]:
        """The rows that an answer finds fault with, and why."""
        found = {}
        for one in _violations(
            items(fields(fields(decoded(response)).get("error")).get("details"))
        ):
            place = _ROW.search(str(one.get("field")))
            if place and int(place[1]) < count:
                found[int(place[1])] = self.said(one.get("description") or one.get("reason"))
        return found

    def outcomes(self, call: Call, response: httpx.Response) -> Sequence[Outcome]:
        """Taken, for later; warnings are for people."""
        answer = fields(decoded(response))
        receipt = answer.get("requestId")
        warned = self.said(answer["fieldWarnings"]) if answer.get("fieldWarnings") else None
        if not isinstance(receipt, str) or not receipt:
            return [Outcome(note=warned) if warned else DELIVERED] * len(call.rows)
        return [Outcome(note=warned, receipt=receipt)] * len(call.rows)

    async def result(self, receipt: str, pace: Pace) -> Result | None:
        call = Call("GET", payload.STATUS, params={"requestId": receipt})
        response = await self.ask(call, pace, also=_MISSING)
        if response.status_code == 404:
            return Result(note="Google does not know this request any more")
        found = items(fields(decoded(response)).get("requestStatusPerDestination"))
        if not found:
            return None
        status, counts = found[0].get("requestStatus"), _counts(found[0])
        said = ", ".join(f"{count} {reason}" for reason, count in sorted(counts.items()))
        said = self.said(said) if said else ""
        if status in _FAILED:
            text = f"Google did none of it: {said or 'without a reason'}"
            again = all("INTERNAL" in reason or "UNSPECIFIED" in reason for reason in counts)
            return Result(Unavailable(text) if again else Rejected(text))
        if status == "PARTIAL_SUCCESS":
            return Result(note=f"Google did not do {said or 'a part of it'}")
        return Result() if status == "SUCCESS" else None


def _counts(found: dict[str, Any]) -> dict[str, str]:
    """Reason to how many rows; Google writes numbers as text."""
    errors = items(fields(found.get("errorInfo")).get("errorCounts"))
    prefix = "PROCESSING_ERROR_REASON_"
    return {
        str(one.get("reason")).removeprefix(prefix): str(one.get("recordCount", "some"))
        for one in errors
    }


def _violations(details: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [one for detail in details for one in items(detail.get("fieldViolations"))]


def _delay(details: Sequence[dict[str, Any]]) -> float | None:
    """Seconds that a `RetryInfo` asks for, such as «30s»."""
    for one in details:
        found = re.fullmatch(r"(\d+(?:\.\d+)?)s", str(one.get("retryDelay")))
        if found:
            return float(found[1])
    return None


def _number(found: dict[str, Any]) -> str:
    """A list's id, which also ends its name."""
    number = found.get("id") or str(found.get("name") or "").rsplit("/", 1)[-1]
    if not number:
        raise Unavailable("Google did not say the id of the audience")
    return str(number)
