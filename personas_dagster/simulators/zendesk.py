"""A Zendesk account: users, organizations and their fields."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from personas_dagster.simulators.base import (
    Request,
    Simulator,
    answer,
    is_address,
    read_json,
    read_query,
    refuse,
    route,
)
from personas_dagster.simulators.faults import Answer, Seen


class Zendesk(Simulator):
    """New users need a name. Fields that are not there are dropped in silence."""

    type = "zendesk"
    retry_after = 7.0
    looks_up = True
    routes = (
        route("GET", "/api/v2/{kind}_fields", "show_fields"),
        route("POST", "/api/v2/{kind}_fields", "make_field"),
        route("POST", "/api/v2/users/create_or_update", "user"),
        route("GET", "/api/v2/users/search", "search"),
        route("DELETE", "/api/v2/users/{number}", "delete"),
        route("DELETE", "/api/v2/deleted_users/{number}", "delete_for_good"),
        route("POST", "/api/v2/organizations/create_or_update", "organization"),
    )

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.fields: dict[str, set[str]] = {"user": set(), "organization": set()}
        self.numbers: dict[str, int] = {}  # key of `people` -> user id, also of the deleted
        self.deleted: set[str] = set()  # not for good

    def settings(self, url: str) -> dict[str, Any]:
        return {
            "base_url": url,
            "subdomain": "simulated",
            "email": "agent@example.com",
            "api_token": self.key,
        }

    def is_authorized(self, seen: Seen) -> bool:
        token = b64encode(f"agent@example.com/token:{self.key}".encode()).decode()
        return seen.headers.get("authorization") == f"Basic {token}"

    def unauthorized(self) -> Answer:
        return answer(401, {"error": "Couldn't authenticate you"})

    def show_fields(self, request: Request, kind: str) -> Answer:
        found = [{"key": key} for key in sorted(self.fields[kind])]
        return answer(200, {f"{kind}_fields": found, "meta": {"has_more": False}})

    def make_field(self, request: Request, kind: str) -> Answer:
        body = read_json(request)[f"{kind}_field"]
        if body["key"] in self.fields[kind]:
            raise _no({"key": [{"description": "Key: has already been taken"}]})
        self.fields[kind].add(body["key"])
        return answer(201, {f"{kind}_field": body})

    def user(self, request: Request) -> Answer:
        request.rows = 1
        user = read_json(request)["user"]
        who = str(user.get("external_id") or user.get("email"))
        if "email" in user and not is_address(user["email"]):
            raise _no({"email": [{"description": "Email: is not properly formatted"}]})
        is_new = who not in self.people
        if is_new and not user.get("name"):
            raise _no({"name": [{"description": "Name: is too short (minimum is 1 character)"}]})
        self._keep(self.person(who), user, "user")
        number = self.numbers.setdefault(who, len(self.numbers) + 1)
        return answer(201 if is_new else 200, {"user": {"id": number, **user}})

    def search(self, request: Request) -> Answer:
        query = read_query(request)
        wanted = query.get("external_id") or query["query"].removeprefix("email:").strip('"')
        kind = "external_id" if "external_id" in query else "email"
        users = [
            {"id": self.numbers[who], kind: has[kind]}
            for who, has in self.people.items()
            if who not in self.deleted and str(has.get(kind)).startswith(wanted)
        ]
        return answer(200, {"users": users, "count": len(users)})

    def delete(self, request: Request, number: str) -> Answer:
        request.rows = 1
        who = self._who(number)
        if who in self.deleted:
            raise refuse(404, {"error": "RecordNotFound", "description": "Not found"})
        self.deleted.add(who)
        return answer(200, {"user": {"id": int(number), "active": False}})

    def delete_for_good(self, request: Request, number: str) -> Answer:
        who = self._who(number)
        if who not in self.deleted:
            raise refuse(422, {"error": "RecordInvalid", "description": "delete the user first"})
        self.deleted.discard(who)
        self.forget(who)
        return answer(200, {"deleted_user": {"id": int(number)}})

    def _who(self, number: str) -> str:
        for who, known in self.numbers.items():
            if str(known) == number and who in self.people:
                return who
        raise refuse(404, {"error": "RecordNotFound", "description": "Not found"})

    def organization(self, request: Request) -> Answer:
        request.rows = 1
        found = read_json(request)["organization"]
        is_new = found["external_id"] not in self.groups
        self._keep(self.groups.setdefault(found["external_id"], {}), found, "organization")
        return answer(201 if is_new else 200, {"organization": {"id": 1, **found}})

    def _keep(self, has: dict[str, Any], found: dict[str, Any], kind: str) -> None:
        values = found.pop(f"{kind}_fields", {})
        has.update(found)
        has.update({key: value for key, value in values.items() if key in self.fields[kind]})


def _no(details: dict[str, Any]) -> Exception:
    said = {"error": "RecordInvalid", "description": "Record validation errors"}
    return refuse(422, {**said, "details": details})
