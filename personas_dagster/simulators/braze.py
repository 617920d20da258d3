"""A Braze workspace: `/users/track`."""

from __future__ import annotations

from typing import Any

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

_KEYS = ("external_id", "email", "phone")
_LIMIT, _DELETIONS = 75, 50


class Braze(Simulator):
    """Objects are judged one by one; those at fault are named in `errors`, and the rest kept."""

    type = "braze"
    retry_after = 7.0
    largest_body = 4_000_000
    routes = (
        route("POST", "/users/track", "track"),
        route("POST", "/users/delete", "delete"),
    )

    def settings(self, url: str) -> dict[str, Any]:
        return {"base_url": url, "api_key": self.key}

    def is_authorized(self, seen: Seen) -> bool:
        return seen.headers.get("authorization") == f"Bearer {self.key}"

    def unauthorized(self) -> Answer:
        return answer(401, {"message": "Invalid API Key"})

    def throttled(self) -> Answer:
        headers = {"X-RateLimit-Limit": "3000", "X-RateLimit-Remaining": "0"}
        headers["X-RateLimit-Retry-After"] = f"{self.retry_after:g}"
        return answer(429, {"message": "Rate limit exceeded"}, headers)

    def track(self, request: Request) -> Answer:
        body = read_json(request)
        found = {name: body.get(name, []) for name in ("attributes", "events", "purchases")}
        request.rows = sum(map(len, found.values()))
        if not request.rows:
            raise refuse(400, {"message": "Either attributes, events or purchases is required"})
        if any(len(some) > _LIMIT for some in found.values()):
            raise refuse(400, {"message": f"at most {_LIMIT} objects of a kind in a request"})
        errors = []
        for name, objects in found.items():
            for index, one in enumerate(objects):
                wrong = _wrong(name, one)
                if wrong:
                    errors.append({"type": wrong, "input_array": name, "index": index})
                else:
                    self._keep(name, one)
        processed = {
            f"{name}_processed": len(some) - sum(e["input_array"] == name for e in errors)
            for name, some in found.items()
            if some
        }
        said = {"message": "success", **processed, **({"errors": errors} if errors else {})}
        if len(errors) == request.rows:
            return answer(400, {"message": errors[0]["type"], "errors": errors})
        return answer(201, said)

    def delete(self, request: Request) -> Answer:
        body = read_json(request)
        if len(body) != 1 or not body.keys() <= {"external_ids", "email_addresses"}:
            raise refuse(400, {"message": "exactly one kind of identifier is required"})
        ((kind, found),) = body.items()
        request.rows = len(found)
        if not found or len(found) > _DELETIONS:
            raise refuse(400, {"message": f"at most {_DELETIONS} users in a request"})
        if kind == "email_addresses":
            if not all(one.get("prioritization") for one in found):
                raise refuse(400, {"message": "prioritization is required"})
            found = [one["email"] for one in found]
        return answer(200, {"message": "success", "deleted": sum(map(self.forget, found))})

    def _keep(self, name: str, one: dict[str, Any]) -> None:
        who = _who(one)
        if one.get("_update_existing_only") and who not in self.people:
            return
        if name == "attributes":
            has = self.person(who)
            for key, value in one.items():
                if key == "_update_existing_only":
                    continue
                if value is None:
                    has.pop(key, None)
                else:
                    has[key] = value
        elif name == "events":
            self.person(who)
            self.happen(Event(who, one["name"], one.get("properties", {})))


def _who(one: dict[str, Any]) -> str:
    return str(next(one[key] for key in _KEYS if key in one))


def _wrong(name: str, one: dict[str, Any]) -> str | None:
    if not any(one.get(key) for key in _KEYS):
        return "'external_id' or 'braze_id' or 'user_alias' or 'email' or 'phone' is required"
    if "email" in one and not is_address(one["email"]):
        return "The value provided for the 'email' field is not a valid email."
    if name == "events":
        if not isinstance(one.get("name"), str) or not one.get("time"):
            return "'name' and 'time' are required"
        if {"external_id", "email"} <= one.keys():
            return "only one identifier per event"
    return None
