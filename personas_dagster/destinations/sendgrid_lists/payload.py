"""Adds and removes to contacts on a list. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from urllib.parse import quote

from personas_dagster.activation.destination import Message
from personas_dagster.destinations.sendgrid.payload import CONTACTS, upsert
from personas_dagster.destinations.tool import Call

LISTS = "/v3/marketing/lists"
SEARCH = f"{CONTACTS}/search/emails"
_FOUND_AT_ONCE = 100
BLANK = "<ids of the contacts>"


def calls(batch: Sequence[Message], list_id: Callable[[Message], str]) -> list[Call]:
    """For those who enter an upsert, for those who leave a deletion by id, 100 at a time."""
    groups: dict[tuple[str, bool], list[int]] = {}
    for row, message in enumerate(batch):
        groups.setdefault((list_id(message), message.form == "add"), []).append(row)
    found = []
    for (number, is_add), rows in groups.items():
        if is_add:
            found.append(upsert(batch, rows, {}, [number]))
            continue
        for start in range(0, len(rows), _FOUND_AT_ONCE):
            some = rows[start : start + _FOUND_AT_ONCE]
            found.append(leave(number, BLANK, some))
    return found


def leave(number: str, ids: str, rows: Sequence[int]) -> Call:
    path = f"{LISTS}/{quote(number, safe='<> ')}/contacts"
    return Call("DELETE", path, rows=tuple(rows), params={"contact_ids": ids})
