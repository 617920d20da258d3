"""A HubSpot account: contacts, companies, properties and lists."""

from __future__ import annotations

from typing import Any

from personas_dagster.simulators.base import (
    Request,
    Simulator,
    answer,
    is_address,
    read_json,
    refuse,
    route,
)
from personas_dagster.simulators.faults import Answer, Seen

_INPUTS = 100


class HubSpot(Simulator):
    """Properties must exist. A batch with bad objects is answered by 207, the good are kept."""

    type = "hubspot"
    defers_rows = True
    looks_up = True
    bad = {"email": "not-an-address"}
    routes = (
        route("GET", "/crm/v3/properties/{kind}", "show_properties"),
        route("POST", "/crm/v3/properties/{kind}", "make_property"),
        route("POST", "/crm/v3/objects/{kind}/batch/upsert", "upsert"),
        route("POST", "/crm/v3/objects/contacts/batch/read", "read"),
        route("POST", "/crm/v3/objects/contacts/gdpr-delete", "delete"),
        route("GET", "/crm/v3/objects/contacts/{email}", "read_one"),
        route("GET", "/crm/v3/lists/object-type-id/0-1/name/{name}", "find_list"),
        route("GET", "/crm/v3/lists/{number}", "show_list"),
        route("POST", "/crm/v3/lists", "make_list"),
        route("PUT", "/crm/v3/lists/{number}/memberships/add-and-remove", "change"),
    )

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.properties = {"contacts": {"email", "phone"}, "companies": {"name", "account_id"}}
        self.names: dict[str, str] = {}  # list id -> name
        self.primary: dict[str, str] = {}  # another address -> the contact's first

    def settings(self, url: str) -> dict[str, Any]:
        return {
            "base_url": url,
            "access_token": self.key,
            "create_properties": True,
            "company_property": "account_id",
        }

    def is_authorized(self, seen: Seen) -> bool:
        return seen.headers.get("authorization") == f"Bearer {self.key}"

    def unauthorized(self) -> Answer:
        return answer(401, {"status": "error", "category": "INVALID_AUTHENTICATION"})

    def throttled(self) -> Answer:
        said = {"status": "error", "errorType": "RATE_LIMIT", "policyName": "TEN_SECONDLY_ROLLING"}
        return answer(429, said, {"X-HubSpot-RateLimit-Remaining": "0"})

    def members(self, audience: str) -> set[str]:
        listed = self.lists.get(audience, set())
        return listed | {w for w, has in self.people.items() if has.get(audience) == "true"}

    def show_properties(self, request: Request, kind: str) -> Answer:
        return answer(200, {"results": [{"name": n} for n in sorted(self.properties[kind])]})

    def make_property(self, request: Request, kind: str) -> Answer:
        body = read_json(request)
        if body["name"] in self.properties[kind]:
            raise refuse(409, {"status": "error", "category": "OBJECT_ALREADY_EXISTS"})
        if body["name"] != body["name"].lower() or not body.get("fieldType"):
            raise refuse(400, {"status": "error", "category": "VALIDATION_ERROR"})
        self.properties[kind].add(body["name"])
        return answer(201, body)

    def upsert(self, request: Request, kind: str) -> Answer:
        inputs = self._inputs(request)
        unknown = {n for one in inputs for n in one["properties"]} - self.properties[kind]
        if unknown:
            raise _no(f"Property values were not valid: {sorted(unknown)} PROPERTY_DOESNT_EXIST")
        results, errors = [], []
        for one in inputs:
            if one["idProperty"] == "email" and not is_address(one["id"]):
                errors.append(_error("VALIDATION_ERROR", "not an e-mail address", one["id"]))
            elif self.faults.row():
                errors.append(_error("RATE_LIMITS", "try again", one["id"]))
            else:
                who = self.primary.get(one["id"], one["id"])
                held = self.person(who) if kind == "contacts" else self._company(who)
                held.update(one["properties"])
                shown = {**one["properties"], "email": who}
                results.append({"id": f"id-{who}", "properties": shown})
        return _multi(results, errors)

    def read(self, request: Request) -> Answer:
        inputs = self._inputs(request)
        asked = {one["id"]: self.primary.get(one["id"], one["id"]) for one in inputs}
        found = [who for who in asked.values() if who in self.people]
        missing = [email for email, who in asked.items() if who not in self.people]
        results = [{"id": f"id-{email}", "properties": {"email": email}} for email in found]
        errors = [
            {
                "status": "error",
                "category": "OBJECT_NOT_FOUND",
                "message": "Could not get some contacts",
                "context": {"ids": missing},
            }
        ]
        return _multi(results, errors if missing else [])

    def delete(self, request: Request) -> Answer:
        request.rows = 1
        body = read_json(request)
        if body.get("idProperty") != "email" or not is_address(body.get("objectId")):
            raise _no("expected an e-mail address")
        if not self.forget(self.primary.get(body["objectId"], body["objectId"])):
            raise refuse(404, {"status": "error", "category": "OBJECT_NOT_FOUND"})
        return Answer(204, b"")

    def read_one(self, request: Request, email: str) -> Answer:
        who = self.primary.get(email, email)
        if who not in self.people:
            raise refuse(404, {"status": "error", "category": "OBJECT_NOT_FOUND"})
        return answer(200, {"id": f"id-{who}", "properties": {"email": who}})

    def find_list(self, request: Request, name: str) -> Answer:
        for number, known in self.names.items():
            if known == name:
                return answer(200, {"list": _list(number, name)})
        raise refuse(404, {"status": "error", "category": "OBJECT_NOT_FOUND"})

    def show_list(self, request: Request, number: str) -> Answer:
        if number not in self.names:
            raise refuse(404, {"status": "error", "category": "OBJECT_NOT_FOUND"})
        return answer(200, {"list": _list(number, self.names[number])})

    def make_list(self, request: Request) -> Answer:
        body = read_json(request)
        if body["name"] in self.lists:
            raise refuse(400, {"status": "error", "subCategory": "ILS.DUPLICATE_LIST_NAMES"})
        if body.get("processingType") != "MANUAL" or body.get("objectTypeId") != "0-1":
            raise _no("this simulator knows manual lists of contacts")
        number = str(len(self.names) + 1)
        self.names[number] = body["name"]
        self.lists[body["name"]] = set()
        return answer(200, {"list": _list(number, body["name"])})

    def change(self, request: Request, number: str) -> Answer:
        if number not in self.names:
            raise refuse(404, {"status": "error", "category": "OBJECT_NOT_FOUND"})
        body, members = read_json(request), self.lists[self.names[number]]
        added = {one.removeprefix("id-") for one in body["recordIdsToAdd"]}
        missing = added - self.people.keys()
        members |= added - missing
        members -= {one.removeprefix("id-") for one in body["recordIdsToRemove"]}
        return answer(200, {"recordsIdsAdded": sorted(added), "recordIdsMissing": sorted(missing)})

    def _company(self, number: str) -> dict[str, Any]:
        return self.groups.setdefault(number, {})

    def _inputs(self, request: Request) -> list[dict[str, Any]]:
        inputs: list[dict[str, Any]] = read_json(request).get("inputs") or []
        if not inputs or len(inputs) > _INPUTS:
            raise _no(f"expected 1 to {_INPUTS} inputs")
        if len({one["id"] for one in inputs}) < len(inputs):
            raise _no("Duplicate IDs found in batch input")
        request.rows = len(inputs)
        return inputs


class HubSpotLists(HubSpot):
    """The same account, seen by who wants its lists only."""

    type = "hubspot_lists"

    def settings(self, url: str) -> dict[str, Any]:
        return {"base_url": url, "access_token": self.key}


def _list(number: str, name: str) -> dict[str, str]:
    return {"listId": number, "name": name, "processingType": "MANUAL", "objectTypeId": "0-1"}


def _multi(results: list[dict[str, Any]], errors: list[dict[str, Any]]) -> Answer:
    said: dict[str, Any] = {"status": "COMPLETE", "results": results}
    if not errors:
        return answer(200, said)
    return answer(207, {**said, "numErrors": len(errors), "errors": errors})


def _error(category: str, message: str, number: str) -> dict[str, Any]:
    context = {"ids": [number]}
    return {"status": "error", "category": category, "message": message, "context": context}


def _no(message: str) -> Exception:
    return refuse(400, {"status": "error", "category": "VALIDATION_ERROR", "message": message})
