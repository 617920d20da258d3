"""From the body of a request to the lines that are kept: what the event libraries put on the wire.

Messages are cut out of the body as they stand. Each is opened on its first level only, to add
what the server knows (`receivedAt`, the batch's `sentAt`); whether it is a good message is judged
when it is loaded, as for any other file.
"""

from __future__ import annotations

import datetime as dt
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import msgspec
from msgspec import Raw

from personas_dagster.events import journal
from personas_dagster.events.reasons import MESSAGE_TOO_LARGE
from personas_dagster.events.settings import KIBIBYTE
from personas_dagster.serving.errors import ApiError

MAX_MESSAGE = 32 * KIBIBYTE
MAX_BODY = 500 * KIBIBYTE
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_NONE = Raw(b"")
_SHARED = ("context", "integrations")  # of a batch: goes for each of its messages

Fields = dict[str, Raw]
_FIELDS = msgspec.json.Decoder(Fields)
_ENCODER = msgspec.json.Encoder()


class Batch(msgspec.Struct):
    """The body of a batch: messages as they stand, and what goes for all of them."""

    batch: list[Raw]
    sentAt: Raw = _NONE
    writeKey: Raw = _NONE
    context: Raw = _NONE
    integrations: Raw = _NONE


_BATCH = msgspec.json.Decoder(Batch)


@dataclass(frozen=True)
class Incoming:
    """What a request brings. `kind` is the type that its path says, None for a batch."""

    batch: Batch
    kind: str | None

    @property
    def write_key(self) -> str | None:
        """The key in the body: of the batch, else of its first message."""
        key = _text(self.batch.writeKey)
        if key is None and self.batch.batch:
            try:
                key = _text(_FIELDS.decode(self.batch.batch[0]).get("writeKey", _NONE))
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                return None
        return key

    def lines(self, received: dt.datetime) -> Lines:
        """The lines to keep."""
        stamp = received.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        received_at, batch = Raw(f'"{stamp}"'.encode()), self.batch
        sent_at = None if bytes(batch.sentAt) in (b"", b"null") else batch.sentAt
        kind = Raw(f'"{self.kind}"'.encode()) if self.kind else None
        shared = {name: getattr(batch, name) for name in _SHARED}
        shared = {k: v for k, v in shared.items() if bytes(v).startswith(b"{")}
        kept, refused = [], 0
        for message in batch.batch:
            size = memoryview(message).nbytes
            if size > MAX_MESSAGE:
                detail = f"found {size:,} bytes, at most {MAX_MESSAGE:,}"
                kept.append(journal.refused(MESSAGE_TOO_LARGE, detail, bytes(message)))
                refused += 1
            else:
                kept.append(_line(message, received_at, sent_at, kind, shared))
        kept.append(b"")
        return Lines(b"\n".join(kept), len(batch.batch) - refused, refused)


@dataclass(frozen=True)
class Lines:
    """Whole lines, how many messages they hold, and how many of a batch were refused alone."""

    text: bytes
    messages: int
    refused: int


def read_batch(body: bytes) -> Incoming:
    """A batch; an ApiError (400) when it is none."""
    try:
        return Incoming(_BATCH.decode(body), None)
    except msgspec.ValidationError as error:
        raise ApiError(400, f"the body is not a batch: {_shown(error)}") from error
    except (msgspec.DecodeError, UnicodeDecodeError):
        return Incoming(_lenient(body), None)
    except RecursionError as error:
        raise ApiError(400, "the body is not a batch: nested too deeply") from error


def read_single(body: bytes, kind: str) -> Incoming:
    """One message of a type; an ApiError (400) when the body is none, or too large."""
    try:
        fields = _FIELDS.decode(body)
    except msgspec.ValidationError as error:
        raise ApiError(400, "the body is not a message: it is not a JSON object") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the body is not JSON: {_shown(error)}") from error
    except RecursionError as error:
        raise ApiError(400, "the body is not a message: nested too deeply") from error
    if len(body) > MAX_MESSAGE:
        raise ApiError(400, f"the message has {len(body):,} bytes, at most {MAX_MESSAGE:,}")
    return Incoming(Batch([Raw(body)], writeKey=fields.get("writeKey", _NONE)), kind)


def unpack(body: bytes) -> bytes:
    """The body, unpacked if it is gzip whatever its headers say; 400 above 500 KiB."""
    if body.startswith(_GZIP):
        body = _gunzip(body)
    check_size(len(body))
    return body.removeprefix(_BOM)


def check_size(size: int) -> None:
    """400 for a body above 500 KiB."""
    if size > MAX_BODY:
        raise ApiError(400, f"the body has more than {MAX_BODY:,} bytes; send smaller batches")


def _gunzip(packed: bytes) -> bytes:
    parts, size = list[bytes](), 0
    while packed.startswith(_GZIP):
        member = zlib.decompressobj(31)
        try:
            parts.append(member.decompress(packed, MAX_BODY + 1 - size))
        except zlib.error as error:
            raise ApiError(400, "the body is not gzip, though it begins so") from error
        size += len(parts[-1])
        check_size(size)
        if not member.eof:
            raise ApiError(400, "the body is gzip that ends too early")
        packed = member.unused_data
    return b"".join(parts)


def _line(
    message: Raw,
    received_at: Raw,
    sent_at: Raw | None,
    kind: Raw | None,
    shared: Mapping[str, Raw],
) -> bytes:
    try:
        fields = _FIELDS.decode(message)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return journal.one_line(bytes(message))  # no message: its load says why
    fields.pop("writeKey", None)
    if kind is not None:
        fields["type"] = kind
    if sent_at is not None:
        fields["sentAt"] = sent_at
    fields["receivedAt"] = received_at
    if "timestamp" in fields and _is_absent(fields, "originalTimestamp"):
        fields["originalTimestamp"] = fields["timestamp"]  # the device's clock said so
    for name, value in shared.items():
        fields[name] = _merged(value, fields.get(name))
    return journal.one_line(_ENCODER.encode(fields))


def _is_absent(fields: Fields, name: str) -> bool:
    return name not in fields or bytes(fields[name]) == b"null"


def _merged(shared: Raw, own: Raw | None) -> Raw:
    """A batch's context with a message's own on top; an own one that is no object stays."""
    if own is None or bytes(own) == b"null":
        return shared
    if not bytes(own).startswith(b"{"):
        return own
    try:
        return Raw(_ENCODER.encode(_FIELDS.decode(shared) | _FIELDS.decode(own)))
    except (msgspec.DecodeError, UnicodeDecodeError):
        return own


def _lenient(body: bytes) -> Batch:
    """A batch in which NaN, Infinity or half a surrogate stands, as Python and JavaScript write
    them: the message that holds it is told apart, so that it alone is rejected."""
    try:
        found = json.loads(body.decode())
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "the body is not JSON") from error
    if not isinstance(found, dict) or not isinstance(found.get("batch"), list):
        raise ApiError(400, "the body is not a batch: expected an object with a list `batch`")
    raw = {name: Raw(json.dumps(found[name]).encode()) for name in _fields(found)}
    return Batch([Raw(json.dumps(one).encode()) for one in found["batch"]], **raw)


def _fields(found: dict[str, object]) -> Iterator[str]:
    return (name for name in Batch.__struct_fields__ if name != "batch" and name in found)


def _text(raw: Raw) -> str | None:
    """A JSON string's value; None for anything else."""
    if not bytes(raw).startswith(b'"'):
        return None
    try:
        return msgspec.json.decode(raw, type=str)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _shown(error: Exception) -> str:
    """What the parser says; it quotes no values."""
    return str(error)[:200]
