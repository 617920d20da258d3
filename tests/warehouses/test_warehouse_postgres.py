import datetime as dt
import traceback

import pyarrow as pa
import pytest
import sqlalchemy as sa

from personas_dagster.errors import WarehouseError
from personas_dagster.warehouses import open_warehouse
from personas_dagster.warehouses.database import BATCH_ROWS

pytestmark = pytest.mark.postgres


def test_streams_batches(postgres_url: str, postgres_table: str) -> None:
    with open_warehouse(postgres_url).stream(f"SELECT * FROM {postgres_table}") as reader:
        sizes = [batch.num_rows for batch in reader]
    assert sizes == [BATCH_ROWS, BATCH_ROWS, 5_000]


def test_first_rows_come_at_once(postgres_url: str) -> None:
    query = "SELECT 1 / (20000 - generate_series(1, 1000000000)) AS x"
    with open_warehouse(postgres_url).stream(query) as reader:
        assert reader.read_next_batch().num_rows == BATCH_ROWS
        with pytest.raises(WarehouseError, match="division by zero"):
            reader.read_next_batch()


def test_types(postgres_url: str) -> None:
    query = """
        SELECT 1::smallint AS whole, 12.50::numeric AS decimal, true AS yes, 'ä%s :x'::text AS text,
               DATE '2024-01-02' AS day, TIMESTAMPTZ '2024-01-02 03:04:05+02' AS at,
               '00000000-0000-0000-0000-000000000001'::uuid AS id,
               NULL::bigint AS nothing, NULL::timestamptz AS never
    """
    with open_warehouse(postgres_url).stream(query) as reader:
        assert [str(kind) for kind in reader.schema.types] == [
            *("int64", "double", "bool", "string", "date32[day]", "timestamp[us, tz=UTC]"),
            *("string", "int64", "timestamp[us, tz=UTC]"),
        ]
        row = reader.read_all().to_pylist()[0]
    assert row["at"] == dt.datetime(2024, 1, 2, 1, 4, 5, tzinfo=dt.UTC)
    assert (row["decimal"], row["text"]) == (12.5, "ä%s :x")


def test_type_of_late_values(postgres_url: str) -> None:
    query = "SELECT CASE WHEN n > 150000 THEN n END AS n FROM generate_series(1, 150001) n"
    with open_warehouse(postgres_url).stream(query) as reader:
        column = reader.read_all().column("n")
    assert (column.type, column.null_count) == (pa.int64(), 150_000)


@pytest.mark.parametrize("value", ["ARRAY[1]", "'{}'::jsonb", "'x'::bytea", "INTERVAL '1 day'"])
def test_not_scalar(postgres_url: str, value: str) -> None:
    with pytest.raises(WarehouseError, match="`c` holds .*: only scalar types"):
        with open_warehouse(postgres_url).stream(f"SELECT {value} AS c"):
            pass


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM {table}",
        "DELETE FROM {table} RETURNING n",
        "WITH gone AS (DELETE FROM {table} RETURNING n) SELECT * FROM gone",
        "SELECT n INTO other FROM {table}",
        "SELECT 1; COMMIT; DELETE FROM {table}",
        "DROP TABLE {table}",
        "SELECT set_config('transaction_read_only', 'off', false), lo_create(0)",
    ],
)
def test_refuses_writing(postgres_url: str, postgres_table: str, query: str) -> None:
    warehouse = open_warehouse(postgres_url)
    with pytest.raises(WarehouseError):
        with warehouse.stream(query.format(table=postgres_table)) as reader:
            reader.read_all()
    with warehouse.stream(f"SELECT count(*) AS n FROM {postgres_table}") as reader:
        assert reader.read_all().to_pylist() == [{"n": 25_000}]


def test_wrong_password_stays_hidden(postgres_url: str) -> None:
    url = sa.make_url(postgres_url).set(username="nobody", password="pl4nt3d-marker")
    warehouse = open_warehouse(url.render_as_string(hide_password=False))
    with pytest.raises(WarehouseError) as caught, warehouse.stream("SELECT 1"):
        pass
    assert "pl4nt3d" not in "".join(traceback.format_exception(caught.value))
