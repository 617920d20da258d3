"""Messages to members and their tags. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from personas_dagster.activation.destination import Message
from personas_dagster.destinations.mailchimp.settings import MailchimpSettings
from personas_dagster.destinations.reading import as_text, attributes_of
from personas_dagster.destinations.tool import Call, Person

# what the platform calls it -> the merge tag that each audience has from the start
_OWN = {"first_name": "FNAME", "last_name": "LNAME"}


def list_path(list_id: str) -> str:
    return f"/3.0/lists/{quote(list_id, safe='')}"


def merge_values(message: Message, settings: MailchimpSettings) -> dict[str, Any]:
    """The traits that are merge fields: all, but for an audience that is a tag."""
    values = attributes_of(message)
    if is_tag(message, settings):
        values.pop(message.key, None)
    return values


def is_tag(message: Message, settings: MailchimpSettings) -> bool:
    """Whether the message is about an audience, and audiences are tags here."""
    kind = message.body["context"]["personas"]["computation_class"]
    return settings.audiences_as == "tag" and kind == "audience"


def merge_tag(key: str, settings: MailchimpSettings) -> str:
    """At most 10 capitals: as the settings say, else the key's beginning and a check of the rest.

    >>> merge_tag("total_revenue_180_days", MailchimpSettings(api_key="k", list_id="1",
    ...                                                       datacenter="us1"))
    'TOTALR_FE9'
    """
    known = settings.merge_fields.get(key) or _OWN.get(key)
    if known:
        return known
    plain = re.sub(r"[^A-Z0-9]", "", key.upper())
    if len(plain) <= 10 and plain:
        return plain
    return f"{plain[:6]}_{hashlib.sha256(key.encode()).hexdigest()[:3].upper()}"


def member(message: Message, settings: MailchimpSettings) -> Call:
    """`status_if_new` alone: a `status` would subscribe people again who left."""
    address = message.recipient["email"]
    values = merge_values(message, settings)
    fields = {merge_tag(key, settings): _text(value) for key, value in values.items()}
    body: dict[str, Any] = {"email_address": address, "status_if_new": settings.status_if_new}
    if fields:
        body["merge_fields"] = fields
    params = {"skip_merge_validation": "true"}
    return Call("PUT", _member_path(address, settings), body, rows=(0,), params=params)


def tags(message: Message, settings: MailchimpSettings) -> Call:
    status = "active" if message.value is True else "inactive"
    body: dict[str, Any] = {"tags": [{"name": settings.tag_prefix + message.key, "status": status}]}
    if not settings.start_automations:
        body["is_syncing"] = True
    path = f"{_member_path(message.recipient['email'], settings)}/tags"
    return Call("POST", path, body, rows=(0,))


def deletion(person: Person, row: int, settings: MailchimpSettings) -> Call:
    """For good: a member that is only archived could be found, and brought back."""
    path = f"{_member_path(person['email'], settings)}/actions/delete-permanent"
    return Call("POST", path, rows=(row,))


def _member_path(address: str, settings: MailchimpSettings) -> str:
    digest = hashlib.md5(address.lower().encode(), usedforsecurity=False).hexdigest()
    return f"{list_path(settings.list_id)}/members/{digest}"


def _text(value: Any) -> Any:
    """Numbers stay, all else is text; an empty text clears a field."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number else as_text(value)


def new_field(key: str, value: Any, settings: MailchimpSettings) -> Mapping[str, str]:
    """What makes a merge field that fits this value."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    kind = "number" if is_number else "text"
    return {"name": key, "tag": merge_tag(key, settings), "type": kind}
