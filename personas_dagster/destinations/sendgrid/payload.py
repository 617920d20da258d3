"""Messages to contacts, and refusals to the contacts at fault. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from personas_dagster.activation.destination import Message
from personas_dagster.destinations.reading import as_text, attributes_of
from personas_dagster.destinations.tool import Call, Person, fields, items

CONTACTS = "/v3/marketing/contacts"
FIELDS = "/v3/marketing/field_definitions"
RESERVED = frozenset({
    "address_line_1", "address_line_2", "alternate_emails", "city", "country", "first_name",
    "last_name", "postal_code", "state_province_region",
})  # fmt: skip


@dataclass(frozen=True)
class Field:
    """A custom field, as SendGrid knows it."""

    id: str
    type: str


def upsert(
    batch: Sequence[Message],
    rows: Sequence[int],
    known: Mapping[str, Field],
    lists: Sequence[str] = (),
) -> Call:
    """One request for these rows of the batch."""
    body: dict[str, Any] = {"list_ids": list(lists)} if lists else {}
    body["contacts"] = [_contact(batch[row], known) for row in rows]
    return Call("PUT", CONTACTS, body, rows=tuple(rows))


def _contact(message: Message, known: Mapping[str, Field]) -> dict[str, Any]:
    contact: dict[str, Any] = {"email": address(message)}
    custom = {}
    for key, value in attributes_of(message).items() if message.form == "identify" else ():
        if key in RESERVED:
            contact[key] = as_text(value)
        elif key in known:
            custom[known[key].id] = _value(value, known[key].type)
        else:
            custom[f"<id of field {key}>"] = value
    return {**contact, **({"custom_fields": custom} if custom else {})}


def search(people: Sequence[Person]) -> Call:
    emails = sorted({person["email"].lower() for person in people})
    return Call("POST", f"{CONTACTS}/search/emails", {"emails": emails}, tuple(range(len(people))))


def ids(answer: Mapping[str, Any]) -> list[str]:
    """The contacts that a search found."""
    contacts = [fields(fields(one).get("contact")) for one in fields(answer.get("result")).values()]
    return [str(contact["id"]) for contact in contacts if contact.get("id")]


def deletion(ids: Sequence[str]) -> Call:
    return Call("DELETE", CONTACTS, params={"ids": ",".join(ids)})


def address(message: Message) -> str:
    """SendGrid keeps addresses in lower case."""
    return message.recipient["email"].lower()


def _value(value: Any, type: str) -> Any:
    """Fields are Text, Number or Date; null empties one."""
    if value is None:
        return None
    if type == "Number":
        return int(value) if isinstance(value, bool) else value
    if type == "Date" and isinstance(value, str):
        found = re.match(r"(\d{4})-(\d\d)-(\d\d)", value)
        return f"{found[2]}/{found[3]}/{found[1]}" if found else value
    return as_text(value)


def new_field(key: str, value: Any) -> dict[str, str]:
    """What makes a field that fits this value."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"name": key, "field_type": "Number" if is_number else "Text"}


def reasons(contacts: Sequence[Mapping[str, Any]], answer: Any) -> dict[int, str]:
    """Which contacts a 400 names, by place (`contacts[3].email`) or by address in its text."""
    found: dict[int, str] = {}
    for error in items(fields(answer).get("errors")):
        text = str(error.get("message") or "refused")
        place = re.search(r"contacts\[(\d+)\]", f"{error.get('field')} {text}")
        if place and int(place[1]) < len(contacts):
            found[int(place[1])] = text
            continue
        words = {word.strip("'\"`,;:.()[]<>").lower() for word in text.split()}
        for index, contact in enumerate(contacts):
            if contact["email"] in words:
                found[index] = text
    return found
