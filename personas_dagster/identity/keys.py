"""Identifiers and profiles as 128 bits: two integers in place of a text.

What a load touches is looked for in tables as large as the graph, so those carry, beside their
texts, pairs of narrow columns (`lake/halves.py`): a profile's are its id, which is an MD5 hash; an
identifier's are the MD5 hash of what it is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from personas_dagster.interfaces import Session
from personas_dagster.lake.halves import HALF, signed

Ints = npt.NDArray[Any]
_DIGITS = 32
_TEXTS = np.frombuffer(bytes(range(256)).hex().encode(), np.uint16)
_CODES = np.zeros(256, np.uint8)
_CODES[np.frombuffer(b"0123456789abcdef", np.uint8)] = np.arange(16)
# Shifts and masks, since DuckDB's functions for one half take five times as long.
_HIGH, _LOW = "({0} >> 64)::UBIGINT", f"({{0}} & {(1 << 64) - 1}::UHUGEINT)::UBIGINT"
_KEYS = f"""
SELECT id, {_HIGH.format("key")} AS high, {_LOW.format("key")} AS low
FROM (SELECT id, md5_number({{name}}) AS key FROM named)
"""


def _name(collection: str, kind: str, value: str) -> str:
    """One text for an identifier; the length keeps type and value apart."""
    return f"concat_ws(chr(31), {collection}, strlen({kind})::VARCHAR, {kind}, {value})"


def key_sql(collection: str, kind: str, value: str) -> tuple[str, str]:
    """An identifier's key, as SQL over expressions."""
    key = f"md5_number({_name(collection, kind, value)})"
    return signed(_HIGH.format(key)), signed(_LOW.format(key))


def identifier_keys(session: Session, named: pa.Table, collection: str) -> tuple[Ints, Ints]:
    """The keys of identifiers (`named`: id, type, value; ids count from 0), by id."""
    if not named.num_rows:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    session.register("named", named)
    found = session.fetch(_KEYS.format(name=_name("$1", "type", "value")), [collection])
    spots = found.column("id").to_numpy()
    high, low = np.empty((2, named.num_rows), np.uint64)
    high[spots], low[spots] = found.column("high").to_numpy(), found.column("low").to_numpy()
    return _to_signed(high), _to_signed(low)


def halves(ids: pa.Array) -> tuple[Ints, Ints]:
    """Profile ids as two integers each."""
    if not len(ids):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    offsets = np.frombuffer(ids.buffers()[1], np.int32)[ids.offset :]
    start, end = int(offsets[0]), int(offsets[len(ids)])
    if end - start != _DIGITS * len(ids):
        raise ValueError("a profile's id must have 32 hexadecimal digits")
    codes = _CODES[np.frombuffer(ids.buffers()[2], np.uint8)[start:end]].reshape(-1, _DIGITS)
    words = (codes[:, ::2] << 4 | codes[:, 1::2]).view(">u8").astype(np.uint64)
    return _to_signed(words[:, 0]), _to_signed(words[:, 1])


def texts(high: Ints, low: Ints) -> pa.Array:
    """The ids of which these are the halves."""
    words = np.stack([high, low], axis=1).view(np.uint64) ^ np.uint64(HALF)
    digits = _TEXTS[words.astype(">u8").view(np.uint8)]
    offsets = np.arange(len(high) + 1, dtype=np.int32) * _DIGITS
    return pa.StringArray.from_buffers(len(high), pa.py_buffer(offsets), pa.py_buffer(digits))


def _to_signed(words: Ints) -> Ints:
    return np.asarray(words ^ np.uint64(HALF)).view(np.int64)
