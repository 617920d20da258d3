"""A SendGrid account: marketing contacts, field definitions and lists."""

from __future__ import annotations

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

_UPSERT, _SEARCH = 30_000, 100


class SendGrid(Simulator):
    """One bad address refuses all of an upsert. What is taken is done before the answer."""

    type = "sendgrid"
    retry_after = 7.0
    largest_body = 6_000_000
    looks_up = True
    bad = {"email": "not-an-address"}
    routes = (
        route("PUT", "/v3/marketing/contacts", "upsert"),
        route("DELETE", "/v3/marketing/contacts", "delete"),
        route("POST", "/v3/marketing/contacts/search/emails", "search"),
        route("GET", "/v3/marketing/field_definitions", "show_fields"),
        route("POST", "/v3/marketing/field_definitions", "make_field"),
        route("GET", "/v3/marketing/lists", "show_lists"),
        route("GET", "/v3/marketing/lists/{number}", "show_list"),
        route("POST", "/v3/marketing/lists", "make_list"),
        route("DELETE", "/v3/marketing/lists/{number}/contacts", "leave"),
    )

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.fields: dict[str, dict[str, str]] = {}  # id -> name and type
        self.names: dict[str, str] = {}  # list id -> name

    def settings(self, url: str) -> dict[str, Any]:
        return {"base_url": url, "api_key": self.key, "upserts_per_second": 1000}

    def is_authorized(self, seen: Seen) -> bool:
        return seen.headers.get("authorization") == f"Bearer {self.key}"

    def unauthorized(self) -> Answer:
        return answer(401, {"errors": [{"field": None, "message": "authorization required"}]})

    def throttled(self) -> Answer:
        headers = {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": "1795348807"}
        headers["Date"] = "Sun, 22 Nov 2026 12:00:00 GMT"
        return answer(429, {"errors": [{"message": "too many requests"}]}, headers)

    def members(self, audience: str) -> set[str]:
        listed = self.lists.get(audience, set())
        return listed | {w for w, has in self.people.items() if has.get(audience) == "true"}

    def upsert(self, request: Request) -> Answer:
        body = read_json(request)
        contacts, lists = body.get("contacts"), body.get("list_ids", [])
        if not contacts or len(contacts) > _UPSERT:
            raise _no("contacts", f"expected 1 to {_UPSERT} contacts")
        request.rows = len(contacts)
        for number in lists:
            if number not in self.names:
                raise _no("list_ids", "no such list")
        for contact in contacts:
            if not is_address(contact.get("email")):
                raise _no("contacts", f"email '{contact.get('email')}' is not valid")
            if not contact.get("custom_fields", {}).keys() <= self.fields.keys():
                raise _no("contacts", "there is no such custom field")
        for contact in contacts:
            has = self.person(contact["email"].lower())
            for number, value in contact.get("custom_fields", {}).items():
                has[self.fields[number]["name"]] = value
            has.update({k: v for k, v in contact.items() if k not in ("email", "custom_fields")})
            for number in lists:
                self.lists[self.names[number]].add(contact["email"].lower())
        return answer(202, {"job_id": f"job-{len(self.requests)}"})

    def search(self, request: Request) -> Answer:
        emails = read_json(request).get("emails", [])
        if not emails or len(emails) > _SEARCH:
            raise _no("emails", f"expected 1 to {_SEARCH} emails")
        if not any(email in self.people for email in emails):
            raise refuse(404, {"errors": [{"message": "no contacts found"}]})
        found = {
            email: {"contact": {"id": f"id-{email}", "email": email}}
            if email in self.people
            else {"error": "contact not found"}
            for email in emails
        }
        return answer(200, {"result": found})

    def delete(self, request: Request) -> Answer:
        ids = read_query(request).get("ids", "").split(",")
        if ids == [""] or len(ids) > _SEARCH:
            raise _no("ids", f"expected 1 to {_SEARCH} ids")
        request.rows = len(ids)
        for one in ids:
            self.forget(one.removeprefix("id-"))
        return answer(202, {"job_id": f"job-{len(self.requests)}"})

    def leave(self, request: Request, number: str) -> Answer:
        if number not in self.names:
            raise refuse(404, {"errors": [{"message": "no such list"}]})
        ids = read_query(request).get("contact_ids", "").split(",")
        if len(ids) > _SEARCH:
            raise _no("contact_ids", f"more than {_SEARCH}")
        for one in ids:
            self.lists[self.names[number]].discard(one.removeprefix("id-"))
        return answer(202, {"job_id": f"job-{len(self.requests)}"})

    def show_fields(self, request: Request) -> Answer:
        custom = [{"id": number, **one} for number, one in self.fields.items()]
        return answer(200, {"custom_fields": custom, "reserved_fields": []})

    def make_field(self, request: Request) -> Answer:
        body = read_json(request)
        if any(one["name"] == body["name"] for one in self.fields.values()):
            raise _no("name", "a field of this name exists")
        number = f"e{len(self.fields) + 1}_T"
        self.fields[number] = {"name": body["name"], "field_type": body["field_type"]}
        return answer(200, {"id": number, **self.fields[number]})

    def show_lists(self, request: Request) -> Answer:
        result = [{"id": number, "name": name} for number, name in self.names.items()]
        return answer(200, {"result": result, "_metadata": {}})

    def show_list(self, request: Request, number: str) -> Answer:
        if number not in self.names:
            raise refuse(404, {"errors": [{"message": "no such list"}]})
        return answer(200, {"id": number, "name": self.names[number]})

    def make_list(self, request: Request) -> Answer:
        name = read_json(request)["name"]
        if name in self.lists:
            raise _no("name", "duplicate name")
        number = f"list-{len(self.names) + 1}"
        self.names[number] = name
        self.lists[name] = set()
        return answer(201, {"id": number, "name": name, "contact_count": 0})


class SendGridLists(SendGrid):
    """The same account, seen by who wants its lists only."""

    type = "sendgrid_lists"


def _no(field: str, message: str) -> Exception:
    return refuse(400, {"errors": [{"field": field, "message": message}]})
