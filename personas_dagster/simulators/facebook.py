"""A Facebook ad account: custom audiences of customer files, whose people it knows as hashes."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from typing import Any

from personas_dagster.simulators.base import (
    Request,
    Simulator,
    answer,
    read_json,
    read_query,
    refuse,
    route,
)
from personas_dagster.simulators.faults import Answer, Seen

_ROWS = 10_000
_ACCOUNT = "act_1001"
_KEYS = ("EMAIL", "PHONE", "MADID", "EXTERN_ID")
_PLAIN = frozenset({"EXTERN_ID", "MADID"})
_HASH = re.compile(r"[0-9a-f]{64}")


class FacebookCustomAudiences(Simulator):
    """Rows are counted; those that are no hash are given as samples. Errors are 400s by code."""

    type = "facebook_custom_audiences"
    retry_after = 120.0
    looks_up = True
    bad = {"email": "not-an-address"}
    routes = (
        route("GET", f"/{{version}}/{_ACCOUNT}/customaudiences", "show_lists"),
        route("POST", f"/{{version}}/{_ACCOUNT}/customaudiences", "make_list"),
        route("GET", "/{version}/{number}", "show_list"),
        route("POST", "/{version}/{number}/users", "add"),
        route("DELETE", "/{version}/{number}/users", "remove"),
    )

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.names: dict[str, str] = {}  # id -> name
        self.restricted: set[str] = set()  # ids of audiences that may not be changed
        self.rows: dict[str, list[dict[str, Any]]] = {}  # list -> rows as they came

    def settings(self, url: str) -> dict[str, Any]:
        return {
            "base_url": url,
            "access_token": self.key,
            "app_secret": f"{self.key}-app",
            "ad_account_id": _ACCOUNT,
        }

    def is_authorized(self, seen: Seen) -> bool:
        proof = hmac.new(f"{self.key}-app".encode(), self.key.encode(), hashlib.sha256).hexdigest()
        proved = f"appsecret_proof={proof}" in seen.query.split("&")
        return proved and seen.headers.get("authorization") == f"Bearer {self.key}"

    def unauthorized(self) -> Answer:
        return _error(190, "Invalid OAuth access token.", type="OAuthException")

    def throttled(self) -> Answer:
        usage = {"type": "custom_audience", "call_count": 100, "estimated_time_to_regain_access": 2}
        headers = {"X-Business-Use-Case-Usage": json.dumps({"17841": [usage]})}
        return _error(80003, "There have been too many calls to this ad account.", headers=headers)

    def failed(self, status: int) -> Answer:
        return _error(2, "Service temporarily unavailable", status=status, is_transient=True)

    def missing(self, seen: Seen) -> Answer:
        return _error(2500, f"Unknown path components: {seen.path}")

    def show_lists(self, request: Request, version: str) -> Answer:
        after = read_query(request).get("after", "")
        numbers = sorted(number for number in self.names if number > after)
        page = [{"id": n, "name": self.names[n], "subtype": "CUSTOM"} for n in numbers[:2]]
        paging: dict[str, Any] = {"cursors": {"after": page[-1]["id"]}} if page else {}
        if len(numbers) > len(page):
            paging["next"] = "https://graph.facebook.com/next"
        return answer(200, {"data": page, "paging": paging})

    def make_list(self, request: Request, version: str) -> Answer:
        body = read_json(request)
        if body.get("subtype") != "CUSTOM" or not body.get("customer_file_source"):
            raise _no(100, "Invalid parameter")
        number = str(23840000000000000 + len(self.names))
        self.names[number] = body["name"]
        self.lists.setdefault(body["name"], set())
        return answer(200, {"id": number})

    def show_list(self, request: Request, version: str, number: str) -> Answer:
        name = self._name(number)
        code = 471 if number in self.restricted else 200
        status = {"code": code, "description": "Normal" if code == 200 else "Flagged"}
        return answer(200, {"id": number, "name": name, "operation_status": status})

    def add(self, request: Request, version: str, number: str) -> Answer:
        return self._change(request, number, adds=True)

    def remove(self, request: Request, version: str, number: str) -> Answer:
        return self._change(request, number, adds=False)

    def _change(self, request: Request, number: str, *, adds: bool) -> Answer:
        name = self._name(number)
        if number in self.restricted:
            raise _no(100, "Invalid parameter", error_subcode=1713230)
        payload = read_json(request).get("payload", {})
        schema, data = payload.get("schema"), payload.get("data")
        if not schema or not isinstance(data, list) or not 0 < len(data) <= _ROWS:
            raise _no(100, f"expected a schema and 1 to {_ROWS} rows")
        if any(len(row) != len(schema) for row in data):
            raise _no(100, "a row has not as many values as the schema has columns")
        request.rows = len(data)
        samples = []
        for row in data:
            found = dict(zip(schema, row, strict=True))
            key = next((found[one] for one in _KEYS if found.get(one)), None)
            if key is None or not all(_is_readable(c, v) for c, v in found.items()):
                samples.append(row)
            elif adds:
                self.lists[name].add(key)
                self.rows.setdefault(name, []).append(found)
            else:
                self.lists[name].discard(key)
        said = {
            "audience_id": number,
            "session_id": str(len(self.requests)),
            "num_received": len(data),
            "num_invalid_entries": len(samples),
            "invalid_entry_samples": samples[:10],
        }
        return answer(200, said)

    def _name(self, number: str) -> str:
        if number not in self.names:
            raise _no(100, f"Object with ID '{number}' does not exist", error_subcode=33)
        return self.names[number]


def _is_readable(column: str, value: Any) -> bool:
    """Everything is hashed, but for ids of others, device ids and the options."""
    if column in _PLAIN or column.startswith("DATA_PROCESSING") or value == "":
        return True
    return isinstance(value, str) and _HASH.fullmatch(value) is not None


def _error(
    code: int,
    message: str,
    *,
    status: int = 400,
    headers: dict[str, str] | None = None,
    **more: Any,
) -> Answer:
    return answer(status, {"error": {"message": message, "code": code, **more}}, headers)


def _no(code: int, message: str, **more: Any) -> Exception:
    return refuse(400, {"error": {"message": message, "code": code, **more}})
