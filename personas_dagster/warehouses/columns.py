"""From rows of a database driver to Arrow columns of scalar types.

A column's type is read off the first rows that have a value in it, and kept: int64, float64
(also decimals), string (also UUIDs), bool, date32, or timestamp with microseconds in UTC.
"""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from personas_dagster.errors import WarehouseError
from personas_dagster.lake.tables import INSTANT

_TYPES: dict[type, pa.DataType] = {
    bool: pa.bool_(),
    int: pa.int64(),
    float: pa.float64(),
    decimal.Decimal: pa.float64(),
    str: pa.string(),
    uuid.UUID: pa.string(),
    dt.datetime: INSTANT,
    dt.date: pa.date32(),
}
_CONVERTED = {decimal.Decimal: float, uuid.UUID: str}


def type_of(name: str, values: Sequence[Any]) -> pa.DataType | None:
    """The Arrow type that fits all values of a column; None when every one is null.

    >>> type_of("n", [1, None, 2.5]), type_of("n", [None])
    (DataType(double), None)
    """
    found = {_scalar(name, kind) for kind in _kinds(values)}
    if found == {pa.int64(), pa.float64()}:
        return pa.float64()
    if len(found) > 1:
        kinds = " and ".join(sorted(str(kind) for kind in found))
        raise WarehouseError(f"column `{name}` mixes {kinds}; cast it to one type in the query")
    return found.pop() if found else None


def to_arrow(name: str, values: Sequence[Any], wanted: pa.DataType) -> pa.Array:
    """One batch of a column as the type that was settled for it."""
    found = type_of(name, values)
    if found not in (None, wanted) and (found, wanted) != (pa.int64(), pa.float64()):
        raise WarehouseError(
            f"column `{name}` was {wanted} in the first rows and is {found} later; "
            "cast it to one type in the query"
        )
    for kind in _kinds(values):
        if convert := _CONVERTED.get(kind):
            values = [None if value is None else convert(value) for value in values]
    try:
        return pa.array(values, wanted)
    except (pa.ArrowException, ValueError, OverflowError):
        raise WarehouseError(
            f"column `{name}` holds a value that does not fit {wanted}; cast it in the query"
        ) from None


def _kinds(values: Sequence[Any]) -> set[type]:
    return set(map(type, values)) - {type(None)}


def _scalar(name: str, kind: type) -> pa.DataType:
    for base in kind.__mro__:
        if base in _TYPES:
            return _TYPES[base]
    raise WarehouseError(
        f"column `{name}` holds {kind.__name__}: only scalar types (numbers, text, booleans, "
        "dates, timestamps); cast it to text in the query or leave it out"
    )
