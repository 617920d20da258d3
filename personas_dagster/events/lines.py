"""From a landed file to batches of raw messages: one row per line, with its number.

What belongs here: bytes, gzip, lines, UTF-8. What does not: JSON.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from personas_dagster.events.reasons import LINE_TOO_LONG, NOT_UTF8

BATCH = pa.schema(
    {
        "file_id": pa.int64(),
        "line": pa.int64(),
        "raw": pa.string(),
        "bad_reason": pa.string(),
        "bad_detail": pa.string(),
    }
)
_BLOCK = 4 << 20
_BOM = b"\xef\xbb\xbf"


class Damage:
    """What went wrong with a file while it was read; None when nothing did."""

    def __init__(self) -> None:
        self.reason: str | None = None


class Progress:
    """How many bytes of the landed files were read since `take` was last called."""

    def __init__(self) -> None:
        self._read = 0

    def add(self, count: int) -> None:
        self._read += count

    def take(self) -> int:
        count, self._read = self._read, 0
        return count


def read_blocks(
    path: Path, *, gzipped: bool, damage: Damage, progress: Progress
) -> Iterator[bytes]:
    """The bytes of a file, unpacked, in blocks of at most 4 MiB."""
    try:
        with path.open("rb") as stream:
            packed = iter(lambda: stream.read(_BLOCK // 4 if gzipped else _BLOCK), b"")
            counted = _counted(packed, progress)
            yield from _gunzip(counted, damage) if gzipped else counted
    except OSError as error:
        damage.reason = f"cannot be read: {error.strerror or error}"


def _counted(blocks: Iterator[bytes], progress: Progress) -> Iterator[bytes]:
    for block in blocks:
        progress.add(len(block))
        yield block


def _gunzip(packed: Iterator[bytes], damage: Damage) -> Iterator[bytes]:
    """All members of a gzip file, up to the first byte that cannot be unpacked."""
    member, done, fresh = zlib.decompressobj(31), 0, True
    for block in packed:
        rest = block
        while rest:
            if member.eof:
                if not rest.strip(b"\0"):  # padding, as gzip itself allows
                    break
                member, fresh = zlib.decompressobj(31), True
            before = member.copy()
            try:
                text = member.decompress(rest, _BLOCK)
            except zlib.error as error:
                text, bytes_in = _readable_part(before, rest)
                position = done + len(block) - len(rest) + bytes_in
                damage.reason = f"gzip is damaged near byte {position:,}: {error}"
                yield text
                return
            fresh = False
            if text:
                yield text
            rest = member.unused_data if member.eof else member.unconsumed_tail
        done += len(block)
    if not member.eof and not fresh:
        damage.reason = f"gzip ends too early, after {done:,} bytes"
        yield member.flush()


def _readable_part(member: zlib._Decompress, packed: bytes) -> tuple[bytes, int]:
    """What can be unpacked of a block that fails, found in ever smaller steps."""
    parts, position = [], 0
    for step in (65_536, 1_024, 16, 1):
        while position < len(packed):
            before = member.copy()
            try:
                parts.append(member.decompress(packed[position : position + step]))
            except zlib.error:
                member = before
                break
            position += step
    return b"".join(parts), position


def read_lines(
    file_id: int, blocks: Iterator[bytes], damage: Damage, *, limit: int
) -> Iterator[pa.RecordBatch]:
    """Batches of whole lines. Lines count from 1; `limit` is the longest line in bytes."""
    number, carry, dropped = 1, b"", 0
    first = True
    for block in blocks:
        if first:
            block, first = block.removeprefix(_BOM), False
        end = block.rfind(b"\n") + 1
        if not end:
            carry += block
            if len(carry) > limit + 1:  # keep the start of an endless line, count the rest
                dropped += len(carry) - (limit + 1)
                carry = carry[: limit + 1]
            continue
        if dropped:
            cut = block.find(b"\n")
            length = len(carry) + dropped + cut
            yield _batch(file_id, [(number, carry, length)], limit)
            number, carry, dropped, block, end = number + 1, b"", 0, block[cut + 1 :], end - cut - 1
        text, carry = carry + block[:end], block[end:]
        if text:
            batch, count = _split(file_id, number, text, limit)
            yield batch
            number += count
    # A proper beginning of a JSON object is never one, so an object is whole whatever follows.
    if carry and (damage.reason is None or _is_object(carry)):
        yield _batch(file_id, [(number, carry, len(carry) + dropped)], limit)
    elif carry:
        damage.reason = f"{damage.reason}; line {number:,} is cut off and was left out"


def _is_object(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _split(file_id: int, number: int, text: bytes, limit: int) -> tuple[pa.RecordBatch, int]:
    """Lines without a copy: the text itself is the column's buffer."""
    ends = np.flatnonzero(np.frombuffer(text, dtype=np.uint8) == 10).astype(np.int64) + 1
    offsets = np.zeros(len(ends) + 1, dtype=np.int32)
    offsets[1:] = ends
    count = len(ends)
    raw = pa.StringArray.from_buffers(count, pa.py_buffer(offsets), pa.py_buffer(text))
    if int(np.diff(offsets).max()) <= limit and _is_utf8(raw):
        numbers = pa.array(np.arange(number, number + count))
        nothing = pa.nulls(count, pa.string())
        columns = [pa.array(np.full(count, file_id)), numbers, raw, nothing, nothing]
        return pa.RecordBatch.from_arrays(columns, schema=BATCH), count
    starts = offsets[:-1]
    lines = [text[a:b] for a, b in zip(starts, offsets[1:], strict=True)]
    return _batch(
        file_id, [(number + i, line, len(line)) for i, line in enumerate(lines)], limit
    ), count


def _is_utf8(raw: pa.StringArray) -> bool:
    try:
        raw.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _batch(file_id: int, lines: list[tuple[int, bytes, int]], limit: int) -> pa.RecordBatch:
    """Rows one by one, for text in which something is wrong."""
    rows = [_row(line.rstrip(b"\r\n"), length, limit) for _, line, length in lines]
    columns: list[list[object]] = [
        [file_id] * len(lines),
        [number for number, _, _ in lines],
        [raw for raw, _, _ in rows],
        [reason for _, reason, _ in rows],
        [detail for _, _, detail in rows],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, BATCH, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=BATCH)


def _row(line: bytes, length: int, limit: int) -> tuple[str, str | None, str | None]:
    if len(line) > limit:
        start = line[:limit].decode(errors="backslashreplace")
        return start, LINE_TOO_LONG, f"found about {length:,} bytes, at most {limit:,}"
    try:
        return line.decode(), None, None
    except UnicodeDecodeError as error:
        raw = line.decode(errors="backslashreplace")
        return raw, NOT_UTF8, f"found byte 0x{line[error.start]:02x} at position {error.start}"
