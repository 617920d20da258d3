"""What the payloads of tools read from a message. Pure, and without any tool's name."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from personas_dagster.activation.destination import Message

CONTACT = frozenset({"email", "phone"})


def traits_of(message: Message) -> dict[str, Any]:
    """What is said about the person, e-mail and phone included."""
    found = message.body.get("traits")
    if found is None:
        found = message.body["context"].get("traits", {})
    return dict(found)


def attributes_of(message: Message) -> dict[str, Any]:
    """The same without e-mail and phone: the value itself, and traits that go along."""
    return {key: value for key, value in traits_of(message).items() if key not in CONTACT}


def properties_of(message: Message) -> dict[str, Any]:
    """A track's properties."""
    return dict(message.body["properties"])


def seconds_of(message: Message) -> int:
    """The message's instant as Unix seconds."""
    return int(instant_of(message).timestamp())


def milliseconds_of(message: Message) -> int:
    """The message's instant as Unix milliseconds."""
    return round(instant_of(message).timestamp() * 1000)


def instant_of(message: Message) -> dt.datetime:
    return dt.datetime.fromisoformat(message.body["timestamp"])


def as_text(value: Any) -> str:
    """A value as text, for tools that take nothing else: JSON, but strings as they are."""
    if value is None:
        return ""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The same, with lists and objects as JSON text, for tools that take scalars only."""
    return {
        key: as_text(value) if isinstance(value, list | dict) else value
        for key, value in values.items()
    }


def apart(rows: Sequence[int], name: Callable[[int], str]) -> list[list[int]]:
    """Rows in as few groups as there can be without a name twice, for tools that refuse doubles."""
    groups: list[tuple[set[str], list[int]]] = []
    for row in rows:
        own = name(row)
        for names, group in groups:
            if own not in names:
                names.add(own)
                group.append(row)
                break
        else:
            groups.append(({own}, [row]))
    return [group for _, group in groups]
