"""Messages to identifications, group identifications and events. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from personas_dagster.activation.destination import Message
from personas_dagster.destinations.amplitude.settings import AmplitudeSettings
from personas_dagster.destinations.reading import (
    attributes_of,
    milliseconds_of,
    properties_of,
    traits_of,
)
from personas_dagster.destinations.tool import Call, Person

IDENTIFY, GROUP, EVENTS = "/identify", "/groupidentify", "/batch"
DELETIONS = "/api/2/deletions/users"


def calls(batch: Sequence[Message], settings: AmplitudeSettings) -> list[Call]:
    """At most one request of each kind, and for accounts one more that links their user."""
    rows = {
        form: tuple(row for row, message in enumerate(batch) if message.form == form)
        for form in ("group", "identify", "track")
    }
    length = {"min_id_length": settings.min_id_length} if settings.min_id_length else {}
    found = []
    if rows["group"]:
        groups = [_group(batch[row], settings.group_type) for row in rows["group"]]
        found.append(_form(GROUP, groups, rows["group"], {}))
        linked = tuple(row for row in rows["group"] if "userId" in batch[row].body)
        if linked:
            links = [_link(batch[row], settings.group_type) for row in linked]
            found.append(_form(IDENTIFY, links, linked, length))
    if rows["identify"]:
        people = [_person(batch[row]) for row in rows["identify"]]
        found.append(_form(IDENTIFY, people, rows["identify"], length))
    if rows["track"]:
        body: dict[str, Any] = {"events": [_event(batch[row]) for row in rows["track"]]}
        if length:
            body["options"] = length
        found.append(Call("POST", EVENTS, body, rows["track"], key_at=("api_key",)))
    return found


def deletion(people: Sequence[Person], host: str) -> Call:
    """Users who are not there are passed over; other projects of the organisation keep theirs."""
    body = {
        "user_ids": [person["user_id"] for person in people],
        "requester": "personas_dagster",
        "ignore_invalid_id": "True",
        "delete_from_org": "False",
    }
    return Call("POST", DELETIONS, body, tuple(range(len(people))), host=host)


def _form(path: str, rows: list[dict[str, Any]], at: tuple[int, ...], options: Any) -> Call:
    form = {"identification": msgspec.json.encode(rows).decode()}
    if options:
        form["options"] = msgspec.json.encode(options).decode()
    return Call("POST", path, rows=at, form=form, key_at=("api_key",))


def _who(message: Message) -> dict[str, str]:
    if "user_id" in message.recipient:
        return {"user_id": message.recipient["user_id"]}
    return {"device_id": message.recipient["anonymous_id"]}


def _person(message: Message) -> dict[str, Any]:
    return {**_who(message), "user_properties": _changes(traits_of(message))}


def _changes(values: dict[str, Any]) -> dict[str, Any]:
    known = {key: value for key, value in values.items() if value is not None}
    gone = {key: "-" for key, value in values.items() if value is None}
    return {**({"$set": known} if known else {}), **({"$unset": gone} if gone else {})}


def _group(message: Message, group_type: str) -> dict[str, Any]:
    return {
        "group_type": group_type,
        "group_value": message.body["groupId"],
        "group_properties": _changes(attributes_of(message)),
    }


def _link(message: Message, group_type: str) -> dict[str, Any]:
    groups = {group_type: message.body["groupId"]}
    return {"user_id": message.body["userId"], "groups": groups}


def _event(message: Message) -> dict[str, Any]:
    """`insert_id`: an event that comes twice counts once."""
    about = traits_of(message)
    return {
        **_who(message),
        "event_type": message.body["event"],
        "time": milliseconds_of(message),
        "event_properties": properties_of(message),
        **({"user_properties": about} if about else {}),
        "insert_id": message.message_id,
    }
