"""A Mixpanel project: `/engage`, `/groups`, `/import` and `/track`."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from personas_dagster.simulators.base import (
    Event,
    Request,
    Simulator,
    answer,
    read_json,
    read_query,
    refuse,
    route,
)
from personas_dagster.simulators.faults import Answer, Seen

_ROWS = 2_000
_PLACEHOLDERS = {"", "0", "null", "nil", "none", "undefined", "unknown", "anonymous", "n/a"}


class Mixpanel(Simulator):
    """A strict import takes the good events and names the bad ones, with 400."""

    type = "mixpanel"
    largest_body = 10_000_000
    bad = {"user_id": "undefined", "email": "ann@example.com"}
    routes = (
        route("POST", "/engage", "engage"),
        route("POST", "/groups", "group"),
        route("POST", "/import", "take"),
        route("POST", "/track", "track"),
    )

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.aliases: dict[str, str] = {}

    def settings(self, url: str) -> dict[str, Any]:
        return {"base_url": url, "token": self.key}

    def is_authorized(self, seen: Seen) -> bool:
        token = b64encode(f"{self.key}:".encode()).decode()
        return seen.headers.get("authorization") == f"Basic {token}"

    def unauthorized(self) -> Answer:
        return answer(401, {"error": "Invalid credentials", "status": 0})

    def throttled(self) -> Answer:
        return answer(429, {"code": 429, "error": "exceeded rate limit", "status": "Too Many"})

    def engage(self, request: Request) -> Answer:
        rows = self._rows(request)
        for row in rows:
            if row.get("$token") != self.key or str(row["$distinct_id"]) in _PLACEHOLDERS:
                raise refuse(400, {"error": "$distinct_id, invalid", "status": 0})
        for row in rows:
            who = self._canonical(row["$distinct_id"])
            if "$delete" in row:
                self.people.pop(who, None)  # events stay
            else:
                _apply(self.person(who), row)
        return answer(200, {"error": None, "status": 1})

    def group(self, request: Request) -> Answer:
        for row in self._rows(request):
            _apply(self.groups.setdefault(row["$group_id"], {}), row)
        return answer(200, {"error": None, "status": 1})

    def take(self, request: Request) -> Answer:
        if read_query(request).get("strict") != "1":
            raise refuse(400, {"error": "this simulator wants strict=1", "status": 0})
        failed = []
        rows = self._rows(request)
        for index, row in enumerate(rows):
            has = row["properties"]
            if row["event"] == "$merge":
                into, alias = has["$distinct_ids"][1], has["$distinct_ids"][0]
                self.aliases[alias] = into
            elif str(has.get("distinct_id", "")) in _PLACEHOLDERS:
                failed.append({
                    "index": index, "insert_id": has.get("$insert_id"),
                    "field": "properties.distinct_id", "message": "invalid placeholder value",
                })  # fmt: skip
            else:
                who = self._canonical(has["distinct_id"])
                self.happen(Event(who, row["event"], has, has["$insert_id"]))
        said = {"num_records_imported": len(rows) - len(failed)}
        if failed:
            wrong = {"error": "some data points failed validation", "failed_records": failed}
            return answer(400, {"code": 400, "status": "Bad Request", **wrong, **said})
        return answer(200, {"code": 200, "status": "OK", **said})

    def track(self, request: Request) -> Answer:
        for row in self._rows(request):
            has = row["properties"]
            if has.get("token") != self.key:
                raise refuse(400, {"error": "token, missing or empty", "status": 0})
            if row["event"] == "$create_alias":
                self.aliases[has["alias"]] = has["distinct_id"]
        return answer(200, {"error": None, "status": 1})

    def _rows(self, request: Request) -> list[dict[str, Any]]:
        rows = read_json(request)
        if not isinstance(rows, list) or not rows or len(rows) > _ROWS:
            raise refuse(413, {"error": f"expected 1 to {_ROWS} records", "status": 0})
        request.rows = len(rows)
        return rows

    def _canonical(self, who: str) -> str:
        return self.aliases.get(who, who)


def _apply(has: dict[str, Any], row: dict[str, Any]) -> None:
    has.update(row.get("$set", {}))
    for key in row.get("$unset", []):
        has.pop(key, None)
