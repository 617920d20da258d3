"""Adds and removes to leads of a static list. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import quote

from personas_dagster.activation.destination import Message
from personas_dagster.destinations.marketo.payload import LEADS, person
from personas_dagster.destinations.marketo.settings import MarketoAccount
from personas_dagster.destinations.reading import apart
from personas_dagster.destinations.tool import Call

LISTS = "/rest/asset/v1/staticLists.json"
LIST = "/rest/asset/v1/staticList"
LIST_BY_NAME = f"{LIST}/byName.json"
FOLDER_BY_NAME = "/rest/asset/v1/folder/byName.json"
BLANK = "<ids of the leads>"
MOST_IDS = 300


def calls(
    batch: Sequence[Message], list_id: Callable[[Message], str], settings: MarketoAccount
) -> list[Call]:
    """A change of members for each list and direction; the ids are asked for before each."""
    groups: dict[tuple[str, bool], list[int]] = {}
    for row, message in enumerate(batch):
        groups.setdefault((list_id(message), message.form == "add"), []).append(row)
    return [
        change(number, [BLANK], rows, is_add=is_add)
        for (number, is_add), rows in groups.items()
        for rows in apart(rows, lambda row: person(batch[row], settings))
    ]


def change(number: str, ids: Sequence[Any], rows: Sequence[int], *, is_add: bool) -> Call:
    path = f"/rest/v1/lists/{quote(number, safe='<> ')}/leads.json"
    if is_add:
        return Call("POST", path, {"input": [{"id": one} for one in ids]}, rows=tuple(rows))
    return Call("DELETE", path, params={"id": ",".join(map(str, ids))}, rows=tuple(rows))


def find(messages: Sequence[Message], settings: MarketoAccount, page: str | None = None) -> Call:
    """Who is there of these. As a form, so that no address is in a URL, and none is too long."""
    field = settings.lookup_field
    form = {
        "filterType": field,
        "filterValues": ",".join(person(message, settings) for message in messages),
        "fields": f"id,{field}",
        "batchSize": str(MOST_IDS),
    }
    more = {"nextPageToken": page} if page else {}
    return Call("POST", LEADS, params={"_method": "GET"}, form={**form, **more})
