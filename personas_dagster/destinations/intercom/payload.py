"""Messages to contacts, companies and events. Pure."""

from __future__ import annotations

from typing import Any

from personas_dagster.activation.destination import Message
from personas_dagster.destinations.reading import (
    attributes_of,
    flat,
    properties_of,
    seconds_of,
    traits_of,
)
from personas_dagster.destinations.tool import Call, Person

CONTACTS, COMPANIES, EVENTS = "/contacts", "/companies", "/events"
ATTRIBUTES = "/data_attributes"
# attributes that Intercom has itself: beside, not among, the custom ones
_OWN = {
    "contact": frozenset({"name", "avatar", "signed_up_at", "last_seen_at", "owner_id"}),
    "company": frozenset({"name", "plan", "size", "website", "industry", "monthly_spend"}),
}


def custom(message: Message, model: str) -> dict[str, Any]:
    """The values that need a custom attribute; lists and objects as JSON, null clears."""
    return {k: v for k, v in flat(attributes_of(message)).items() if k not in _OWN[model]}


def search(person: Person) -> Call:
    """By user id, else by e-mail."""
    if "user_id" in person:
        return search_by("external_id", person["user_id"])
    return search_by("email", person["email"])


def search_by(field: str, value: str) -> Call:
    query = {"field": field, "operator": "=", "value": value}
    return Call("POST", f"{CONTACTS}/search", {"query": query})


def contact(message: Message) -> dict[str, Any]:
    """A contact as it is made; updates say the same."""
    named = {k: v for k, v in attributes_of(message).items() if k in _OWN["contact"]}
    body: dict[str, Any] = {"role": "user"}
    if "user_id" in message.recipient:
        body["external_id"] = message.recipient["user_id"]
    body |= {k: v for k, v in traits_of(message).items() if k in ("email", "phone")}
    return {**body, **named, "custom_attributes": custom(message, "contact")}


def company(message: Message) -> Call:
    named = {k: v for k, v in attributes_of(message).items() if k in _OWN["company"]}
    body = {"company_id": message.body["groupId"], **named}
    return Call(
        "POST", COMPANIES, {**body, "custom_attributes": custom(message, "company")}, rows=(0,)
    )


def event(message: Message) -> Call:
    who = (
        {"user_id": message.recipient["user_id"]}
        if "user_id" in message.recipient
        else {"email": message.recipient["email"]}
    )
    body = {
        "event_name": message.body["event"],
        "created_at": seconds_of(message),
        **who,
        "metadata": flat(properties_of(message)),
    }
    return Call("POST", EVENTS, body, rows=(0,))


def new_attribute(key: str, value: Any, model: str) -> dict[str, str]:
    """What makes a custom attribute that fits this value."""
    kind = "string"
    if isinstance(value, bool):
        kind = "boolean"
    elif isinstance(value, int | float):
        kind = "float"
    return {"name": key, "model": model, "data_type": kind}
