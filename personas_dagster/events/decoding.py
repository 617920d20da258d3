"""From raw messages to checked rows: one pass of SQL over each chunk of lines.

Each line is parsed twice, once for the JSON types of its fields and once for their values;
the few lines that SQL cannot settle (no `messageId`, or JSON that only DuckDB lets pass) are
looked at one by one. The SQL is in `judging`.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from personas_dagster.events.judging import DECODE, MACROS
from personas_dagster.events.reasons import NOT_JSON
from personas_dagster.interfaces import Session

_INSTANT = pa.timestamp("us", tz="UTC")
STAGED = pa.schema(
    {
        "file_id": pa.int64(),
        "line": pa.int64(),
        "load_id": pa.int64(),
        "source_id": pa.string(),
        "message_id": pa.string(),
        "type": pa.string(),
        "event": pa.string(),
        "user_id": pa.string(),
        "anonymous_id": pa.string(),
        "group_id": pa.string(),
        "previous_id": pa.string(),
        "timestamp": _INSTANT,
        "received_at": _INSTANT,
        "sent_at": _INSTANT,
        "original_timestamp": _INSTANT,
        "properties": pa.string(),
        "traits": pa.string(),
        "context": pa.string(),
        "integrations": pa.string(),
        "received_date": pa.date32(),
        "is_rejected": pa.bool_(),
        "reason": pa.string(),
        "detail": pa.string(),
        "raw": pa.string(),
        "clock_skew": pa.bool_(),
        "oversize": pa.bool_(),
        "empty_group_id": pa.bool_(),
    }
)


@dataclass(frozen=True)
class FileFacts:
    """What a message takes over from its file and its load."""

    file_id: int
    load_id: int
    source_id: str
    landed_at: dt.datetime
    max_properties: int
    oversize_bytes: int


_FACTS = pa.schema(
    {
        "file_id": pa.int64(),
        "load_id": pa.int64(),
        "source_id": pa.string(),
        "landed_at": _INSTANT,
        "max_properties": pa.int64(),
        "oversize_bytes": pa.int64(),
    }
)


class Decoder:
    """Decodes chunks of lines of the given files in one session."""

    def __init__(self, session: Session, files: Sequence[FileFacts]) -> None:
        self._session = session
        self._landed_at = {file.file_id: file.landed_at for file in files}
        for macro in MACROS:
            session.run(macro)
        rows = [{name: getattr(file, name) for name in _FACTS.names} for file in files]
        session.register("files", pa.Table.from_pylist(rows, schema=_FACTS))

    def decode(self, lines: pa.Table) -> pa.Table:
        """Rows of `STAGED` for the lines of one chunk (`lines.BATCH`); blank lines have none."""
        self._session.register("lines", lines)
        rows = self._session.fetch(DECODE)
        if pc.any(rows["is_suspect"]).as_py():
            rows = self._recheck(rows)
        if pc.any(rows["needs_id"]).as_py():
            rows = _with_ids(rows)
        rejected = pc.is_valid(rows["reason"])
        raw = pc.if_else(rejected, rows["raw"], pa.scalar(None, pa.string()))
        rows = _put(rows, "raw", raw).append_column("is_rejected", rejected)
        return rows.select(STAGED.names).cast(STAGED)

    def _recheck(self, rows: pa.Table) -> pa.Table:
        """Reject what is not JSON by the standard among the lines that may not be."""
        known_bad = pc.is_valid(rows["reason"])
        numbers = pc.indices_nonzero(pc.and_not(rows["is_suspect"], known_bad)).to_numpy()
        some = rows.take(pa.array(numbers))
        texts = some["raw"].to_pylist()
        bad = [i for i, text in enumerate(texts) if not _is_strict_json(text)]
        if not bad:
            return rows
        mask = np.zeros(rows.num_rows, dtype=bool)
        mask[numbers[bad]] = True
        files = some["file_id"].to_pylist()
        dates = [self._landed_at[files[i]].astimezone(dt.UTC).date() for i in bad]
        details = [f"found {texts[i][:60]}" for i in bad]
        rows = _replaced(rows, "reason", mask, pa.array([NOT_JSON] * len(bad), pa.string()))
        rows = _replaced(rows, "detail", mask, pa.array(details, pa.string()))
        rows = _replaced(rows, "needs_id", mask, pa.array([False] * len(bad)))
        return _replaced(rows, "received_date", mask, pa.array(dates, pa.date32()))


def _with_ids(rows: pa.Table) -> pa.Table:
    mask = rows["needs_id"].to_numpy()
    texts = rows.filter(rows["needs_id"])["raw"].to_pylist()
    ids = pa.array([message_hash(text) for text in texts], pa.string())
    return _replaced(rows, "message_id", mask, ids)


def message_hash(text: str) -> str:
    """An id made from a message, whatever the order of its keys and when it was sent."""
    try:
        message = msgspec.json.decode(text)
        for key in ("messageId", "receivedAt", "sentAt"):
            message.pop(key, None)
        canonical = msgspec.json.encode(message, order="sorted")
    except (msgspec.DecodeError, RecursionError):  # numbers beyond all bounds, or a deep nest
        canonical = text.strip().encode()
    return hashlib.blake2b(canonical, digest_size=16).hexdigest()


def _is_strict_json(text: str) -> bool:
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError:
        return _is_strict_python(text)
    except RecursionError:
        return False
    return True


def _is_strict_python(text: str) -> bool:
    """Python takes numbers beyond all bounds, which are JSON."""
    try:
        json.loads(text, parse_constant=_refuse, parse_int=len)
    except (ValueError, RecursionError):
        return False
    return True


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _replaced(rows: pa.Table, name: str, mask: Any, values: pa.Array) -> pa.Table:
    column = rows[name].combine_chunks()
    column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    return _put(rows, name, pc.replace_with_mask(column, pa.array(mask), values.cast(column.type)))


def _put(rows: pa.Table, name: str, values: pa.Array) -> pa.Table:
    return rows.set_column(rows.schema.get_field_index(name), name, values)
