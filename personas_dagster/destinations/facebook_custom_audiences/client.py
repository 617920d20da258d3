"""Requests to Facebook's Marketing API, and what its answers mean."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import httpx
import msgspec

from personas_dagster.activation.destination import DELIVERED, Message, Outcome, Pace
from personas_dagster.destinations.facebook_custom_audiences import payload
from personas_dagster.destinations.facebook_custom_audiences.settings import FacebookSettings
from personas_dagster.destinations.lists import ListTool
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
    Unauthorized,
    Unavailable,
)

# Facebook's codes: who asks too much (of the app, the user, the page, the ad account's own limits)
_THROTTLED = frozenset({4, 17, 32, 613, 80003, 80004})
_TOKEN = frozenset({102, 190})
# a permission, a policy or the audience itself stands in the way: nothing that trying again mends
_BLOCKED = frozenset({3, 10, *range(200, 300), 368, 2650})
_NOBODY, _FLAGGED = 33, 1713230  # subcodes of 100: no such object; the audience is restricted
_RESTRICTED = 471
_USAGE = "x-business-use-case-usage"
_PAGE = "200"


class FacebookCustomAudiences(ListTool):
    """One ad account. A request is taken as a whole: Facebook counts rows, and names few."""

    def __init__(self, settings: FacebookSettings) -> None:
        super().__init__(settings)
        self._facebook = settings

    async def ask(
        self, call: Call, pace: Pace, *, also: frozenset[int] = frozenset()
    ) -> httpx.Response:
        proof = self._facebook.proof
        if proof is not None:
            call = replace(call, params={**call.params, "appsecret_proof": revealed(proof)})
        if call.rows and self._facebook.sessions:
            session = {**call.body["session"], "session_id": secrets.randbits(62) + 1}
            call = replace(call, body={**call.body, "session": session})
        return await super().ask(call, pace, also=also)

    def refusal(self, response: httpx.Response) -> DeliveryError | None:
        """Facebook says nearly everything by 400 and a code."""
        error = fields(fields(decoded(response)).get("error"))
        code, subcode = error.get("code"), error.get("error_subcode")
        said = f"{code}: {self.said(error.get('error_user_msg') or error.get('message'))}"
        if response.is_success or not isinstance(code, int):
            return super().refusal(response)
        if code in _THROTTLED:
            return Throttled(said, _regained(response.headers))
        if code in self._facebook.transient_codes or error.get("is_transient") is True:
            return Unavailable(said)
        if code in _TOKEN:
            return Unauthorized(said)
        if code == 100 and subcode == _NOBODY:
            return NeedsSetup(
                f"Facebook has no such audience, or hides it from this token ({said})"
            )
        if code in _BLOCKED or subcode == _FLAGGED:
            return NeedsSetup(f"Facebook does not let the audience be changed ({said})")
        return super().refusal(response)

    async def find_list(self, name: str, pace: Pace) -> str | None:
        path = f"{payload.node(self._facebook.ad_account_id, self._facebook)}/customaudiences"
        params = {"fields": "id,name,subtype", "limit": _PAGE}
        while True:
            answer = fields(decoded(await self.ask(Call("GET", path, params=params), pace)))
            if not isinstance(answer.get("data"), list):
                raise Unavailable("Facebook did not say which custom audiences there are")
            for one in items(answer["data"]):
                if one.get("name") == name and one.get("subtype", "CUSTOM") == "CUSTOM":
                    return str(one.get("id"))
            paging = fields(answer.get("paging"))
            after = fields(paging.get("cursors")).get("after")
            if not paging.get("next") or not after or after == params.get("after"):
                return None
            params = {**params, "after": str(after)}

    async def make_list(self, name: str, pace: Pace) -> str:
        made = fields(decoded(await self.ask(payload.new_list(name, self._facebook), pace)))
        if not made.get("id"):
            raise Unavailable("Facebook did not say which custom audience it made")
        return str(made["id"])

    async def has_list(self, number: str, pace: Pace) -> bool:
        if not number.isdigit():
            return False
        params = {"fields": "id,name,subtype,operation_status"}
        call = Call("GET", payload.node(number, self._facebook), params=params)
        try:
            found = fields(decoded(await self.ask(call, pace)))
        except NeedsSetup:
            return False
        if found.get("subtype", "CUSTOM") != "CUSTOM":
            raise NeedsSetup(f"audience {number} is no customer file; make one, and give its id")
        if fields(found.get("operation_status")).get("code") == _RESTRICTED:
            raise NeedsSetup(
                f"audience {number} is restricted by Facebook; appeal in the Audience Manager, or "
                "use another"
            )
        return True

    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        found = payload.calls(batch, self.list_id, self._facebook)
        if self._facebook.app_secret is None:
            return found
        return [replace(one, params={"appsecret_proof": payload.PROOF}) for one in found]

    async def perform(self, call: Call, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]:
        """Rows that nobody could be matched on are refused here, before anything is sent."""
        reasons = [payload.unfit(batch[row], self._facebook) for row in call.rows]
        bad = {at: reason for at, reason in enumerate(reasons) if reason}
        if bad:
            raise RowsRefused(bad)
        return await super().perform(call, batch, pace)

    def outcomes(self, call: Call, response: httpx.Response) -> Sequence[Outcome]:
        """Rows that Facebook gives as samples of what it could not read are refused; of the rest
        it says how many only, and they stay as told: each is taken out again when it leaves."""
        answer = fields(decoded(response))
        count = answer.get("num_invalid_entries")
        if not isinstance(count, int) or count <= 0:
            return [DELIVERED] * len(call.rows)
        sent, samples = call.body["payload"], set(_texts(answer.get("invalid_entry_samples")))
        telling = [at for at, one in enumerate(sent["schema"]) if one in payload.IDENTIFYING]
        named = [bool(samples & {row[at] for at in telling}) for row in sent["data"]]
        taken = DELIVERED
        if count > sum(named):
            text = f"Facebook could not read {count} of these {len(named)} entries, nor named all"
            taken = Outcome(note=text)
        refused = Outcome(Rejected("Facebook could not read this entry"))
        return [refused if is_named else taken for is_named in named]


def _texts(found: Any) -> Iterator[str]:
    """All texts in a JSON value, keys included."""
    if isinstance(found, str) and found:
        yield found
    elif isinstance(found, dict):
        for key, value in found.items():
            yield key
            yield from _texts(value)
    elif isinstance(found, list):
        for value in found:
            yield from _texts(value)


def _regained(headers: httpx.Headers) -> float | None:
    """Seconds until access is regained; the header says minutes, for each limit that counts."""
    try:
        usage = msgspec.json.decode(headers.get(_USAGE, ""))
    except msgspec.DecodeError:
        return None
    found = [
        one["estimated_time_to_regain_access"] * 60.0
        for limits in fields(usage).values()
        for one in items(limits)
        if isinstance(one.get("estimated_time_to_regain_access"), int | float)
    ]
    return max(found, default=None)
