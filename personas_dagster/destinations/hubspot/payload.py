"""Messages to upserts of contacts and companies. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from personas_dagster.activation.destination import Message
from personas_dagster.destinations.reading import apart, as_text, attributes_of, traits_of
from personas_dagster.destinations.tool import Call, Person

CONTACTS, COMPANIES = "/crm/v3/objects/contacts", "/crm/v3/objects/companies"
PROPERTIES = "/crm/v3/properties"
# what the platform calls it -> HubSpot's own property
_OWN = {"first_name": "firstname", "last_name": "lastname", "postal_code": "zip"}


def calls(batch: Sequence[Message], company_property: str | None) -> list[Call]:
    """One request for contacts and one for companies; more where an id comes twice."""
    contacts = [row for row, message in enumerate(batch) if message.form != "group"]
    companies = [row for row, message in enumerate(batch) if message.form == "group"]
    found = [
        Call("POST", f"{CONTACTS}/batch/upsert",
             {"inputs": [contact(batch[row]) for row in rows]}, tuple(rows))
        for rows in apart(contacts, lambda row: address(batch[row]))
    ]  # fmt: skip
    if company_property:
        found += [
            Call("POST", f"{COMPANIES}/batch/upsert",
                 {"inputs": [_company(batch[row], company_property) for row in rows]}, tuple(rows))
            for rows in apart(companies, lambda row: str(batch[row].body["groupId"]))
        ]  # fmt: skip
    return found


def deletion(person: Person, row: int) -> Call:
    """For good; a contact that is only archived could be restored."""
    body = {"idProperty": "email", "objectId": person["email"].lower()}
    return Call("POST", f"{CONTACTS}/gdpr-delete", body, rows=(row,))


def address(message: Message) -> str:
    return message.recipient["email"].lower()


def contact(message: Message) -> dict[str, Any]:
    """`add` and `remove` only need the contact to be there."""
    email = address(message)
    values = attributes_of(message) if message.form == "identify" else {}
    more = {"phone": traits_of(message)["phone"]} if "phone" in message.recipient else {}
    return {
        "idProperty": "email",
        "id": email,
        "properties": {"email": email, **more, **properties(values)},
    }


def _company(message: Message, company_property: str) -> dict[str, Any]:
    group_id = message.body["groupId"]
    values = properties(attributes_of(message))
    return {
        "idProperty": company_property,
        "id": group_id,
        "properties": {company_property: group_id, **values},
    }


def properties(values: dict[str, Any]) -> dict[str, str]:
    """Names in lower case, values as text; an empty text clears a property."""
    return {name(key): _text(value) for key, value in values.items()}


def name(key: str) -> str:
    """A property's internal name."""
    return _OWN.get(key, key).lower()


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ";".join(as_text(one) for one in value)
    return as_text(value)


def new_property(key: str, value: Any, group: str) -> dict[str, Any]:
    """What makes a property that fits this value."""
    made: dict[str, Any] = {"name": name(key), "label": key, "groupName": group}
    if isinstance(value, bool):
        options = [
            {"label": label, "value": label.lower(), "displayOrder": order}
            for order, label in enumerate(("True", "False"))
        ]
        return {**made, "type": "bool", "fieldType": "booleancheckbox", "options": options}
    if isinstance(value, int | float):
        return {**made, "type": "number", "fieldType": "number"}
    return {**made, "type": "string", "fieldType": "text"}
