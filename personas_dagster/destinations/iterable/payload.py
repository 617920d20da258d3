"""Messages to bulk updates and bulk events. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from personas_dagster.activation.destination import Message
from personas_dagster.destinations.reading import attributes_of, properties_of, seconds_of
from personas_dagster.destinations.tool import Call, Person

USERS, EVENTS = "/api/users/bulkUpdate", "/api/events/trackBulk"


def calls(batch: Sequence[Message]) -> list[Call]:
    """Users first, so that they are there when their events come."""
    found = []
    for form, path, field, write in (
        ("identify", USERS, "users", _user),
        ("track", EVENTS, "events", _event),
    ):
        rows = tuple(row for row, message in enumerate(batch) if message.form == form)
        if rows:
            found.append(Call("POST", path, {field: [write(batch[row]) for row in rows]}, rows))
    return found


def who(message: Message) -> dict[str, Any]:
    """The user: by user id with the e-mail that belongs to it, else by e-mail."""
    found: dict[str, Any] = {}
    if "user_id" in message.recipient:
        found = {"userId": message.recipient["user_id"], "preferUserId": True}
    if "email" in message.recipient:
        found["email"] = message.recipient["email"]
    return found


def deletion(person: Person, row: int) -> Call:
    """By user id, else by e-mail."""
    if "user_id" in person:
        path = f"/api/users/byUserId/{quote(person['user_id'], safe='')}"
    else:
        path = f"/api/users/{quote(person['email'], safe='')}"
    return Call("DELETE", path, rows=(row,))


def _user(message: Message) -> dict[str, Any]:
    return {**who(message), "dataFields": attributes_of(message), "mergeNestedObjects": False}


def _event(message: Message) -> dict[str, Any]:
    person = who(message)
    if "userId" in person:
        person = {"userId": person["userId"]}
    return {
        **person,
        "eventName": message.body["event"],
        "id": message.message_id,
        "createdAt": seconds_of(message),
        "dataFields": properties_of(message),
    }
