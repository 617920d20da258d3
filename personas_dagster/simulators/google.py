"""A Google Ads account behind the Data Manager API: audiences, whose people it knows as hashes."""

from __future__ import annotations

import re
from typing import Any

from personas_dagster.simulators.base import (
    Request,
    Simulator,
    answer,
    read_form,
    read_json,
    read_query,
    refuse,
    route,
)
from personas_dagster.simulators.faults import Answer, Seen

_MEMBERS, _IDENTIFIERS, _DESTINATIONS = 10_000, 10, 10
_ACCOUNT = "1234567890"
_LISTS = f"/v1/accountTypes/GOOGLE_ADS/accounts/{_ACCOUNT}/userLists"
_HASH = re.compile(r"[0-9a-f]{64}")
_KINDS = {"userData": "CONTACT_ID", "mobileData": "MOBILE_ID", "userIdData": "USER_ID"}
_CONSENTS = frozenset({"CONSENT_GRANTED", "CONSENT_DENIED"})


class GoogleAds(Simulator):
    """Tokens run out; requests are taken, and asked for later by their id."""

    type = "google_ads"
    retry_after = 20.0
    looks_up = True
    bad = {"user_id": "user-bad", "email": "not-an-address"}
    routes = (
        route("POST", "/token", "give_token"),
        route("GET", _LISTS, "show_lists"),
        route("POST", _LISTS, "make_list"),
        route("GET", f"{_LISTS}/{{number}}", "show_list"),
        route("POST", "/v1/audienceMembers:ingest", "ingest"),
        route("POST", "/v1/audienceMembers:remove", "remove"),
        route("GET", "/v1/requestStatus:retrieve", "show_status"),
    )

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.names: dict[str, str] = {}  # id -> name
        self.about: dict[str, dict[str, Any]] = {}  # id -> as the API shows it
        self.taken: dict[str, dict[str, Any]] = {}  # request id -> its status
        self.terms_signed = True
        self._tokens: set[str] = set()
        self._given = 0
        self._refuses = False  # the next one who asks for a token

    def settings(self, url: str) -> dict[str, Any]:
        return {
            "base_url": url,
            "token_url": f"{url}/token",
            "client_id": "simulated",
            "client_secret": f"{self.key}-client",
            "refresh_token": f"{self.key}-refresh",
            "account_id": "123-456-7890",
            "ad_user_data": "granted",
            "ad_personalization": "granted",
        }

    def expire(self) -> None:
        """No token is valid any more; another can be had."""
        self._tokens.clear()

    def is_authorized(self, seen: Seen) -> bool:
        return True  # the handlers see to it: a token that ran out is another thing than no access

    def unauthorized(self) -> Answer:
        """The access was taken back: no token is given either, when it is asked for one."""
        if self.requests and self.requests[-1].seen.path != "/token":
            self._refuses = True
            return _error(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")
        return answer(400, {"error": "invalid_grant", "error_description": "Token was revoked."})

    def throttled(self) -> Answer:
        wait = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "20s"}
        return _error(429, "RESOURCE_EXHAUSTED", "Quota exceeded.", [wait])

    def failed(self, status: int) -> Answer:
        return _error(status, "UNAVAILABLE", "The service is currently unavailable.")

    def missing(self, seen: Seen) -> Answer:
        return _error(404, "NOT_FOUND", f"no method {seen.method} {seen.path}")

    def give_token(self, request: Request) -> Answer:
        form = read_form(request)
        wanted = {
            "grant_type": "refresh_token",
            "client_id": "simulated",
            "client_secret": f"{self.key}-client",
            "refresh_token": f"{self.key}-refresh",
        }
        refused, self._refuses = self._refuses, False
        if refused or form != wanted:
            raise refuse(400, {"error": "invalid_grant", "error_description": "Bad Request"})
        self._given += 1
        token = f"ya29.{self.key}-{self._given}"
        self._tokens.add(token)
        return answer(200, {"access_token": token, "expires_in": 3599, "token_type": "Bearer"})

    def show_lists(self, request: Request) -> Answer:
        self._signed_in(request)
        query = read_query(request)
        name = re.fullmatch(r'display_name = "(.*)"', query.get("filter", ""))
        wanted = name[1].replace('\\"', '"').replace("\\\\", "\\") if name else None
        found = [one for one in self.about.values() if wanted in (None, one["displayName"])]
        return answer(200, {"userLists": found} if found else {})

    def show_list(self, request: Request, number: str) -> Answer:
        self._signed_in(request)
        if number not in self.about:
            raise _no(404, "NOT_FOUND", "Resource not found.", "NOT_FOUND")
        return answer(200, self.about[number])

    def make_list(self, request: Request) -> Answer:
        self._signed_in(request)
        body = read_json(request)
        duration = int(str(body.get("membershipDuration", "0s")).removesuffix("s"))
        kinds = body.get("ingestedUserListInfo", {}).get("uploadKeyTypes")
        if not body.get("displayName") or not kinds or duration % 86_400:
            raise _no(400, "INVALID_ARGUMENT", "There was a problem with the request.")
        number = str(9_100_000_000 + len(self.names))
        self.names[number] = body["displayName"]
        self.lists.setdefault(body["displayName"], set())
        shown = {"name": f"{_LISTS[4:]}/{number}", "id": number, "membershipStatus": "OPEN"}
        self.about[number] = {**shown, **body}
        return answer(200, self.about[number])

    def ingest(self, request: Request) -> Answer:
        return self._change(request, adds=True)

    def remove(self, request: Request) -> Answer:
        return self._change(request, adds=False)

    def show_status(self, request: Request) -> Answer:
        self._signed_in(request)
        number = read_query(request).get("requestId", "")
        if number not in self.taken:
            raise _no(404, "NOT_FOUND", "Request not found.", "NOT_FOUND")
        return answer(200, {"requestStatusPerDestination": [self.taken[number]]})

    def _signed_in(self, request: Request) -> None:
        token = request.seen.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in self._tokens:
            raise _no(401, "UNAUTHENTICATED", "Request had invalid authentication credentials.")

    def _change(self, request: Request, *, adds: bool) -> Answer:
        self._signed_in(request)
        body = read_json(request)
        destinations, people = body.get("destinations"), body.get("audienceMembers")
        if not destinations or len(destinations) > _DESTINATIONS:
            raise _no(400, "INVALID_ARGUMENT", "destinations", "TOO_MANY_DESTINATIONS")
        if not people or len(people) > _MEMBERS:
            raise _no(400, "INVALID_ARGUMENT", "members", "TOO_MANY_AUDIENCE_MEMBERS")
        if not adds and {"consent", "termsOfService"} & body.keys():
            raise _no(400, "INVALID_ARGUMENT", "unknown field", "INVALID_ARGUMENT")
        if adds and set(body.get("consent", {}).values()) - _CONSENTS:
            raise _no(400, "INVALID_ARGUMENT", "consent", "INVALID_ENUM_VALUE")
        terms = body.get("termsOfService", {}).get("customerMatchTermsOfServiceStatus")
        if adds and not (self.terms_signed or terms == "ACCEPTED"):
            raise _no(400, "INVALID_ARGUMENT", "terms", "TERMS_AND_CONDITIONS_NOT_SIGNED")
        numbers = [one.get("productDestinationId") for one in destinations]
        if any(one["operatingAccount"]["accountId"] != _ACCOUNT for one in destinations):
            raise _no(403, "PERMISSION_DENIED", "no such account", "PERMISSION_DENIED")
        if any(number not in self.names for number in numbers):
            raise _no(400, "INVALID_ARGUMENT", "list", "INVALID_USER_LIST_ID")
        request.rows = len(people)
        kinds = {kind for one in people for kind in one}
        if len(kinds) != 1:
            raise _no(400, "INVALID_ARGUMENT", "kinds", "MULTIPLE_DATA_TYPES_NOT_ALLOWED")
        _check(people, body.get("encoding"))
        for number in numbers:
            if _KINDS[kinds.copy().pop()] not in _key_types(self.about[number]):
                raise _no(400, "INVALID_ARGUMENT", "list", "INVALID_USER_LIST_TYPE")
            members = self.lists[self.names[number]]
            for one in people:
                members.add(_key(one)) if adds else members.discard(_key(one))
        taken = f"request-{len(self.requests)}"
        self.taken[taken] = {"destination": destinations[0], "requestStatus": "SUCCESS"}
        return answer(200, {"requestId": taken})


def _key_types(shown: dict[str, Any]) -> list[str]:
    found: list[str] = shown["ingestedUserListInfo"]["uploadKeyTypes"]
    return found


def _key(person: dict[str, Any]) -> str:
    """Somebody's first identifier."""
    if "userIdData" in person:
        return str(person["userIdData"]["userId"])
    if "mobileData" in person:
        return str(person["mobileData"]["mobileIds"][0])
    first = person["userData"]["userIdentifiers"][0]
    return str(next(iter(first.values())))


def _check(people: list[dict[str, Any]], encoding: object) -> None:
    """Rows at fault are named, and nothing of the request is taken."""
    found = []
    for at, person in enumerate(people):
        place = f"audience_members.audience_members[{at}]"
        identifiers = person.get("userData", {}).get("userIdentifiers", [])
        if len(identifiers) > _IDENTIFIERS:
            found.append({"field": place, "reason": "TOO_MANY_USER_IDENTIFIERS"})
        for one in identifiers:
            hashed = [one[name] for name in ("emailAddress", "phoneNumber") if name in one]
            if encoding != "HEX" or not all(_HASH.fullmatch(value) for value in hashed):
                found.append({"field": place, "reason": "INVALID_SHA256_FORMAT"})
    if found:
        said = {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": found}
        raise refuse(400, _body(400, "INVALID_ARGUMENT", "There was a problem.", [said]))


def _body(
    code: int, status: str, message: str, details: list[dict[str, Any]] | None = None
) -> dict[str, Any]:
    error = {"code": code, "message": message, "status": status, "details": details or []}
    return {"error": error}


def _error(
    code: int, status: str, message: str, details: list[dict[str, Any]] | None = None
) -> Answer:
    return answer(code, _body(code, status, message, details))


def _no(code: int, status: str, message: str, reason: str | None = None) -> Exception:
    info = {"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason}
    return refuse(code, _body(code, status, message, [info] if reason else None))
