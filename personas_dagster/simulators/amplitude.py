"""An Amplitude project: `/identify`, `/groupidentify` and `/batch`."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec

from personas_dagster.simulators.base import (
    Event,
    Request,
    Simulator,
    answer,
    read_form,
    read_json,
    refuse,
    route,
)
from personas_dagster.simulators.faults import Answer, Seen

_ROWS = 2_000
_SHORTEST, _DELETIONS = 5, 100


class Amplitude(Simulator):
    """The key is in the body. A bad event keeps all of its request out, and is named."""

    type = "amplitude"
    retry_after = 7.0  # not said by the tool: the pause that its settings ask for
    largest_body = 1_000_000
    bad = {"user_id": "u1", "email": "ann@example.com"}
    routes = (
        route("POST", "/identify", "identify"),
        route("POST", "/groupidentify", "group"),
        route("POST", "/batch", "batch"),
        route("POST", "/api/2/deletions/users", "delete"),
    )

    def settings(self, url: str) -> dict[str, Any]:
        keys = {"api_key": self.key, "secret_key": f"secret-{self.key}"}
        return {"base_url": url, **keys, "throttle_pause": self.retry_after}

    def is_authorized(self, seen: Seen) -> bool:
        if seen.path.startswith("/api/2/"):
            token = b64encode(f"{self.key}:secret-{self.key}".encode()).decode()
            return seen.headers.get("authorization") == f"Basic {token}"
        return self.key.encode() in seen.body

    def unauthorized(self) -> Answer:
        return answer(400, {"code": 400, "error": "Invalid API key"})

    def throttled(self) -> Answer:
        return answer(429, {"code": 429, "error": "Too many requests", "eps_threshold": 1000})

    def identify(self, request: Request) -> Answer:
        form = read_form(request)
        rows = self._identifications(request, form)
        shortest = msgspec.json.decode(form.get("options", "{}")).get("min_id_length", _SHORTEST)
        for row in rows:
            if len(row.get("user_id", "x" * shortest)) < shortest:
                return Answer(400, b"id length too short", {"Content-Type": "text/plain"})
        for row in rows:
            has = self.person(_who(row))
            _apply(has, row.get("user_properties", {}))
            if "groups" in row:
                has["groups"] = row["groups"]
        return Answer(200, b"success", {"Content-Type": "text/plain"})

    def group(self, request: Request) -> Answer:
        for row in self._identifications(request, read_form(request)):
            _apply(self.groups.setdefault(row["group_value"], {}), row["group_properties"])
        return Answer(200, b"success", {"Content-Type": "text/plain"})

    def batch(self, request: Request) -> Answer:
        body = read_json(request)
        rows = body.get("events")
        if not isinstance(rows, list) or not rows or len(rows) > _ROWS:
            raise refuse(413, {"code": 413, "error": "Payload too large"})
        request.rows = len(rows)
        shortest = body.get("options", {}).get("min_id_length", _SHORTEST)
        short = [n for n, e in enumerate(rows) if len(e.get("user_id", "x" * shortest)) < shortest]
        missing = [n for n, e in enumerate(rows) if not e.get("event_type")]
        if short or missing:
            raise refuse(400, {
                "code": 400, "error": "Request missing required field",
                "events_with_invalid_id_lengths": {"user_id": short} if short else {},
                "events_with_missing_fields": {"event_type": missing} if missing else {},
            })  # fmt: skip
        for row in rows:
            has = row["event_properties"]
            self.happen(Event(_who(row), row["event_type"], has, row["insert_id"]))
        return answer(200, {"code": 200, "events_ingested": len(rows)})

    def delete(self, request: Request) -> Answer:
        body = read_json(request)
        ids = body.get("user_ids", [])
        request.rows = len(ids)
        if not ids or len(ids) > _DELETIONS or not body.get("requester"):
            raise refuse(400, {"error": f"expected 1 to {_DELETIONS} users and a requester"})
        if body.get("ignore_invalid_id") != "True" and set(ids) - self.people.keys():
            raise refuse(400, {"error": "invalid user ids"})
        for who in ids:
            self.forget(who)
        return answer(200, [{"day": "2026-11-25", "status": "staging"}])

    def _identifications(self, request: Request, form: dict[str, str]) -> list[dict[str, Any]]:
        try:
            rows: list[dict[str, Any]] = msgspec.json.decode(form.get("identification", ""))
        except msgspec.DecodeError:
            raise refuse(400, {"error": "missing identification"}) from None
        request.rows = len(rows)
        return rows


def _who(row: dict[str, Any]) -> str:
    return str(row.get("user_id") or row["device_id"])


def _apply(has: dict[str, Any], changes: dict[str, Any]) -> None:
    has.update(changes.get("$set", {}))
    for key in changes.get("$unset", {}):
        has.pop(key, None)
