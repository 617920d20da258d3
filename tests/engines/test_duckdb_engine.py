"""What the core asks of an engine: views over a lake, Arrow in and out, nothing kept."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sqlglot import exp

from personas_dagster.engines import DuckDBEngine
from personas_dagster.errors import StoreError
from personas_dagster.interfaces import Session
from personas_dagster.lake import TABLES, DeltaLake
from tests.place import SPACE, Place


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


def test_what_is_kept_for_later_sessions(engine: DuckDBEngine, lake: DeltaLake) -> None:
    """Of the table as it was: with other rows in it, the relation has to be made again."""

    def made() -> list[dict] | None:
        with engine.session(lake) as session:
            session.view("merges")
            found = session.recall("children", "merges")
            return session.fetch("FROM children").to_pylist() if found else None

    lake.append("merges", pa.table({"child_id": ["x"]}))
    before = lake.at(lake.versions())
    assert made() is None
    with engine.session(lake) as session:
        session.view("merges")
        session.run("CREATE TEMP TABLE children AS SELECT child_id FROM merges")
        assert made() is None
        lake.append("merges", pa.table({"child_id": ["y"]}))  # the session does not see it
        session.keep("children", "merges")
    assert made() is None
    with engine.session(before) as session:
        session.view("merges")
        assert session.recall("children", "merges")
        assert session.fetch("FROM children").to_pylist() == [{"child_id": "x"}]
    with DuckDBEngine(threads=1).session(before) as session:
        session.view("merges")
        assert not session.recall("children", "merges")


@pytest.mark.parametrize("told", [True, False])
def test_newest_of_a_table(engine: DuckDBEngine, lake: DeltaLake, told: bool) -> None:
    """Out of the files' footers; of a file that does not tell, out of its rows."""
    with engine.session(lake) as session:
        assert session.newest("events", "load_id") == 0
    for load_id in (5, 7, 6, None):
        loads = pa.array([load_id], pa.int64())
        lake.append("events", pa.table({"month": ["2026-01"], "load_id": loads}))
    if not told:
        for file in lake.files("events"):
            pq.write_table(pq.ParquetFile(file).read(), file, write_statistics=False)
    with engine.session(lake) as session:
        assert session.newest("events", "load_id") == 7


def test_view_in_place_of_one_of_nothing(engine: DuckDBEngine, lake: DeltaLake) -> None:
    """The newer one is read, also where the older was of another table."""
    lake.append("merges", pa.table({"child_id": ["x"]}))
    with engine.session(lake) as session:
        for name in ("profiles", "merges", "profiles", "merges"):
            session.view("few", name)
            assert session.fetch("SELECT * FROM few").num_rows == (name == "merges")
            session.unindexed("rest", name)
            assert session.fetch("SELECT * FROM rest").schema.names == TABLES[name].schema.names
            assert session.is_empty(name) == (name != "merges")


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


LIMIT = "SELECT current_setting('memory_limit') AS size"


def limit(session: Session) -> str:
    return str(session.fetch(LIMIT).to_pylist()[0]["size"])


@pytest.mark.parametrize(
    ("settings", "asked", "taken"),
    [
        (None, None, "50%"),
        (None, "25%", "25%"),
        (None, "1GB", "1GB"),
        ("2GB", "25%", "2GB"),
        ("10%", None, "10%"),
    ],
)
def test_memory_is_bounded(
    lake: DeltaLake, settings: str | None, asked: str | None, taken: str
) -> None:
    """By what the engine's settings say, else by what the session asks, else by half."""
    with duckdb.connect(config={"memory_limit": taken}) as connection:
        expected = connection.execute(LIMIT).fetchall()[0][0]
    with DuckDBEngine(threads=1, memory_limit=settings).session(lake, memory=asked) as session:
        assert limit(session) == expected


def test_a_space_spills_in_its_project(place: Place, tmp_path: Path) -> None:
    with place.space.engine.session(place.space.lake) as session:
        (folder,) = (place.root / ".personas" / "spill").iterdir()
        found = session.fetch("SELECT current_setting('temp_directory') AS folder").to_pylist()
        assert found == [{"folder": str(folder)}]
    assert list((place.root / ".personas" / "spill").iterdir()) == []
    elsewhere = f"{{threads: 2, memory_limit: 20%, temp_directory: {tmp_path / 'fast'}}}"
    place.write("resources/spaces/main.yaml", SPACE.replace("{threads: 2}", elsewhere))
    with place.space.engine.session(place.space.lake):
        assert len(list((tmp_path / "fast").iterdir())) == 1


_KILLED = """
import os, signal, sys
from pathlib import Path
from personas_dagster.engines import DuckDBEngine
from personas_dagster.lake import DeltaLake
with DuckDBEngine(threads=1, spill=Path(sys.argv[1])).session(DeltaLake("none")):
    (next(Path(sys.argv[1]).iterdir()) / "spilled").write_text("x")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_session_spilled_goes(lake: DeltaLake, tmp_path: Path) -> None:
    engine = DuckDBEngine(threads=1, spill=tmp_path / "spill")
    ended = subprocess.run([sys.executable, "-c", _KILLED, str(engine.spill)], check=False)
    assert ended.returncode == -signal.SIGKILL
    (left,) = (tmp_path / "spill").iterdir()
    with engine.session(lake):
        (lives,) = set((tmp_path / "spill").iterdir()) - {left}  # younger than it takes to lock
        for folder in (left, lives):
            os.utime(folder, (0, 0))
        with engine.session(lake):
            assert not left.exists() and lives.exists()


def test_no_folder_to_spill_to(lake: DeltaLake, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    engine = DuckDBEngine(threads=1, spill=tmp_path / "file" / "spill")
    with pytest.raises(StoreError, match="temp_directory"), engine.session(lake):
        pass
