"""The grammar of names in docs/naming.md, held against the lake's tables."""

import re

import pyarrow as pa
import pytest

from personas_dagster.lake import TABLES

COLUMNS = [(t.name, field) for t in TABLES.values() for field in t.schema]
INSTANTS = {"timestamp", "original_timestamp", "as_of", "at"}


@pytest.mark.parametrize(("table", "field"), COLUMNS, ids=[f"{t}.{f.name}" for t, f in COLUMNS])
def test_columns_say_what_they_hold(table: str, field: pa.Field) -> None:
    assert re.fullmatch(r"[a-z][a-z0-9_]*", field.name)
    is_instant = pa.types.is_timestamp(field.type)
    assert is_instant == (field.name.endswith("_at") or field.name in INSTANTS)
    if is_instant:
        assert field.type == pa.timestamp("us", tz="UTC")
    assert pa.types.is_date(field.type) == field.name.endswith("_date")
    assert pa.types.is_boolean(field.type) == field.name.startswith(("is_", "has_"))
    if field.name.endswith("_id"):
        assert pa.types.is_string(field.type) or pa.types.is_int64(field.type)


def test_partitions_and_bookkeeping_are_columns() -> None:
    for table in TABLES.values():
        assert {*table.partition_by, *table.bookkeeping} <= set(table.schema.names)
