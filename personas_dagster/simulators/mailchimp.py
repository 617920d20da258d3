"""One audience at Mailchimp: members, merge fields and tags."""

from __future__ import annotations

from base64 import b64encode
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

_LIST = "/3.0/lists/abc123"


class Mailchimp(Simulator):
    """Merge fields that are not there are dropped in silence; tags are kept as lists."""

    type = "mailchimp"
    looks_up = True
    bad = {"email": "not-an-address"}
    routes = (
        route("GET", _LIST, "show_list"),
        route("GET", f"{_LIST}/merge-fields", "show_fields"),
        route("POST", f"{_LIST}/merge-fields", "make_field"),
        route("PUT", f"{_LIST}/members/{{digest}}", "member"),
        route("POST", f"{_LIST}/members/{{digest}}/tags", "tag"),
        route("POST", f"{_LIST}/members/{{digest}}/actions/delete-permanent", "delete"),
    )

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.fields = {"FNAME", "LNAME"}
        self.addresses: dict[str, str] = {}  # digest -> address

    def settings(self, url: str) -> dict[str, Any]:
        return {"base_url": url, "api_key": self.key, "list_id": "abc123"}

    def is_authorized(self, seen: Seen) -> bool:
        found = seen.headers.get("authorization", "")
        return found == f"Basic {b64encode(f'personas:{self.key}'.encode()).decode()}"

    def unauthorized(self) -> Answer:
        return _problem(401, "API Key Invalid", "Your API key may be invalid")

    def throttled(self) -> Answer:
        return Answer(403, b"", {"Content-Type": "text/html"})

    def show_list(self, request: Request) -> Answer:
        return answer(200, {"id": "abc123"})

    def show_fields(self, request: Request) -> Answer:
        return answer(200, {"merge_fields": [{"tag": tag} for tag in sorted(self.fields)]})

    def make_field(self, request: Request) -> Answer:
        body = read_json(request)
        if len(body["tag"]) > 10 or body["tag"] in self.fields:
            raise _no("Invalid Resource", "the merge tag is too long, or there already")
        self.fields.add(body["tag"])
        return answer(200, {"merge_id": len(self.fields), **body})

    def member(self, request: Request, digest: str) -> Answer:
        request.rows = 1
        body = read_json(request)
        if not is_address(body.get("email_address")):
            raise _no("Invalid Resource", "Please provide a valid email address.")
        if "status" in body:
            raise _no("Invalid Resource", "this simulator lets nobody be subscribed again")
        who = body["email_address"].lower()
        self.addresses[digest] = who
        has = self.person(who)
        has.setdefault("status", body["status_if_new"])
        given = body.get("merge_fields", {})
        has.update({tag: value for tag, value in given.items() if tag in self.fields})
        return answer(200, {"id": digest, "email_address": who, "status": has["status"]})

    def tag(self, request: Request, digest: str) -> Answer:
        if digest not in self.addresses:
            return _problem(404, "Resource Not Found", "The requested resource was not found.")
        for one in read_json(request)["tags"]:
            members = self.lists.setdefault(one["name"], set())
            if one["status"] == "active":
                members.add(self.addresses[digest])
            else:
                members.discard(self.addresses[digest])
        return Answer(204, b"")

    def delete(self, request: Request, digest: str) -> Answer:
        request.rows = 1
        who = self.addresses.pop(digest, None)
        if who is None:
            return _problem(404, "Resource Not Found", "The requested resource was not found.")
        self.forget(who)
        return Answer(204, b"")


def _problem(status: int, title: str, detail: str) -> Answer:
    said = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return answer(status, said, {"Content-Type": "application/problem+json"})


def _no(title: str, detail: str) -> Exception:
    return refuse(400, {"title": title, "status": 400, "detail": detail})
