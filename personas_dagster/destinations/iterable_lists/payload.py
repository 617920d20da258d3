"""Adds and removes to subscribers of a list. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from personas_dagster.activation.destination import Message
from personas_dagster.destinations.iterable.payload import who
from personas_dagster.destinations.tool import Call

SUBSCRIBE, UNSUBSCRIBE = "/api/lists/subscribe", "/api/lists/unsubscribe"


def calls(batch: Sequence[Message], list_id: Callable[[Message], str]) -> list[Call]:
    """One request for each list and direction."""
    groups: dict[tuple[str, bool], list[int]] = {}
    for row, message in enumerate(batch):
        groups.setdefault((list_id(message), message.form == "add"), []).append(row)
    found = []
    for (number, is_add), rows in groups.items():
        body: dict[str, Any] = {
            "listId": int(number) if number.isdigit() else number,
            "subscribers": [_subscriber(batch[row], is_add=is_add) for row in rows],
        }
        if is_add:
            body["updateExistingUsersOnly"] = False
        else:  # true would take them out of the whole channel
            body["channelUnsubscribe"] = False
        found.append(Call("POST", SUBSCRIBE if is_add else UNSUBSCRIBE, body, rows=tuple(rows)))
    return found


def _subscriber(message: Message, *, is_add: bool) -> dict[str, Any]:
    person = who(message)
    if is_add:
        return person
    return {"userId": person["userId"]} if "userId" in person else {"email": person["email"]}
