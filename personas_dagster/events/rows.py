"""From Parquet and CSV files to the same batches of raw messages as JSON lines give.

A row becomes the JSON object it stands for: columns are fields (`messageId` or `message_id`),
dotted columns are members of objects (`properties.revenue`), empty cells and nulls are absent.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from personas_dagster.events.lines import BATCH, Damage, Progress, read_blocks
from personas_dagster.events.reasons import LINE_TOO_LONG, NOT_UTF8

_FIELDS = (
    "messageId type userId anonymousId event name properties traits context groupId previousId "
    "timestamp originalTimestamp sentAt receivedAt integrations"
).split()
_SNAKE = {re.sub("([A-Z])", lambda found: "_" + found[1].lower(), name): name for name in _FIELDS}
_OBJECTS = {"properties", "traits", "context", "integrations"}
_NUMBER = re.compile(r"-?(0|[1-9]\d{0,14})(\.\d{1,15})?")
_CONSTANTS = {"true": True, "false": False}
_ROWS = 8_192
_ENCODER = msgspec.json.Encoder(decimal_format="number")

Row = dict[str, Any]


def read_parquet(
    file_id: int, path: Path, damage: Damage, progress: Progress, *, limit: int
) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet file."""
    number = 1
    try:
        with pq.ParquetFile(path) as file:
            share = path.stat().st_size / max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(batch_size=_ROWS):
                table = _in_microseconds(pa.Table.from_batches([batch]))
                build = _builder(table.schema.names, _parquet_value)
                columns = [column.to_pylist() for column in table.columns]
                texts = [_text(build(cells), limit) for cells in zip(*columns, strict=True)]
                yield _batch(file_id, number, texts)
                number += len(texts)
                progress.add(int(share * len(texts)))
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = str(error).splitlines()[0]
        damage.reason = f"Parquet is damaged after row {number - 1:,}: {reason}"


def read_csv(
    file_id: int, path: Path, damage: Damage, progress: Progress, *, gzipped: bool, limit: int
) -> Iterator[pa.RecordBatch]:
    """The rows of a CSV file with a header."""
    csv.field_size_limit(8 * limit)
    blocks = read_blocks(path, gzipped=gzipped, damage=damage, progress=progress)
    reader = csv.reader(_text_lines(blocks), strict=True)
    number, texts = 1, list[tuple[str, str | None, str | None]]()
    try:
        header = next(reader, [])
        build = _builder(header, _csv_value)
        for cells in reader:
            if cells:
                texts.append(_csv_row(build, header, cells, limit))
            if len(texts) == _ROWS:
                yield _batch(file_id, number, texts)
                number, texts = number + len(texts), []
    except csv.Error as error:
        damage.reason = f"CSV is damaged after row {number + len(texts) - 1:,}: {error}"
    if damage.reason and damage.reason.startswith("gzip") and texts:
        texts.pop()  # the row that the damage cuts off
    if texts:
        yield _batch(file_id, number, texts)


def _text_lines(blocks: Iterator[bytes]) -> Iterator[str]:
    carry = b""
    first = True
    for block in blocks:
        if first:
            block, first = block.removeprefix(b"\xef\xbb\xbf"), False
        *lines, carry = (carry + block).split(b"\n")
        for line in lines:
            yield line.decode(errors="surrogateescape") + "\n"
    if carry:
        yield carry.decode(errors="surrogateescape")


def _csv_row(
    build: Callable[[Any], Row], header: list[str], cells: list[str], limit: int
) -> tuple[str, str | None, str | None]:
    cells = cells[: len(header)] + [""] * (len(header) - len(cells))
    try:
        for cell in cells:
            cell.encode()
    except UnicodeEncodeError:
        raw = ",".join(cells).encode(errors="surrogateescape").decode(errors="backslashreplace")
        return raw, NOT_UTF8, "found bytes that are not UTF-8"
    return _text(build(cells), limit)


def _in_microseconds(table: pa.Table) -> pa.Table:
    """Python's instants have microseconds; finer ones are cut, as in text."""
    for index, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            kind = pa.timestamp("us", tz=field.type.tz)
            table = table.set_column(index, field.name, table[index].cast(kind, safe=False))
    return table


def _builder(names: list[str], value: Callable[[Any, bool, bool], Any]) -> Callable[[Any], Row]:
    """How a row's cells become a message; whole objects go in before their dotted members."""
    paths = [_path(name) for name in names]
    order = sorted(range(len(names)), key=lambda index: len(paths[index]))

    def build(cells: Any) -> Row:
        message: Row = {}
        for index in order:
            path = paths[index]
            dotted = len(path) > 1
            found = value(cells[index], path[0] in _OBJECTS and not dotted, dotted)
            if found is not None:
                _put(message, path, found)
        return message

    return build


def _path(name: str) -> list[str]:
    """`context.device.id` is a member of `context`; `context.a\\.b` is not offered."""
    first, *rest = name.strip().split(".")
    field = _SNAKE.get(first, first)
    return [field, *rest] if field in _OBJECTS else [_SNAKE.get(name.strip(), name.strip())]


def _put(message: Row, path: list[str], found: Any) -> None:
    place = message
    for key in path[:-1]:
        inner = place.setdefault(key, {})
        if not isinstance(inner, dict):
            return  # the whole object's cell is not an object: that is what is judged
        place = inner
    place[path[-1]] = found


def _csv_value(cell: str, is_object: bool, is_dotted: bool) -> Any:
    if cell == "":
        return None
    if is_object:
        return _parsed(cell)
    if is_dotted:
        if cell in _CONSTANTS:
            return _CONSTANTS[cell]
        if _NUMBER.fullmatch(cell):
            return msgspec.json.decode(cell)
    return cell


def _parquet_value(cell: Any, is_object: bool, is_dotted: bool) -> Any:
    if isinstance(cell, bytes):  # text that its writer did not mark as such
        cell = cell.decode(errors="backslashreplace")
    if isinstance(cell, str):
        return _parsed(cell) if is_object else cell
    if is_object and isinstance(cell, list) and all(isinstance(pair, tuple) for pair in cell):
        cell = dict(cell)  # Arrow's maps
    return _present(cell)


def _parsed(cell: str) -> Any:
    if not cell.strip():
        return None
    try:
        return msgspec.json.decode(cell)
    except (msgspec.DecodeError, RecursionError):
        return cell


def _present(value: Any) -> Any:
    """A struct without its nulls: a column that a row does not use is no member."""
    if isinstance(value, dict):
        return {key: _present(inner) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [_present(inner) for inner in value]
    return value


def _text(message: Row, limit: int) -> tuple[str, str | None, str | None]:
    text = _ENCODER.encode(message)
    if len(text) > limit:
        detail = f"found {len(text):,} bytes, at most {limit:,}"
        return text[:limit].decode(errors="backslashreplace"), LINE_TOO_LONG, detail
    return text.decode(), None, None


def _batch(
    file_id: int, number: int, texts: list[tuple[str, str | None, str | None]]
) -> pa.RecordBatch:
    columns: list[list[Any]] = [
        [file_id] * len(texts),
        list(range(number, number + len(texts))),
        *([text[index] for text in texts] for index in range(3)),
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, BATCH, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=BATCH)
