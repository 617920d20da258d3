import datetime as dt
from pathlib import Path

import pyarrow as pa
import pytest

from personas_dagster.engines import DuckDBEngine
from personas_dagster.errors import WarehouseError
from personas_dagster.lake import DeltaLake
from personas_dagster.lake.tables import TABLES
from personas_dagster.warehouses import LakeWarehouse, lake_warehouse
from personas_dagster.warehouses.lake import check

SECRET = "/etc/passwd"


@pytest.fixture
def lake(tmp_path: Path) -> DeltaLake:
    lake = DeltaLake(tmp_path / "lake")
    seen = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
    rows = [
        {"profile_id": f"p{n}", "type": "user_id", "value": f"u{n}", "first_seen_at": seen}
        for n in range(3)
    ]
    lake.append("identifiers", pa.Table.from_pylist(rows, schema=TABLES["identifiers"].schema))
    return lake


@pytest.fixture
def warehouse(lake: DeltaLake) -> LakeWarehouse:
    return lake_warehouse(DuckDBEngine(threads=1), lake)


def rows(warehouse: LakeWarehouse, query: str) -> list[dict[str, object]]:
    with warehouse.stream(query) as reader:
        found: list[dict[str, object]] = reader.read_all().to_pylist()
    return found


def test_reads_tables(warehouse: LakeWarehouse) -> None:
    query = """
        WITH people AS (SELECT value AS user_id FROM Identifiers WHERE type = 'user_id')
        SELECT p.user_id, count(a.profile_id) AS audiences
        FROM people p LEFT JOIN audience_memberships a ON a.profile_id = p.user_id
        WHERE p.user_id <> 'u2' GROUP BY ALL ORDER BY user_id;
    """
    assert rows(warehouse, query) == [
        {"user_id": "u0", "audiences": 0},
        {"user_id": "u1", "audiences": 0},
    ]


def test_reads_a_snapshot(lake: DeltaLake) -> None:
    published = lake_warehouse(DuckDBEngine(threads=1), lake.at({}))
    assert rows(published, "SELECT count(*) AS n FROM identifiers") == [{"n": 0}]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT * FROM range(2)",
        "SELECT unnest([1, 2]) AS n",
        "WITH RECURSIVE t AS (SELECT 1 AS n UNION ALL SELECT n + 1 FROM t WHERE n < 2) FROM t",
        "SELECT key FROM identifiers, json_each('{\"a\": 1}') LIMIT 2",
    ],
)
def test_other_places_to_read(warehouse: LakeWarehouse, query: str) -> None:
    assert len(rows(warehouse, query)) == 2


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM identifiers",
        "INSERT INTO identifiers SELECT * FROM identifiers",
        "CREATE TABLE other AS SELECT 1",
        "SELECT 1; SELECT 2",
        f"COPY identifiers TO '{SECRET}'",
        f"ATTACH '{SECRET}'",
        "PRAGMA version",
        "SET threads = 1",
        "INSTALL httpfs",
        "DESCRIBE identifiers",
        "FROM (SUMMARIZE identifiers)",
        "",
    ],
)
def test_one_select(query: str) -> None:
    with pytest.raises(WarehouseError, match="the lake is read only"):
        check(query)


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT * FROM '{SECRET}.csv'",
        f"SELECT * FROM read_csv('{SECRET}')",
        f"SELECT * FROM read_text('{SECRET}')",
        f"SELECT * FROM parquet_scan('{SECRET}')",
        "SELECT * FROM glob('/etc/*')",
        "SELECT * FROM query('SELECT 1')",
        "SELECT * FROM query_table('duckdb_secrets')",
        "SELECT * FROM duckdb_settings()",
        "SELECT * FROM information_schema.tables",
        "SELECT * FROM candidate_profiles",
        "SELECT * FROM nowhere",
        "SELECT getenv('HOME')",
        "SELECT current_setting('allowed_paths')",
        f"SELECT (SELECT content FROM read_text('{SECRET}')) AS x FROM identifiers",
        # A CTE of that name, out of scope.
        'WITH "x.csv" AS (SELECT * FROM "x.csv") SELECT * FROM "x.csv"',
        'SELECT (WITH "x.csv" AS (SELECT 1 AS a) SELECT a FROM "x.csv"), * FROM "x.csv"',
        'WITH a AS (FROM "x.csv"), "x.csv" AS (SELECT 1) SELECT * FROM a',
    ],
)
def test_nothing_but_the_lake(query: str) -> None:
    with pytest.raises(WarehouseError, match="the lake has no table|refused|cannot be read from"):
        check(query)


@pytest.mark.parametrize("function", ["read_json", "read_text", "glob"])
def test_engine_is_closed_off(
    warehouse: LakeWarehouse, function: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What the check would let pass, the engine refuses."""
    secret = tmp_path / "secret.json"
    secret.write_text('{"a": 1}')
    monkeypatch.setattr("personas_dagster.warehouses.lake.check", lambda query: (query, []))
    with pytest.raises(WarehouseError, match="disabled"):
        rows(warehouse, f"SELECT * FROM {function}('{secret}')")


def test_query_fails(warehouse: LakeWarehouse) -> None:
    with pytest.raises(WarehouseError, match='"nope" not found'):
        rows(warehouse, "SELECT nope FROM identifiers")
    with pytest.raises(WarehouseError, match="Could not convert string"):
        rows(warehouse, "SELECT value::INTEGER AS n FROM identifiers")


def test_spills(lake: DeltaLake) -> None:
    engine = DuckDBEngine(threads=1, memory_limit="60MB")
    query = "SELECT range::VARCHAR || repeat('x', 100) AS t FROM range(600000) ORDER BY hash(range)"
    with lake_warehouse(engine, lake).stream(query) as reader:
        assert sum(batch.num_rows for batch in reader) == 600_000


def test_syntax_error() -> None:
    with pytest.raises(WarehouseError, match="does not parse"):
        check("SELECT FROM WHERE (")
