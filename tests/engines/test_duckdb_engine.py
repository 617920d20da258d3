"""What the core asks of an engine: views over a lake, Arrow in and out, nothing kept."""

from __future__ import annotations

import datetime as dt
import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from sqlglot import exp

from personas_dagster.engines import DuckDBEngine
from personas_dagster.lake import TABLES, DeltaLake


@pytest.fixture
def lake(tmp_path: Path) -> DeltaLake:
    return DeltaLake(tmp_path / "lake")


@pytest.fixture
def engine() -> DuckDBEngine:
    return DuckDBEngine(threads=1)


def test_view_of_nothing_has_all_columns(engine: DuckDBEngine, lake: DeltaLake) -> None:
    with engine.session(lake) as session:
        session.view("events")
        table = session.fetch("SELECT * FROM events")
    assert table.schema.names == TABLES["events"].schema.names and table.num_rows == 0


def test_view_under_another_name(engine: DuckDBEngine, lake: DeltaLake) -> None:
    lake.append("merges", pa.table({"child_id": ["x"]}))
    with engine.session(lake) as session:
        session.view("few", "merges")
        assert session.fetch("SELECT child_id FROM few").to_pylist() == [{"child_id": "x"}]


def test_view_is_a_snapshot(engine: DuckDBEngine, lake: DeltaLake) -> None:
    """A view keeps the files that it was made of, until it is made again."""
    lake.append("merges", pa.table({"child_id": ["x"]}))
    with engine.session(lake) as session:
        session.view("merges")
        lake.append("merges", pa.table({"child_id": ["y"]}))
        assert session.fetch("SELECT * FROM merges").num_rows == 1
        session.view("merges")
        assert session.fetch("SELECT * FROM merges").num_rows == 2


def test_partition_columns_keep_their_types(engine: DuckDBEngine, lake: DeltaLake) -> None:
    rows = {"message_id": ["m"], "month": ["2026-01"]}
    lake.append("events", pa.table(rows))
    lake.append("raw_events", pa.table({"received_date": [dt.date(2026, 1, 2)]}))
    with engine.session(lake) as session:
        session.view("events")
        session.view("raw_events")
        assert session.fetch("SELECT month FROM events").to_pylist() == [{"month": "2026-01"}]
        dates = session.fetch("SELECT received_date FROM raw_events").to_pylist()
    assert dates == [{"received_date": dt.date(2026, 1, 2)}]


def test_parameters_and_expressions(engine: DuckDBEngine, lake: DeltaLake) -> None:
    with engine.session(lake) as session:
        session.register("given", pa.table({"a": [1, 2, 3]}))
        session.run("CREATE TEMP TABLE few AS SELECT a FROM given WHERE a > $1", [1])
        assert session.fetch("SELECT a FROM few WHERE a < $1", [3]).to_pylist() == [{"a": 2}]
        query = exp.select(exp.func("sum", exp.column("a")).as_("n")).from_("few")
        assert session.fetch(query).to_pylist() == [{"n": 5}]


def test_stream_gives_the_same_as_fetch(engine: DuckDBEngine, lake: DeltaLake) -> None:
    with engine.session(lake) as session:
        query = "SELECT range AS n FROM range(300000) ORDER BY n"
        reader = session.stream(query)
        batches = list(reader)
        assert len(batches) > 1
        assert pa.Table.from_batches(batches) == session.fetch(query)


def test_days_begin_at_midnight_utc(
    engine: DuckDBEngine, lake: DeltaLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "America/New_York")
    with engine.session(lake) as session:
        found = session.fetch("SELECT '2026-01-01T23:30Z'::TIMESTAMPTZ::DATE::VARCHAR AS d")
    assert found.to_pylist() == [{"d": "2026-01-01"}]


def test_nothing_is_kept(
    engine: DuckDBEngine, lake: DeltaLake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with engine.session(lake) as session:
        session.run("CREATE TABLE t AS SELECT 1 AS a")
    with engine.session(lake) as session, pytest.raises(Exception, match="does not exist"):
        session.fetch("SELECT * FROM t")
    assert lake.versions() == {}
    assert list(tmp_path.glob("personas-spill-*")) == []


def test_spills_beyond_its_memory(lake: DeltaLake) -> None:
    engine = DuckDBEngine(threads=1, memory_limit="60MB")
    with engine.session(lake) as session:
        found = session.fetch(
            "SELECT count(*) AS n FROM (SELECT md5(range::VARCHAR) AS h FROM range(1500000) "
            "ORDER BY h)"
        )
    assert found.to_pylist() == [{"n": 1_500_000}]
