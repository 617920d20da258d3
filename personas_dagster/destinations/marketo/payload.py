"""Messages to upserts of leads and companies, and to custom activities. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from personas_dagster.activation.destination import Message
from personas_dagster.destinations.marketo.settings import MarketoAccount, MarketoSettings
from personas_dagster.destinations.reading import apart, as_text, attributes_of, flat, traits_of
from personas_dagster.destinations.tool import Call, Person

LEADS, COMPANIES = "/rest/v1/leads.json", "/rest/v1/companies.json"
DELETE = "/rest/v1/leads/delete.json"
ACTIVITIES = "/rest/v1/activities/external.json"
TYPES = "/rest/v1/activities/external/type"
FIELDS = "/rest/v1/leads/schema/fields.json"
LEAD, TYPE = "<id of the lead>", "<id of the activity type>"
ATTRIBUTES = ("key", "value")
# what the platform calls it -> Marketo's own field
_OF_LEADS = {"first_name": "firstName", "last_name": "lastName", "postal_code": "postalCode"}
_OF_COMPANIES = {"name": "company"}


def calls(batch: Sequence[Message], settings: MarketoSettings) -> list[Call]:
    """At most one request for each form; more where somebody comes twice in one."""
    groups, people, events = (
        [row for row, message in enumerate(batch) if message.form == form]
        for form in ("group", "identify", "track")
    )
    found = [
        _companies(batch, rows, settings) for rows in apart(groups, lambda row: account(batch[row]))
    ]
    found += [
        _leads(batch, rows, settings)
        for rows in apart(people, lambda row: person(batch[row], settings))
    ]
    return [*found, _activities(batch, events)] if events else found


def person(message: Message, settings: MarketoAccount) -> str:
    """Whom a message is about, in the words of the lookup field."""
    if settings.user_id_field:
        return message.recipient["user_id"]
    return message.recipient["email"].lower()


def find_lead(one: Person, row: int, settings: MarketoAccount) -> Call:
    """The leads of one person. As a form, so that no address is in a URL."""
    field = settings.lookup_field
    value = one["user_id"] if settings.user_id_field else one["email"].lower()
    form = {"filterType": field, "filterValues": value, "fields": f"id,{field}"}
    return Call("POST", LEADS, params={"_method": "GET"}, form=form, rows=(row,))


def deletion(ids: Sequence[Any]) -> Call:
    return Call("POST", DELETE, {"input": [{"id": one} for one in ids]})


def account(message: Message) -> str:
    return str(message.body["groupId"])


def upsert(rows: Sequence[int], leads: list[dict[str, Any]], settings: MarketoAccount) -> Call:
    """Leads that are made when they are not there; the answer has their ids."""
    body: dict[str, Any] = {
        "action": "createOrUpdate",
        "lookupField": settings.lookup_field,
        "input": leads,
    }
    if settings.partition:
        body["partitionName"] = settings.partition
    return Call("POST", LEADS, body, rows=tuple(rows))


def bare(message: Message, settings: MarketoAccount) -> dict[str, Any]:
    """A lead with what it is known by, and its address."""
    found = {settings.lookup_field: person(message, settings)}
    email = traits_of(message).get("email")
    return {"email": email, **found} if email and settings.user_id_field else found


def ensure(messages: Sequence[Message], settings: MarketoAccount) -> Call:
    """Everybody once."""
    people = {person(message, settings): bare(message, settings) for message in messages}
    return upsert((), list(people.values()), settings)


def _leads(batch: Sequence[Message], rows: Sequence[int], settings: MarketoSettings) -> Call:
    return upsert(rows, [_lead(batch[row], settings) for row in rows], settings)


def _lead(message: Message, settings: MarketoSettings) -> dict[str, Any]:
    phone = traits_of(message).get("phone")
    more = {"phone": phone} if phone else {}
    return {**bare(message, settings), **more, **values(message, settings)}


def values(message: Message, settings: MarketoSettings) -> dict[str, Any]:
    """What is written about a person or an account, by Marketo's names."""
    own = _OF_COMPANIES if message.form == "group" else _OF_LEADS
    known = {**own, **settings.fields}
    return flat({known.get(key, key): value for key, value in attributes_of(message).items()})


def _companies(batch: Sequence[Message], rows: Sequence[int], settings: MarketoSettings) -> Call:
    found = [
        {"externalCompanyId": account(batch[row]), **values(batch[row], settings)} for row in rows
    ]
    body = {"action": "createOrUpdate", "dedupeBy": "dedupeFields", "input": found}
    return Call("POST", COMPANIES, body, rows=tuple(rows))


def _activities(batch: Sequence[Message], rows: Sequence[int]) -> Call:
    """The ids of leads and of the type are asked for before: see `client.py`."""
    found = [
        {
            "leadId": LEAD,
            "activityDate": batch[row].body["timestamp"],
            "activityTypeId": TYPE,
            "primaryAttributeValue": batch[row].body["event"],
            "attributes": [
                {"apiName": name, "value": value}
                for name, value in zip(
                    ATTRIBUTES, (batch[row].key, as_text(batch[row].value)), strict=True
                )
            ],
        }
        for row in rows
    ]
    return Call("POST", ACTIVITIES, {"input": found}, rows=tuple(rows))


def new_field(name: str, value: Any) -> dict[str, str]:
    """What makes a lead field that fits this value."""
    kind = "string"
    if isinstance(value, bool):
        kind = "boolean"
    elif isinstance(value, int | float):
        kind = "float"
    return {"displayName": name.replace("_", " "), "name": name, "dataType": kind}
