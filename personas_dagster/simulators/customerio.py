"""A Customer.io workspace: the Track API's `/api/v2/batch`."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import msgspec

from personas_dagster.simulators.base import (
    Event,
    Request,
    Simulator,
    answer,
    is_address,
    read_json,
    refuse,
    route,
)
from personas_dagster.simulators.faults import Answer, Seen

_LARGEST_ITEM = 32_000


class CustomerIo(Simulator):
    """Operations are judged one by one; a batch with bad ones is answered by 207."""

    type = "customerio"
    largest_body = 500_000
    routes = (route("POST", "/api/v2/batch", "batch"),)

    def settings(self, url: str) -> dict[str, Any]:
        return {"base_url": url, "site_id": f"site-{self.key}", "api_key": self.key}

    def is_authorized(self, seen: Seen) -> bool:
        token = b64encode(f"site-{self.key}:{self.key}".encode()).decode()
        return seen.headers.get("authorization") == f"Basic {token}"

    def throttled(self) -> Answer:
        return answer(429, {"errors": [{"reason": "too_many_requests", "message": "slow down"}]})

    def batch(self, request: Request) -> Answer:
        operations = read_json(request).get("batch")
        if not isinstance(operations, list) or not operations:
            raise refuse(400, {"errors": [{"reason": "required", "field": "batch"}]})
        request.rows = len(operations)
        errors = []
        for index, one in enumerate(operations):
            wrong = _wrong(one)
            if wrong:
                errors.append({"batch_index": index, **wrong})
            else:
                self._keep(one)
        return answer(207, {"errors": errors}) if errors else answer(200, {})

    def _keep(self, one: dict[str, Any]) -> None:
        if one["type"] == "object":
            key = one["identifiers"]["object_id"]
            self.groups.setdefault(key, {}).update(one["attributes"])
            return
        who = str(one["identifiers"].get("id") or one["identifiers"]["email"])
        if one["action"] == "event":
            self.happen(Event(who, one["name"], one["attributes"], one.get("id")))
        elif one["action"] == "delete":
            self.forget(who)
        else:
            has = self.person(who)
            has.update(one["attributes"])
            for key in [key for key, value in has.items() if value is None]:
                del has[key]


def _wrong(one: dict[str, Any]) -> dict[str, str] | None:
    identifiers = one.get("identifiers") or {}
    if not identifiers:
        return {"reason": "required", "field": "identifiers", "message": "no identifier"}
    for part in (identifiers, one.get("attributes") or {}):
        if "email" in part and not is_address(part["email"]):
            return {"reason": "invalid", "field": "email", "message": "not an e-mail address"}
    if one.get("action") == "event" and not one.get("name"):
        return {"reason": "required", "field": "name", "message": "event without a name"}
    if one.get("action") not in ("identify", "event", "delete"):
        return {"reason": "invalid", "field": "action", "message": "no such action"}
    if len(msgspec.json.encode(one)) > _LARGEST_ITEM:
        return {"reason": "invalid", "field": "batch", "message": "item over 32 kB"}
    return None
