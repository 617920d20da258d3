"""Messages to users and organizations. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from personas_dagster.activation.destination import Message
from personas_dagster.destinations.reading import attributes_of, flat, traits_of
from personas_dagster.destinations.tool import Call, Person

USERS = "/api/v2/users/create_or_update"
USER, DELETED_USER = "/api/v2/users", "/api/v2/deleted_users"
ORGANIZATIONS = "/api/v2/organizations/create_or_update"
FIELDS = {"user": "/api/v2/user_fields", "organization": "/api/v2/organization_fields"}
_OWN = frozenset({"name", "time_zone"})


def kind_of(message: Message) -> str:
    return "organization" if message.form == "group" else "user"


def custom(message: Message) -> dict[str, Any]:
    """The values that need a field of their own."""
    return {k: v for k, v in flat(attributes_of(message)).items() if k not in _OWN}


def call(message: Message, row: int) -> Call:
    if message.form == "group":
        return Call("POST", ORGANIZATIONS, {"organization": _organization(message)}, rows=(row,))
    return Call("POST", USERS, {"user": _user(message)}, rows=(row,))


def search(person: Person, row: int) -> Call:
    """By user id, else by e-mail."""
    if "user_id" in person:
        params = {"external_id": person["user_id"]}
    else:
        params = {"query": f'email:"{person["email"]}"'}
    return Call("GET", f"{USER}/search", params=params, rows=(row,))


def found(users: Sequence[dict[str, Any]], person: Person) -> set[int]:
    """Who of these it is: a search may find others, who are only like it."""
    kind, value = "external_id", person.get("user_id")
    if value is None:
        kind, value = "email", person["email"]
    same = [one for one in users if str(one.get(kind)).lower() == value.lower()]
    return {one["id"] for one in same if isinstance(one.get("id"), int)}


def _user(message: Message) -> dict[str, Any]:
    """Nobody is sent a mail to confirm their address."""
    about = traits_of(message)
    user: dict[str, Any] = {k: about[k] for k in ("name", "time_zone") if about.get(k)}
    if "user_id" in message.recipient:
        user["external_id"] = message.recipient["user_id"]
    user |= {k: about[k] for k in ("email", "phone") if k in about}
    return {**user, "skip_verify_email": True, "user_fields": custom(message)}


def _organization(message: Message) -> dict[str, Any]:
    group_id = message.body["groupId"]
    name = traits_of(message).get("name") or group_id
    return {"external_id": group_id, "name": name, "organization_fields": custom(message)}


def new_field(kind: str, key: str, value: Any) -> Call:
    """What makes a field that fits this value."""
    type = "text"
    if isinstance(value, bool):
        type = "checkbox"
    elif isinstance(value, int | float):
        type = "decimal"
    body = {f"{kind}_field": {"key": key, "title": key, "type": type}}
    return Call("POST", FIELDS[kind], body)
