"""Messages to records, and to the request that carries them. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from personas_dagster.activation.destination import Message
from personas_dagster.destinations.kinesis.settings import KinesisSettings

TARGET = "Kinesis_20131202.PutRecords"
_LONGEST_KEY = 256  # characters


@dataclass(frozen=True, slots=True)
class Record:
    """One message as it is put into a stream: its JSON, and what decides on the shard."""

    data: bytes
    key: str

    @property
    def size(self) -> int:
        """Bytes, as the stream's limits count them."""
        return len(self.data) + len(self.key.encode())


def record(message: Message, settings: KinesisSettings) -> Record:
    key = message.message_id if settings.partition_key == "message_id" else _person(message)
    if len(key) > _LONGEST_KEY:
        key = hashlib.sha256(key.encode()).hexdigest()
    return Record(msgspec.json.encode(message.body), key)


def _person(message: Message) -> str:
    """Whom a message is about: an account, else the best identifier that it has."""
    group = message.body.get("groupId")
    return str(group or next(iter(message.recipient.values()), "") or message.message_id)


def target(settings: KinesisSettings) -> dict[str, str]:
    """The stream, as requests name it."""
    is_arn = settings.stream.startswith("arn:")
    return {"StreamARN" if is_arn else "StreamName": settings.stream}


def shown(records: Sequence[Record], settings: KinesisSettings) -> dict[str, Any]:
    """The request's body as people read it: on its way, `Data` is base64."""
    rows = [{"Data": one.data.decode(), "PartitionKey": one.key} for one in records]
    return {"Records": rows, **target(settings)}
