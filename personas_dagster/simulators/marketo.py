"""A Marketo instance: leads, companies, custom activities and static lists."""

from __future__ import annotations

from typing import Any

import msgspec

from personas_dagster.simulators.base import (
    Event,
    Refused,
    Request,
    Simulator,
    answer,
    is_address,
    read_form,
    read_json,
    read_query,
    route,
)
from personas_dagster.simulators.faults import Answer, Seen

_ROWS, _URI = 300, 8_000
_TOKEN = "/identity/oauth/token"
_LIST, _FOLDER = 1021, 13


class Marketo(Simulator):
    """Everything but a wrong key, and what is too large, is answered by 200.

    Fields must exist. `quota` is how many calls are left for today; None leaves them uncounted.
    """

    type = "marketo"
    retry_after = 20.0  # no time is named; a client waits out the window
    largest_body = 1_000_000
    looks_up = True
    bad = {"email": "not-an-address"}
    routes = (
        route("GET", "/rest/v1/leads/describe.json", "describe_leads"),
        route("GET", "/rest/v1/companies/describe.json", "describe_companies"),
        route("GET", "/rest/v1/activities/external/type/{name}/describe.json", "describe_type"),
        route("POST", "/rest/v1/leads/schema/fields.json", "make_fields"),
        route("POST", "/rest/v1/leads.json", "sync_leads"),
        route("POST", "/rest/v1/leads/delete.json", "delete_leads"),
        route("POST", "/rest/v1/companies.json", "sync_companies"),
        route("POST", "/rest/v1/activities/external.json", "act"),
        route("GET", "/rest/asset/v1/folder/byName.json", "find_folder"),
        route("GET", "/rest/asset/v1/staticList/byName.json", "find_list"),
        route("GET", "/rest/asset/v1/staticList/{number}.json", "show_list"),
        route("POST", "/rest/asset/v1/staticLists.json", "make_list"),
        route("POST", "/rest/v1/lists/{number}/leads.json", "add"),
        route("DELETE", "/rest/v1/lists/{number}/leads.json", "remove"),
    )

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.fields = {"email": "email", "phone": "phone", "firstName": "string"}
        self.company_fields = {"company", "logins_30_days"}
        self.types = {"audienceChange": ("key", "value")}
        self.folders = {"Personas": {"id": _FOLDER, "type": "FOLDER"}}
        self.names: dict[str, str] = {}  # list id -> name
        self.leads: dict[int, str] = {}  # lead id -> its key in `people`
        self.quota: int | None = None
        self.token: str | None = None
        self._expired: set[str] = set()
        self._made = 0

    def settings(self, url: str) -> dict[str, Any]:
        return {
            **_account(self, url),
            "create_fields": True,
            "activity_type": "audienceChange",
            "companies": True,
        }

    # signing in

    def is_authorized(self, seen: Seen) -> bool:
        return True  # `handle` knows three ways of not being

    def unauthorized(self) -> Answer:
        return _no("603", "Access denied")

    def throttled(self) -> Answer:
        return _no("606", "Max rate limit '100' exceeded with in '20' secs")

    def missing(self, seen: Seen) -> Answer:
        return _no("610", "Requested resource not found")

    def expire(self) -> None:
        """The token's hour is over."""
        if self.token is not None:
            self._expired.add(self.token)
        self.token = None

    def handle(self, request: Request) -> Answer:
        seen = request.seen
        if seen.path == _TOKEN:
            return self._sign_in(request)
        token = seen.headers.get("authorization", "").removeprefix("Bearer ")
        if token in self._expired:
            return _no("602", "Access token expired")
        if token != self.token or "access_token" in seen.query:
            return _no("601", "Access token invalid")
        if len(seen.target) > _URI:
            return answer(414, {"message": "Request-URI Too Long"})
        if self.quota is not None:
            if self.quota <= 0:
                return _no("607", "Daily quota reached")
            self.quota -= 1
        return super().handle(request)

    def _sign_in(self, request: Request) -> Answer:
        query = read_query(request)
        wanted = {"client_id": f"id-{self.key}", "client_secret": self.key}
        if {name: query.get(name) for name in wanted} != wanted:
            return answer(401, {"error": "invalid_client", "error_description": "No such client"})
        if self.token is None:
            self._made += 1
            self.token = f"{self.key}-{self._made}:int"
        said: dict[str, Any] = {"access_token": self.token, "expires_in": 3599}
        return answer(200, {**said, "token_type": "bearer", "scope": "api@shop.example"})

    # leads, companies and activities

    def describe_leads(self, request: Request) -> Answer:
        return _yes(
            {"displayName": name, "dataType": kind, "rest": {"name": name, "readOnly": False}}
            for name, kind in self.fields.items()
        )

    def describe_companies(self, request: Request) -> Answer:
        names = {**dict.fromkeys(sorted(self.company_fields), True), "externalCompanyId": False}
        known = [{"name": name, "updateable": is_free} for name, is_free in names.items()]
        return _yes([{"name": "Company", "fields": known}])

    def describe_type(self, request: Request, name: str) -> Answer:
        if name not in self.types:
            return _no("1013", "Object not found")
        attributes = [{"apiName": one} for one in self.types[name]]
        return _yes([{"id": 100_001, "apiName": name, "attributes": attributes}])

    def make_fields(self, request: Request) -> Answer:
        rows = self._input(request)
        self.fields.update((row["name"], row["dataType"]) for row in rows)
        return _yes({"name": row["name"], "status": "created"} for row in rows)

    def sync_leads(self, request: Request) -> Answer:
        if read_query(request).get("_method") == "GET":
            return self._find_leads(request)
        body, rows = read_json(request), self._input(request)
        lookup = body.get("lookupField", "email")
        if body.get("action", "createOrUpdate") != "createOrUpdate":
            return _no("1003", "this simulator knows createOrUpdate")
        unknown = {name for row in rows for name in row} - self.fields.keys()
        if unknown or lookup not in self.fields:
            return _no("1006", f"Field '{', '.join(sorted(unknown | {lookup}))}' not found")
        return _yes(self._sync_lead(row, lookup) for row in rows)

    def _sync_lead(self, row: dict[str, Any], lookup: str) -> dict[str, Any]:
        if lookup not in row:
            return _skipped("1002", f"Missing value for the required parameter '{lookup}'")
        if "email" in row and not is_address(row["email"]):
            said = f"Invalid value '{row['email']}'. Required of type 'email'"
            return _skipped("1001", said)
        for name, value in row.items():
            if self.fields[name] == "boolean" and not isinstance(value, bool | None):
                return _skipped("1001", f"Invalid value '{value}'. Required of type 'boolean'")
        who = str(row[lookup]).lower()
        is_new = who not in self.people
        if is_new:
            self.leads[max(self.leads, default=499) + 1] = who
        self.person(who).update(row)
        number = next(number for number, one in self.leads.items() if one == who)
        return {"id": number, "status": "created" if is_new else "updated"}

    def _find_leads(self, request: Request) -> Answer:
        form = read_form(request)
        wanted = form["filterValues"].lower().split(",")
        if len(wanted) > _ROWS:
            return _no("1003", "Too many values for filter")
        size = min(int(form.get("batchSize", _ROWS)), _ROWS)
        start = int(form.get("nextPageToken", 0))
        field = form["filterType"]
        found = [
            {"id": number, field: self.people[who].get(field)}
            for number, who in self.leads.items()
            if str(self.people[who].get(field)).lower() in wanted
        ]
        more = {"nextPageToken": str(start + size)} if len(found) > start + size else {}
        return answer(200, {"success": True, "result": found[start : start + size], **more})

    def delete_leads(self, request: Request) -> Answer:
        result: list[dict[str, Any]] = []
        for row in self._input(request):
            who = self.leads.pop(row["id"], None)
            if who is None:
                result.append({"id": row["id"], **_skipped("1004", "Lead not found")})
            else:
                self.forget(who)
                result.append({"id": row["id"], "status": "deleted"})
        return _yes(result)

    def sync_companies(self, request: Request) -> Answer:
        rows = self._input(request)
        keys = [row["externalCompanyId"] for row in rows]
        if len(set(keys)) < len(keys):
            return _no("1036", "Duplicate object found in input")
        unknown = {n for row in rows for n in row} - self.company_fields - {"externalCompanyId"}
        if unknown:
            return _no("1006", f"Field '{', '.join(sorted(unknown))}' not found")
        for row in rows:
            self.groups.setdefault(row["externalCompanyId"], {}).update(row)
        return _yes({"seq": seq, "status": "updated"} for seq, _ in enumerate(rows))

    def act(self, request: Request) -> Answer:
        return _yes(self._act(row) for row in self._input(request))

    def _act(self, row: dict[str, Any]) -> dict[str, Any]:
        if row["activityTypeId"] != 100_001:
            return _skipped("1013", "Object not found", under="errors")
        if row["leadId"] not in self.leads:
            return _skipped("1004", "Lead not found", under="errors")
        about = {one["apiName"]: one["value"] for one in row["attributes"]}
        self.happen(Event(self.leads[row["leadId"]], row["primaryAttributeValue"], about))
        return {"id": 50, "marketoGUID": "50", "status": "added"}

    # lists

    def find_folder(self, request: Request) -> Answer:
        found = self.folders.get(read_query(request)["name"])
        return _yes([{"folderId": found}]) if found else _nothing()

    def find_list(self, request: Request) -> Answer:
        name = read_query(request)["name"]
        found = [{"id": int(number)} for number, known in self.names.items() if known == name]
        return _yes(found) if found else _nothing()

    def show_list(self, request: Request, number: str) -> Answer:
        known = self.names.get(number)
        return _yes([{"id": int(number), "name": known}]) if known else _nothing()

    def make_list(self, request: Request) -> Answer:
        form = read_form(request)
        folder = msgspec.json.decode(form["folder"])
        if folder != {"id": _FOLDER, "type": "Folder"}:
            return _no("710", "Parent Folder Not Found")
        if form["name"] in self.lists:
            return _no("709", "Static list name is already in use")
        number = _LIST + len(self.names)
        self.names[str(number)] = form["name"]
        self.lists[form["name"]] = set()
        return _yes([{"id": number, "name": form["name"]}])

    def add(self, request: Request, number: str) -> Answer:
        ids = [int(row["id"]) for row in self._input(request)]
        return self._change(request, number, ids, "added")

    def remove(self, request: Request, number: str) -> Answer:
        ids = [int(one) for one in read_query(request)["id"].split(",")]
        return self._change(request, number, ids, "removed")

    def _change(self, request: Request, number: str, ids: list[int], done: str) -> Answer:
        if number not in self.names:
            return _no("1013", "Object not found")
        if len(ids) > _ROWS:
            return _no("1003", f"more than {_ROWS} ids")
        request.rows = len(ids)
        members = self.lists[self.names[number]]
        result = []
        for one in ids:
            who = self.leads.get(one)
            if who is None:
                result.append({"id": one, **_skipped("1004", "Lead not found")})
            elif done == "removed" and who not in members:
                result.append({"id": one, **_skipped("1015", "Lead not in list")})
            else:
                (members.add if done == "added" else members.discard)(who)
                result.append({"id": one, "status": done})
        return _yes(result)

    def _input(self, request: Request) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = read_json(request).get("input") or []
        if not rows or len(rows) > _ROWS:
            raise Refused(_no("1003", f"expected 1 to {_ROWS} records"))
        request.rows = len(rows)
        return rows


class MarketoStaticLists(Marketo):
    """The same instance, seen by who wants its lists only."""

    type = "marketo_static_lists"

    def settings(self, url: str) -> dict[str, Any]:
        return {**_account(self, url), "folder": "Personas"}


def _account(instance: Marketo, url: str) -> dict[str, Any]:
    return {
        "base_url": url,
        "munchkin_id": "123-ABC-456",
        "client_id": f"id-{instance.key}",
        "client_secret": instance.key,
    }


def _yes(result: Any) -> Answer:
    return answer(200, {"requestId": "e42b#14272d07d78", "success": True, "result": list(result)})


def _nothing() -> Answer:
    warnings = ["No assets found for the given search criteria."]
    return answer(200, {"success": True, "errors": [], "warnings": warnings})


def _no(code: str, message: str) -> Answer:
    errors = [{"code": code, "message": message}]
    return answer(200, {"requestId": "e42b#14272d07d78", "success": False, "errors": errors})


def _skipped(code: str, message: str, *, under: str = "reasons") -> dict[str, Any]:
    return {"status": "skipped", under: [{"code": code, "message": message}]}
