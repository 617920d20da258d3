"""Messages to profile updates, group updates and events. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from personas_dagster.activation.destination import Message
from personas_dagster.destinations.mixpanel.settings import MixpanelSettings
from personas_dagster.destinations.reading import attributes_of, milliseconds_of, properties_of
from personas_dagster.destinations.tool import Call, Person

# what the platform calls it -> the property that Mixpanel knows
_RESERVED = {
    "email": "$email",
    "phone": "$phone",
    "name": "$name",
    "first_name": "$first_name",
    "last_name": "$last_name",
    "avatar": "$avatar",
}


def calls(batch: Sequence[Message], settings: MixpanelSettings) -> list[Call]:
    """At most one request of each kind; aliases before what is said about the people."""
    rows: dict[str, list[int]] = {"alias": [], "identify": [], "group": [], "track": []}
    for row, message in enumerate(batch):
        rows[message.form].append(row)
    found = []
    strict = {"strict": "1", **({"project_id": settings.project_id} if settings.project_id else {})}
    for form, some in rows.items():
        theirs = tuple(some)
        messages = [batch[row] for row in some]
        if not messages:
            continue
        if form == "alias" and settings.alias_by == "create_alias":
            body = [_create_alias(message) for message in messages]
            call = Call("POST", "/track", body, theirs, params={"verbose": "1"},
                        key_at=("properties", "token"))  # fmt: skip
        elif form == "alias":
            body = [_merge(message) for message in messages]
            call = Call("POST", "/import", body, theirs, params=strict)
        elif form == "identify":
            body = [_profile(message) for message in messages]
            call = Call("POST", "/engage", body, theirs, params={"verbose": "1"},
                        key_at=("$token",))  # fmt: skip
        elif form == "group":
            body = [_group(message, settings.group_key) for message in messages]
            call = Call("POST", "/groups", body, theirs, params={"verbose": "1"},
                        key_at=("$token",))  # fmt: skip
        else:
            body = [_event(message) for message in messages]
            call = Call("POST", "/import", body, theirs, params=strict)
        found.append(call)
    return found


def deletion(people: Sequence[Person]) -> Call:
    """Profiles go; their events stay, but for Mixpanel's own deletion requests."""
    body = [{"$distinct_id": _id_of(person), "$delete": "null"} for person in people]
    rows = tuple(range(len(people)))
    return Call("POST", "/engage", body, rows, params={"verbose": "1"}, key_at=("$token",))


def insert_id(message: Message) -> str:
    """At most 36 letters and digits, the same for the same message: doubles are dropped by it."""
    return hashlib.sha256(message.message_id.encode()).hexdigest()[:32]


def _distinct_id(message: Message) -> str:
    return _id_of(message.recipient)


def _id_of(person: Person) -> str:
    return person.get("user_id") or person["anonymous_id"]


def _profile(message: Message) -> dict[str, Any]:
    """`$ip: 0`: the address that this comes from says nothing about the person."""
    contact = {kind: v for kind, v in message.recipient.items() if kind in ("email", "phone")}
    return {
        "$distinct_id": _distinct_id(message),
        "$ip": "0",
        **_changes({**attributes_of(message), **contact}),
    }


def _changes(values: dict[str, Any]) -> dict[str, Any]:
    named = {_RESERVED.get(key, key): value for key, value in values.items()}
    known = {key: value for key, value in named.items() if value is not None}
    gone = [key for key, value in named.items() if value is None]
    # an update holds one kind of change only; a row that unsets drops the rest
    return {"$unset": gone} if gone else {"$set": known}


def _group(message: Message, group_key: str) -> dict[str, Any]:
    who = {"$group_key": group_key, "$group_id": message.body["groupId"]}
    return {**who, **_changes(attributes_of(message))}


def _event(message: Message) -> dict[str, Any]:
    return {
        "event": message.body["event"],
        "properties": {
            **properties_of(message),
            "time": milliseconds_of(message),
            "distinct_id": _distinct_id(message),
            "$insert_id": insert_id(message),
        },
    }


def _create_alias(message: Message) -> dict[str, Any]:
    return {
        "event": "$create_alias",
        "properties": {
            "distinct_id": message.body["userId"],
            "alias": message.body["previousId"],
        },
    }


def _merge(message: Message) -> dict[str, Any]:
    both = [message.body["previousId"], message.body["userId"]]
    return {
        "event": "$merge",
        "properties": {
            "$distinct_ids": both,
            "time": milliseconds_of(message),
            "$insert_id": insert_id(message),
        },
    }
