"""A webhook's other end."""

from __future__ import annotations

from typing import Any

from personas_dagster.simulators.base import (
    Event,
    Request,
    Simulator,
    answer,
    is_address,
    read_json,
    route,
)
from personas_dagster.simulators.faults import Answer, Seen


class Webhook(Simulator):
    """Takes each message, or batch of them, that knows the secret path."""

    type = "webhook"
    retry_after = 7.0
    defers_rows = True
    routes = (route("POST", "/hook/{key}", "take"),)

    def settings(self, url: str) -> dict[str, Any]:
        return {
            "url": f"{url}/hook/{self.key}",
            "batch_size": 50,
            "secret": f"hmac-{self.key}",
            "headers": {"Authorization": f"Bearer {self.key}"},
        }

    def is_authorized(self, seen: Seen) -> bool:
        return seen.path == f"/hook/{self.key}"

    def take(self, request: Request, key: str) -> Answer:
        found = read_json(request)
        messages = found["batch"] if "batch" in found else [found]
        request.rows = len(messages)
        errors = []
        for index, message in enumerate(messages):
            email = _traits(message).get("email")
            if email is not None and not is_address(email):
                errors.append({"index": index, "message": f"no address: {email}"})
            elif self.faults.row():
                errors.append({"index": index, "message": "busy", "retry": True})
            else:
                keep(self, message)
        return answer(200, {"errors": errors} if errors else {})


def keep(account: Simulator, message: dict[str, Any]) -> None:
    """Keep one of the platform's messages, as whoever gets them raw would."""
    traits = _traits(message)
    who = str(
        message.get("userId") or traits.get("email") or message.get("anonymousId") or "nobody"
    )
    if message["type"] == "identify":
        account.person(who).update(traits)
    elif message["type"] == "delete":
        account.forget(who)
    elif message["type"] == "group":
        account.groups.setdefault(message["groupId"], {}).update(traits)
    elif message["type"] == "track":
        event = Event(who, message["event"], message["properties"], message["messageId"])
        account.happen(event)


def _traits(message: dict[str, Any]) -> dict[str, Any]:
    own = message.get("traits")
    found: dict[str, Any] = own if own is not None else message["context"].get("traits", {})
    return found
