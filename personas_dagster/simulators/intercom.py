"""An Intercom workspace: contacts, companies, events and data attributes."""

from __future__ import annotations

import time
from email.utils import formatdate
from typing import Any

from personas_dagster.simulators.base import (
    Event,
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


class Intercom(Simulator):
    """Contacts are made once (409 if they are there), and attributes must exist."""

    type = "intercom"
    retry_after = 7.0
    looks_up = True
    routes = (
        route("GET", "/data_attributes", "show_attributes"),
        route("POST", "/data_attributes", "make_attribute"),
        route("POST", "/contacts/search", "search"),
        route("POST", "/contacts", "make"),
        route("PUT", "/contacts/{number}", "update"),
        route("DELETE", "/contacts/{number}", "delete"),
        route("POST", "/contacts/{number}/companies", "join"),
        route("POST", "/companies", "company"),
        route("POST", "/events", "event"),
    )

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.attributes: dict[str, set[str]] = {"contact": set(), "company": set()}
        self.contacts: dict[str, dict[str, Any]] = {}  # id -> what `people` has too
        self._made = 0

    def settings(self, url: str) -> dict[str, Any]:
        return {"base_url": url, "access_token": self.key}

    def is_authorized(self, seen: Seen) -> bool:
        return seen.headers.get("authorization") == f"Bearer {self.key}"

    def unauthorized(self) -> Answer:
        return _errors(401, "unauthorized", "Access Token Invalid")

    def throttled(self) -> Answer:
        now = int(time.time())
        headers = {"X-RateLimit-Reset": f"{now + 7}", "Date": formatdate(now, usegmt=True)}
        found = _errors(429, "rate_limit_exceeded", "Exceeded rate limit")
        return Answer(429, found.body, headers)

    def show_attributes(self, request: Request) -> Answer:
        model = read_query(request)["model"]
        data = [{"name": n, "model": model} for n in sorted(self.attributes[model])]
        return answer(200, {"type": "list", "data": data})

    def make_attribute(self, request: Request) -> Answer:
        body = read_json(request)
        if body["name"] in self.attributes[body["model"]]:
            raise _no("parameter_invalid", "You already have an attribute of this name")
        if body["data_type"] not in ("string", "integer", "float", "boolean", "date"):
            raise _no("parameter_invalid", "data_type")
        self.attributes[body["model"]].add(body["name"])
        return answer(200, body)

    def search(self, request: Request) -> Answer:
        query = read_json(request)["query"]
        found = [
            {"id": number, "type": "contact"}
            for number, has in self.contacts.items()
            if has.get(query["field"]) == query["value"]
        ]
        return answer(200, {"type": "list", "data": found, "total_count": len(found)})

    def make(self, request: Request) -> Answer:
        body = self._checked(request)
        who = body.get("external_id") or body.get("email")
        if who in self.people:
            return _errors(409, "conflict", "A contact matching those details already exists")
        self._made += 1
        number = f"ic-{self._made}"
        self.contacts[number] = self.person(str(who))
        self._keep(number, body)
        return answer(200, {"type": "contact", "id": number})

    def update(self, request: Request, number: str) -> Answer:
        if number not in self.contacts:
            return _errors(404, "not_found", "User Not Found")
        self._keep(number, self._checked(request))
        return answer(200, {"type": "contact", "id": number})

    def delete(self, request: Request, number: str) -> Answer:
        request.rows = 1
        if number not in self.contacts:
            return _errors(404, "not_found", "User Not Found")
        contact = self.contacts.pop(number)
        self.forget(next(who for who, has in self.people.items() if has is contact))
        return answer(200, {"type": "contact", "id": number, "deleted": True})

    def company(self, request: Request) -> Answer:
        body = read_json(request)
        if not body.get("custom_attributes", {}).keys() <= self.attributes["company"]:
            raise _no("parameter_invalid", "Custom attribute does not exist")
        has = self.groups.setdefault(body["company_id"], {})
        has.update({k: v for k, v in body.items() if k != "custom_attributes"})
        has.update(body.get("custom_attributes", {}))
        return answer(200, {"type": "company", "id": f"co-{body['company_id']}"})

    def join(self, request: Request, number: str) -> Answer:
        if number not in self.contacts:
            return _errors(404, "not_found", "User Not Found")
        self.contacts[number].setdefault("companies", []).append(read_json(request)["id"])
        return answer(200, {"type": "company"})

    def event(self, request: Request) -> Answer:
        body = read_json(request)
        who = body.get("user_id") or body.get("email")
        if not who or not body.get("event_name") or not body.get("created_at"):
            raise _no("parameter_not_found", "event_name, created_at and a user are required")
        if who not in self.people:
            return _errors(404, "not_found", "User Not Found")
        self.happen(Event(str(who), body["event_name"], body.get("metadata", {})))
        return Answer(202, b"")

    def _checked(self, request: Request) -> dict[str, Any]:
        request.rows = 1
        body: dict[str, Any] = read_json(request)
        if "email" in body and not is_address(body["email"]):
            raise _no("parameter_invalid", "Email is invalid")
        if not body.get("custom_attributes", {}).keys() <= self.attributes["contact"]:
            raise _no("parameter_invalid", "Custom attribute does not exist")
        return body

    def _keep(self, number: str, body: dict[str, Any]) -> None:
        has = self.contacts[number]
        has.update({k: v for k, v in body.items() if k != "custom_attributes"})
        for key, value in body.get("custom_attributes", {}).items():
            if value is None:
                has.pop(key, None)
            else:
                has[key] = value


def _errors(status: int, code: str, message: str) -> Answer:
    return answer(status, {"type": "error.list", "errors": [{"code": code, "message": message}]})


def _no(code: str, message: str) -> Exception:
    return refuse(400, {"type": "error.list", "errors": [{"code": code, "message": message}]})
