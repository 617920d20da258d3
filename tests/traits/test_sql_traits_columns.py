import datetime as dt
from typing import Any

import pyarrow as pa
import pytest

from personas_dagster.errors import WarehouseError
from personas_dagster.traits.sql_rules import identifier, kind_of, shape_of

KNOWN = ("user_id", "email", "anonymous_id", "group_id")


def schema(*names: str, **kinds: pa.DataType) -> pa.Schema:
    return pa.schema([*((name, pa.string()) for name in names), *kinds.items()])


def refused(found: pa.Schema, message: str) -> None:
    with pytest.raises(WarehouseError, match=message):
        shape_of(found, KNOWN)


@pytest.mark.parametrize(
    ("names", "key", "identifiers", "collection"),
    [
        (["ltv", "user_id"], "user_id", ["user_id"], "users"),
        (["ltv", "email", "user_id"], "user_id", ["user_id", "email"], "users"),
        (["ltv", "email", "anonymous_id"], "anonymous_id", ["anonymous_id", "email"], "users"),
        (["ltv", "group_id", "email"], "email", ["email", "group_id"], "users"),
        (["ltv", "group_id"], "group_id", ["group_id"], "accounts"),
    ],
)
def test_key_column(names: list[str], key: str, identifiers: list[str], collection: str) -> None:
    shape = shape_of(schema(*names), KNOWN)
    assert (shape.key, list(shape.identifiers), shape.collection) == (key, identifiers, collection)
    assert shape.traits == ("ltv",)


def test_no_key_column() -> None:
    refused(schema("id", "ltv"), "key column.*found `id`, `ltv`")


def test_two_key_columns() -> None:
    refused(schema("user_id", "anonymous_id", "ltv"), "both `user_id` and `anonymous_id`")


def test_unknown_type() -> None:
    with pytest.raises(WarehouseError, match="type `email` is not known.*knows `user_id`"):
        shape_of(schema("user_id", "email", "ltv"), ["user_id"])


def test_no_trait_column() -> None:
    refused(schema("user_id", "email"), "at least one trait column.*`user_id`, `email` only")


def test_too_many_columns() -> None:
    names = [f"t{n}" for n in range(24)]
    assert len(shape_of(schema("user_id", *names), KNOWN).traits) == 24
    refused(schema("user_id", "email", *names), "at most 25 columns: found 26")


def test_same_name_twice() -> None:
    refused(schema("user_id", "ltv", "ltv"), "found `ltv` more than once")


@pytest.mark.parametrize("name", ["LTV", "life time", "1st", "", "ltv%", "ltv\n", "x" * 101])
def test_wrong_trait_name(name: str) -> None:
    refused(schema("user_id", name), f"snake_case .*: found `{name}`")


@pytest.mark.parametrize(
    "kind",
    [
        pa.list_(pa.int64()),
        pa.struct({"a": pa.int64()}),
        pa.binary(),
        pa.duration("s"),
        pa.time64("us"),
    ],
)
def test_not_scalar(kind: pa.DataType) -> None:
    refused(schema("user_id", ltv=kind), "only scalar types: column `ltv` is")


def test_dictionary_is_its_values() -> None:
    assert kind_of(pa.dictionary(pa.int32(), pa.string())) == "text"


@pytest.mark.parametrize("value", [1.5, 2.0**53, float("nan"), float("inf")])
def test_number_that_is_no_identifier(value: float) -> None:
    with pytest.raises(WarehouseError, match="whole numbers below 2\\^53: column `user_id`"):
        identifier("user_id", pa.array([value, None]))


@pytest.mark.parametrize("value", [True, dt.date(2024, 1, 1)])
def test_no_identifier(value: Any) -> None:
    with pytest.raises(WarehouseError, match="identifiers are text or whole numbers"):
        identifier("user_id", pa.array([value]))


def test_letters_of_emails() -> None:
    names = ["ÄNN@X.org", None, "İ@X.org", " plain@X.org\u2003", ""]
    assert identifier("email", pa.array(names)).to_pylist() == [
        *("änn@x.org", None, "İ@X.org".lower(), "plain@x.org", None)
    ]


@pytest.mark.parametrize("kind", [pa.decimal128(38, 0), pa.float64(), pa.int32(), pa.uint64()])
def test_whole_numbers(kind: pa.DataType) -> None:
    assert identifier("user_id", pa.array([15, None]).cast(kind)).to_pylist() == ["15", None]
