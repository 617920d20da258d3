import datetime as dt
import uuid
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from personas_dagster.errors import WarehouseError
from personas_dagster.warehouses.columns import to_arrow, type_of

EAST = dt.timezone(dt.timedelta(hours=2))
INSTANT = pa.timestamp("us", tz="UTC")


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1, None], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([Decimal("1.5"), Decimal(2), None], pa.float64()),
        ([True, None], pa.bool_()),
        (["a"], pa.string()),
        ([uuid.UUID(int=1)], pa.string()),
        ([dt.date(2024, 1, 1)], pa.date32()),
        ([dt.datetime(2024, 1, 1)], INSTANT),
        ([None, None], None),
    ],
)
def test_types(values: list[Any], expected: pa.DataType | None) -> None:
    assert type_of("c", values) == expected
    if expected is not None:
        assert to_arrow("c", values, expected).type == expected


def test_instants_become_utc() -> None:
    values = [dt.datetime(2024, 1, 1, 12, tzinfo=EAST), dt.datetime(2024, 1, 1, 12)]
    assert [v.hour for v in to_arrow("c", values, INSTANT).to_pylist()] == [10, 12]


@pytest.mark.parametrize("value", [[1], {"a": 1}, b"x", dt.timedelta(1), dt.time(1)])
def test_not_scalar(value: object) -> None:
    with pytest.raises(WarehouseError, match=f"`c` holds {type(value).__name__}: only scalar"):
        type_of("c", [None, value])


def test_mixed() -> None:
    with pytest.raises(WarehouseError, match="`c` mixes int64 and string"):
        type_of("c", [1, "a"])


def test_whole_numbers_fit_decimals() -> None:
    assert to_arrow("c", [1, 2], pa.float64()).to_pylist() == [1.0, 2.0]


def test_too_large_a_number() -> None:
    with pytest.raises(WarehouseError, match="does not fit int64"):
        to_arrow("c", [2**70], pa.int64())
