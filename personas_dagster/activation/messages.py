"""Changes become messages: the forms of docs/activation.md, with ids derived from content.

What belongs here: how a message looks. What does not: which rows changed (`difference.py`), and
what a tool makes of a message (`destinations/`).
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from personas_dagster.activation.connection import Connection, forms_of
from personas_dagster.activation.destination import Abilities, Form, Message
from personas_dagster.interfaces import Data

_SLICE_ROWS = 2_000
_DEVICES = {"ios.idfa": "ios", "android.idfa": "android", "ios.id": "ios", "android.id": "android"}


@dataclass(frozen=True, slots=True)
class Change:
    """One recipient of one connection that is due. `recipient` and `value` are JSON text."""

    connection: str
    profile_id: str
    collection: str
    recipient: str
    value: str
    reason: str
    message_id: str
    traits: str | None = None
    user_id: str | None = None
    mark: int | None = None  # of the profile, for the ledger; see `standing.py`


def sample(connection: Connection, abilities: Abilities) -> list[Message]:
    """What a connection's messages will look like, of nobody and without values.

    For asking a tool whether what they need is there, before there is any.
    """
    writer = Writer(
        connection, abilities, space_id="", timestamp=dt.datetime.fromtimestamp(0, dt.UTC)
    )
    traits = msgspec.json.encode(dict.fromkeys((*connection.enrich, *abilities.requires))).decode()
    value = "true" if connection.kind == "audience" else "null"
    who = {kind: "" for kind in ("user_id", *abilities.matches_on, "email")}
    forms = forms_of(connection, abilities)
    recipients = [("accounts", {"group_id": ""})] if "group" in forms else []
    recipients += [("users", who)] if set(forms) - {"group"} else []
    return [
        message
        for collection, recipient in recipients
        for message in writer.write(
            Change(connection.name, "", collection, msgspec.json.encode(recipient).decode(), value,
                   "", "", traits)
        )
    ]  # fmt: skip


def read_changes(data: Data, refresh_id: int, sync_id: int | None = None) -> Iterator[Change]:
    """Changes from Arrow batches, a few thousand at a time.

    A row that is sent again with the same value keeps the id that it was first sent under, but in
    a resync: a tool that knows the message would pass it over.
    """
    for batch in data.to_batches() if not hasattr(data, "read_next_batch") else data:
        for start in range(0, batch.num_rows, _SLICE_ROWS):
            for row in batch.slice(start, _SLICE_ROWS).to_pylist():
                again = sync_id if row["reason"] == "resync" else None
                row["message_id"] = row["message_id"] or _message_id(row, refresh_id, again)
                yield Change(**row)


def _message_id(row: Mapping[str, Any], refresh_id: int, again: int | None) -> str:
    parts = [row["connection"], row["profile_id"], row["recipient"], row["value"], refresh_id]
    if again is not None:
        parts.append(again)
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


class Writer:
    """Writes one connection's messages. `timestamp` is the instant that they carry."""

    def __init__(
        self,
        connection: Connection,
        abilities: Abilities,
        *,
        space_id: str,
        timestamp: dt.datetime,
    ) -> None:
        self._connection = connection
        self._forms = forms_of(connection, abilities)
        is_audience = connection.kind == "audience"
        self._class = "audience" if is_audience else "trait"
        named = f"{space_id}/{self._class}/{connection.key}".encode()
        instant = timestamp.astimezone(dt.UTC).isoformat(timespec="milliseconds")
        self._timestamp = instant.replace("+00:00", "Z")
        self._integrations = {"All": False, connection.destination: True}
        self._personas = {
            "computation_class": self._class,
            "computation_id": f"{self._class[:3]}_{hashlib.sha256(named).hexdigest()[:24]}",
            "computation_key": connection.key,
            "namespace": space_id,
            "space_id": space_id,
        }

    def write(self, change: Change) -> list[Message]:
        """The messages of one change, in the order in which they are to be sent."""
        recipient: dict[str, str] = msgspec.json.decode(change.recipient)
        if "previous_id" in recipient:
            return [self._alias(change, recipient["previous_id"], recipient["user_id"])]
        value = msgspec.json.decode(change.value)
        traits = msgspec.json.decode(change.traits) if change.traits else {}
        return [
            Message(
                form=form,
                message_id=f"{change.message_id}-{form}",
                connection=self._connection.name,
                key=self._connection.key,
                recipient=recipient,
                value=value,
                body=self._body(form, change, recipient, value, traits),
                list_id=self._connection.list_id,
            )
            for form in self._forms_for(change, value)
        ]

    def _alias(self, change: Change, previous_id: str, user_id: str) -> Message:
        body = {
            "type": "alias",
            "messageId": f"{change.message_id}-alias",
            "timestamp": self._timestamp,
            "userId": user_id,
            "previousId": previous_id,
            "integrations": self._integrations,
            "context": {"personas": self._personas},
        }
        return Message(
            form="alias",
            message_id=f"{change.message_id}-alias",
            connection=self._connection.name,
            key=self._connection.key,
            recipient={"user_id": user_id},
            value=None,
            body=body,
        )

    def _forms_for(self, change: Change, value: Any) -> tuple[Form, ...]:
        if "add" in self._forms:
            return ("add",) if value is True else ("remove",)
        if change.collection == "accounts":
            return ("group",)
        return tuple(form for form in self._forms if form != "group")

    def _body(
        self,
        form: Form,
        change: Change,
        recipient: Mapping[str, str],
        value: Any,
        traits: Mapping[str, Any],
    ) -> dict[str, Any]:
        context: dict[str, Any] = {"personas": self._personas}
        who = _who(recipient, context)
        about = {**traits, **_contact(recipient)}
        body: dict[str, Any] = {
            "type": form,
            "messageId": f"{change.message_id}-{form}",
            "timestamp": self._timestamp,
            **who,
            "integrations": self._integrations,
            "context": context,
        }
        key = self._connection.key
        if form == "track":
            body["event"] = self._event(change)
            label = "audience_key" if self._class == "audience" else "trait_key"
            body["properties"] = {label: key, key: value}
            if about:
                context["traits"] = about
        elif form == "group":
            body["groupId"] = recipient["group_id"]
            if change.user_id is not None:
                body["userId"] = change.user_id
            body["traits"] = {**about, key: value}
        else:
            body["traits"] = {**about, key: value}
        return body

    def _event(self, change: Change) -> str:
        names = self._connection.events
        if self._connection.kind != "audience":
            return names.computed
        return names.exited if change.value == self._connection.exit_value else names.entered


def deletion(recipient: Mapping[str, str]) -> dict[str, Any]:
    """The message that asks to delete a person for good. Taking it twice does no harm, so it has no
    id and no time."""
    context: dict[str, Any] = {}
    who = _who(recipient, context)
    contact = _contact(recipient)
    return {"type": "delete", **who, "context": context, **({"traits": contact} if contact else {})}


def _who(recipient: Mapping[str, str], context: dict[str, Any]) -> dict[str, str]:
    """`userId` or `anonymousId`; other identifiers go where the platform reads them."""
    who = {}
    for kind, value in recipient.items():
        if kind == "user_id":
            who["userId"] = value
        elif kind == "anonymous_id":
            who["anonymousId"] = value
        elif kind in _DEVICES:
            field = "advertisingId" if kind.endswith("idfa") else "id"
            context["device"] = {"type": _DEVICES[kind], field: value}
        elif kind not in ("email", "phone", "group_id"):
            entry = {"id": value, "type": kind, "collection": "users", "encoding": "none"}
            context.setdefault("externalIds", []).append(entry)
    return who


def _contact(recipient: Mapping[str, str]) -> dict[str, str]:
    return {kind: recipient[kind] for kind in ("email", "phone") if kind in recipient}
