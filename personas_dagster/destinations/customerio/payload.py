"""Messages to the operations of a Track API batch. Pure."""

from __future__ import annotations

import hashlib
from typing import Any

from personas_dagster.activation.destination import Message
from personas_dagster.destinations.reading import (
    attributes_of,
    properties_of,
    seconds_of,
    traits_of,
)
from personas_dagster.destinations.tool import Person

_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def operation(message: Message, *, object_type: str, event_ids: bool) -> dict[str, Any]:
    """One message as one operation."""
    if message.form == "group":
        return _account(message, object_type)
    who = {"type": "person", "identifiers": _identifiers(message.recipient)}
    if message.form == "track":
        return {
            **who,
            "action": "event",
            "name": message.body["event"],
            **({"id": ulid(message.message_id)} if event_ids else {}),
            "timestamp": seconds_of(message),
            "attributes": properties_of(message),
        }
    return {**who, "action": "identify", "attributes": traits_of(message)}


def deletion(person: Person) -> dict[str, Any]:
    return {"type": "person", "action": "delete", "identifiers": _identifiers(person)}


def _identifiers(person: Person) -> dict[str, str]:
    if "user_id" in person:
        return {"id": person["user_id"]}
    return {"email": person["email"]}


def _account(message: Message, object_type: str) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": "object",
        "action": "identify",
        "identifiers": {"object_type_id": object_type, "object_id": message.body["groupId"]},
        "attributes": attributes_of(message),
    }
    if "userId" in message.body:
        found["cio_relationships"] = [{"identifiers": {"id": message.body["userId"]}}]
    return found


def ulid(message_id: str) -> str:
    """An id of the form that Customer.io drops doubles by, the same for the same message.

    >>> ulid("m1-track")
    '76NRZ5YS2Z8118R24S2X1AE93D'
    """
    number = int.from_bytes(hashlib.sha256(message_id.encode()).digest()[:16])
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))
