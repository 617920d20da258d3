import sqlite3
from pathlib import Path

import pyarrow as pa
import pytest

from personas_dagster.errors import WarehouseError
from personas_dagster.warehouses import Warehouse, open_warehouse
from personas_dagster.warehouses.database import BATCH_ROWS


def test_streams_batches(sqlite: Warehouse) -> None:
    with sqlite.stream("SELECT * FROM users ORDER BY rowid") as reader:
        assert reader.schema == pa.schema(
            {"user_id": pa.string(), "score": pa.int64(), "ltv": pa.float64(), "note": pa.string()}
        )
        batches = list(reader)
    assert [batch.num_rows for batch in batches] == [BATCH_ROWS, BATCH_ROWS, 5_000]
    assert batches[0].slice(7, 1).to_pylist() == [
        {"user_id": "u7", "score": None, "ltv": 3.5, "note": "100% :ok"}
    ]


def test_takes_query_as_written(sqlite: Warehouse) -> None:
    query = "SELECT user_id FROM users WHERE note LIKE '%:ok' AND user_id = 'u1';"
    with sqlite.stream(query) as reader:
        assert reader.read_all().to_pylist() == [{"user_id": "u1"}]


def test_no_rows(sqlite: Warehouse) -> None:
    with sqlite.stream("SELECT user_id, score FROM users WHERE 0") as reader:
        assert reader.schema.names == ["user_id", "score"]
        assert reader.read_all().num_rows == 0


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM users",
        "INSERT INTO users (user_id) VALUES ('x') RETURNING user_id",
        "CREATE TABLE other (a)",
        "PRAGMA query_only=OFF",
        "SELECT 1; DELETE FROM users",
    ],
)
def test_refuses_writing(sqlite: Warehouse, query: str) -> None:
    with pytest.raises(WarehouseError), sqlite.stream(query) as reader:
        reader.read_all()
    with sqlite.stream("SELECT count(*) AS n FROM users") as reader:
        assert reader.read_all().to_pylist() == [{"n": 25_000}]


def test_missing_file_is_not_made(tmp_path: Path) -> None:
    path = tmp_path / "nowhere.db"
    with (
        pytest.raises(WarehouseError, match="unable to open"),
        open_warehouse(f"sqlite:///{path}").stream("SELECT 1"),
    ):
        pass
    assert not path.exists()


def test_type_settled_late(sqlite: Warehouse) -> None:
    query = "SELECT CASE WHEN score > 15000 THEN score END AS s FROM users ORDER BY ltv"
    with sqlite.stream(query) as reader:
        assert reader.schema.field("s").type == pa.int64()
        assert reader.read_all().column("s").null_count == 15_001


def test_type_changes(sqlite: Warehouse) -> None:
    query = "SELECT CASE WHEN ltv < 5000 THEN score ELSE note END AS s FROM users ORDER BY ltv"
    with sqlite.stream(query) as reader, pytest.raises(WarehouseError, match="`s` was int64"):
        reader.read_all()


def test_bytes_are_refused(sqlite: Warehouse) -> None:
    with pytest.raises(WarehouseError, match="`b` holds bytes: only scalar types"):
        with sqlite.stream("SELECT x'00' AS b"):
            pass


def test_unknown_column(sqlite: Warehouse) -> None:
    with pytest.raises(WarehouseError, match="no such column: nope"):
        with sqlite.stream("SELECT nope FROM users"):
            pass


def test_error_of_the_reader_passes(sqlite: Warehouse) -> None:
    with pytest.raises(sqlite3.Error, match="mine"), sqlite.stream("SELECT 1 AS a"):
        raise sqlite3.Error("mine")
