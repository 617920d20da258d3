"""Adds and removes to records on a list. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import quote

from personas_dagster.activation.destination import Message
from personas_dagster.destinations.hubspot.payload import CONTACTS, address, contact
from personas_dagster.destinations.reading import apart
from personas_dagster.destinations.tool import Call

LISTS = "/crm/v3/lists"
CONTACT_TYPE = "0-1"
BLANK = "<ids of the contacts>"


def calls(batch: Sequence[Message], list_id: Callable[[Message], str]) -> list[Call]:
    """A change of members for each list and direction; the ids are asked for before each."""
    groups: dict[tuple[str, bool], list[int]] = {}
    for row, message in enumerate(batch):
        groups.setdefault((list_id(message), message.form == "add"), []).append(row)
    return [
        change(number, [BLANK], rows, is_add=is_add)
        for (number, is_add), rows in groups.items()
        for rows in apart(rows, lambda row: address(batch[row]))
    ]


def change(number: str, ids: Sequence[str], rows: Sequence[int], *, is_add: bool) -> Call:
    """`add-and-remove` with one of the two."""
    body = {"recordIdsToAdd": ids if is_add else [], "recordIdsToRemove": [] if is_add else ids}
    path = f"{LISTS}/{quote(number, safe='<> ')}/memberships/add-and-remove"
    return Call("PUT", path, body, rows=tuple(rows))


def ensure(messages: Sequence[Message]) -> Call:
    """Contacts are made when they are not there; the answer has their ids."""
    return Call("POST", f"{CONTACTS}/batch/upsert", {"inputs": [contact(m) for m in messages]})


def find(messages: Sequence[Message]) -> Call:
    inputs = [{"id": address(message)} for message in messages]
    body = {"idProperty": "email", "properties": ["email"], "inputs": inputs}
    return Call("POST", f"{CONTACTS}/batch/read", body)
