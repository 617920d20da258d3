"""What the core asks of a lake: idempotent writes, snapshots, errors that name the table."""

from __future__ import annotations

import datetime as dt
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from personas_dagster.engines import DuckDBEngine
from personas_dagster.errors import LakeUnavailable
from personas_dagster.lake import TABLES, DeltaLake

AT = dt.datetime(2026, 1, 1, 0, 0, 0, 123456, tzinfo=dt.UTC)


@pytest.fixture
def lake(tmp_path: Path) -> DeltaLake:
    return DeltaLake(tmp_path / "lake")


def members(*names: str, audience: str = "big") -> pa.Table:
    rows = [
        {"audience": audience, "collection": "users", "profile_id": name, "entered_at": AT}
        for name in names
    ]
    return pa.Table.from_pylist(rows, schema=TABLES["audience_memberships"].schema)


def rows(lake: DeltaLake, table: str = "audience_memberships") -> list[dict[str, Any]]:
    with DuckDBEngine(threads=1).session(lake) as session:
        session.view(table)
        found: list[dict[str, Any]] = session.fetch(f"SELECT * FROM {table}").to_pylist()
    return found


def names(lake: DeltaLake) -> list[str]:
    return sorted(row["profile_id"] for row in rows(lake))


def test_never_written(lake: DeltaLake) -> None:
    assert (lake.files("merges"), lake.version("merges"), lake.bytes("merges")) == ([], None, 0)
    assert lake.versions() == {} and rows(lake) == []


def test_unknown_table(lake: DeltaLake) -> None:
    with pytest.raises(KeyError):
        lake.append("nonsense", members())


def test_append_adds(lake: DeltaLake) -> None:
    assert lake.append("audience_memberships", members("a", "b")) == 2
    assert lake.append("audience_memberships", members("c")) == 1
    assert names(lake) == ["a", "b", "c"]
    assert lake.bytes("audience_memberships") > 0


def test_append_once(lake: DeltaLake) -> None:
    table = "audience_memberships"
    assert lake.append(table, members("a"), once=("load", 2)) == 1
    assert lake.append(table, members("a"), once=("load", 2)) == 0
    assert lake.append(table, members("z"), once=("load", 1)) == 0
    assert lake.append(table, members("b"), once=("refresh", 1)) == 1
    assert lake.append(table, members("c"), once=("load", 3)) == 1
    assert names(lake) == ["a", "b", "c"]


def test_replace_all(lake: DeltaLake) -> None:
    table = "audience_memberships"
    lake.append(table, members("a", "b"))
    lake.replace(table, members("c"))
    assert names(lake) == ["c"]
    assert lake.replace(table, members()) == 0
    assert names(lake) == []


def test_replace_where(lake: DeltaLake) -> None:
    table = "audience_memberships"
    lake.append(table, members("a", "b"))
    lake.append(table, members("c", audience="other"))
    lake.replace(table, members("d"), where="audience = 'big'")
    assert names(lake) == ["c", "d"]


def test_replace_where_nothing_matches(lake: DeltaLake) -> None:
    table = "audience_memberships"
    lake.append(table, members("a"))
    lake.replace(table, members(), where="audience = 'none'")
    assert names(lake) == ["a"]


def test_replace_where_keeps_to_its_rows(lake: DeltaLake) -> None:
    """Rows that the predicate does not cover would be lost from sight; they are refused."""
    lake.append("audience_memberships", members("a"))
    with pytest.raises(LakeUnavailable, match="audience_memberships"):
        lake.replace("audience_memberships", members("b", audience="x"), where="audience = 'big'")
    assert names(lake) == ["a"]


def test_replace_once(lake: DeltaLake) -> None:
    table = "audience_memberships"
    lake.replace(table, members("a"), once=("load", 1))
    assert lake.replace(table, members("b"), once=("load", 1)) == 0
    assert names(lake) == ["a"]


def test_snapshot_stays(lake: DeltaLake) -> None:
    lake.append("audience_memberships", members("a"))
    then = lake.at(lake.versions())
    lake.replace("audience_memberships", members("b"))
    lake.append("merges", pa.table({"child_id": ["x"]}))
    assert names(then) == ["a"] and rows(then, "merges") == []
    assert then.versions() == {"audience_memberships": 0}


def test_snapshot_is_for_reading(lake: DeltaLake) -> None:
    lake.append("audience_memberships", members("a"))
    then = lake.at(lake.versions())
    with pytest.raises(LakeUnavailable, match="snapshot of audience_memberships is read-only"):
        then.append("audience_memberships", members("b"))


def test_live_tables_of_a_snapshot(lake: DeltaLake) -> None:
    lake.append("audience_memberships", members("a"))
    then = lake.at(lake.versions(), live=("merges",))
    then.append("merges", pa.table({"child_id": ["x"]}))
    assert [row["child_id"] for row in rows(then, "merges")] == ["x"]


def test_snapshot_that_is_gone(lake: DeltaLake) -> None:
    lake.append("audience_memberships", members("a"))
    then = lake.at({"audience_memberships": 7})
    with pytest.raises(LakeUnavailable, match="audience_memberships"):
        then.files("audience_memberships")


def test_files_of_later_loads(lake: DeltaLake) -> None:
    for load in (1, 2, None, 4):
        days = [dt.date(2026, 1, 1), dt.date(2026, 1, 2)]
        columns = {"load_id": pa.array([load] * 2, pa.int64()), "received_date": pa.array(days)}
        lake.append("raw_events", pa.table(columns))
    assert len(lake.files("raw_events", after_load=0)) == 8

    def loads_after(number: int) -> set[Any]:
        with DuckDBEngine(threads=1).session(lake) as session:
            session.view("raw_events", after_load=number)
            found = session.fetch("SELECT load_id FROM raw_events").column(0).to_pylist()
        return set(found)

    assert loads_after(1) == {2, None, 4}  # what the log does not tell of is read
    assert loads_after(2) == {None, 4}
    assert lake.files("merges", after_load=1) == []
    lake.compact("raw_events", above=0)
    assert loads_after(2) == {1, 2, None, 4}
    assert len(lake.files("raw_events", after_load=4)) <= 2


def test_files_of_some_days(lake: DeltaLake) -> None:
    days = [dt.date(2026, 1, day) for day in (1, 2, 3, 4)]
    for load in (1, 2):
        columns = {"load_id": pa.array([load] * 4, pa.int64()), "received_date": pa.array(days)}
        lake.append("raw_events", pa.table(columns))
    assert len(lake.files("raw_events", days=(days[1], days[2]))) == 4
    assert len(lake.files("raw_events", after_load=1, days=(days[1], days[2]))) == 2
    with DuckDBEngine(threads=1).session(lake) as session:
        session.view("raw_events", days=(days[3], dt.date(2026, 2, 1)))
        found = session.fetch("SELECT received_date, load_id FROM raw_events ORDER BY 2")
        assert found.to_pylist() == [{"received_date": days[3], "load_id": n} for n in (1, 2)]
        session.view("raw_events", days=(dt.date(2025, 1, 1), dt.date(2025, 2, 1)))
        assert session.fetch("SELECT * FROM raw_events").num_rows == 0
    lake.append("merges", pa.table({"child_id": ["x"]}))
    assert len(lake.files("merges", days=(days[0], days[0]))) == 1  # not kept by day


def test_missing_columns_are_null(lake: DeltaLake) -> None:
    lake.append("merges", pa.table({"child_id": ["x"], "unknown": [1], "load_id": ["7"]}))
    (row,) = rows(lake, "merges")
    assert (row["child_id"], row["load_id"], row["parent_id"]) == ("x", 7, None)
    assert "unknown" not in row


def test_instants_are_exact(lake: DeltaLake) -> None:
    lake.append("audience_memberships", members("a"))
    assert rows(lake)[0]["entered_at"] == AT


def test_stream_of_batches(lake: DeltaLake) -> None:
    batches = [members("a").to_batches()[0], members("b", "c").to_batches()[0]]
    reader = pa.RecordBatchReader.from_batches(members().schema, batches)
    assert lake.append("audience_memberships", reader) == 3


def test_stream_that_fails_writes_nothing(lake: DeltaLake) -> None:
    lake.append("audience_memberships", members("a"))

    def batches() -> Any:
        yield members("b").to_batches()[0]
        raise RuntimeError("the source broke off")

    reader = pa.RecordBatchReader.from_batches(members().schema, batches())
    with pytest.raises(Exception, match="the source broke off"):
        lake.append("audience_memberships", reader)
    assert names(lake) == ["a"]


def test_damaged_table_is_named(lake: DeltaLake, tmp_path: Path) -> None:
    lake.append("merges", pa.table({"child_id": ["x"]}))
    log = next((tmp_path / "lake" / "merges" / "_delta_log").glob("*.json"))
    log.write_text("not json")
    with pytest.raises(LakeUnavailable, match="table merges at .* check the lake's location"):
        lake.files("merges")


def test_location_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "lake").write_text("")
    with pytest.raises(LakeUnavailable, match="table merges at .*/lake cannot be used"):
        DeltaLake(tmp_path / "lake").append("merges", pa.table({"child_id": ["x"]}))


@pytest.mark.parametrize("name", TABLES)
def test_every_table_can_be_written_and_read(lake: DeltaLake, name: str) -> None:
    spec = TABLES[name]
    arrays = [pa.nulls(1, field.type) for field in spec.schema]
    assert lake.append(name, pa.table(arrays, schema=spec.schema)) == 1
    assert list(rows(lake, name)[0]) == spec.schema.names
    assert spec.description and {*spec.bookkeeping, *spec.scattered} <= set(spec.schema.names)


def test_dictionaries_are_for_values_that_come_again(lake: DeltaLake) -> None:
    """Ids of messages' profiles are cheaper to read without one, those of values dearer."""
    for table, encoded in (("events", False), ("computed_traits", True)):
        columns = {name: pa.nulls(2, kind) for name, kind in zip(
            TABLES[table].schema.names, TABLES[table].schema.types, strict=True)}  # fmt: skip
        columns |= {"profile_id": pa.array(["p", "p"])}
        lake.append(table, pa.table(columns, schema=TABLES[table].schema))
        (uri,) = lake.files(table)
        group = pq.ParquetFile(uri).metadata.row_group(0)
        chunks = [group.column(number) for number in range(group.num_columns)]
        found = {one.path_in_schema: one.has_dictionary_page for one in chunks}
        assert found["profile_id"] is encoded, table


def merge(child: str) -> pa.Table:
    row = {"collection": "users", "parent_id": "p", "child_id": child, "merged_at": AT,
           "message_id": "m", "identifiers": "[]", "load_id": 1}  # fmt: skip
    return pa.Table.from_pylist([row], schema=TABLES["merges"].schema)


def children(lake: DeltaLake) -> list[str]:
    return sorted(row["child_id"] for row in rows(lake, "merges"))


def test_adopt_takes_another_tables_rows_once(lake: DeltaLake) -> None:
    lake.replace("candidate_merges", merge("a"))
    assert lake.adopt("merges", "candidate_merges", once=("identity", 1)) == 1
    assert lake.adopt("merges", "candidate_merges", once=("identity", 1)) == 0
    lake.replace("candidate_merges", merge("b"))
    assert lake.adopt("merges", "candidate_merges", once=("identity", 2)) == 1
    assert children(lake) == ["a", "b"]
    lake.append("merges", merge("c"))
    assert children(lake) == ["a", "b", "c"]


def test_adopt_of_nothing_still_counts_as_done(lake: DeltaLake) -> None:
    assert lake.adopt("merges", "candidate_merges", once=("identity", 1)) == 0
    lake.replace("candidate_merges", merge("late"))
    assert lake.adopt("merges", "candidate_merges", once=("identity", 1)) == 0
    assert children(lake) == []


def test_adopt_into_a_snapshot_is_refused(lake: DeltaLake) -> None:
    lake.replace("candidate_merges", merge("a"))
    with pytest.raises(LakeUnavailable, match="read-only"):
        lake.at(lake.versions()).adopt("merges", "candidate_merges")


def test_adopt_that_was_killed_before_its_commit(
    lake: DeltaLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    lake.replace("candidate_merges", merge("a"))

    def killed(*_: object, **__: object) -> None:
        raise OSError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(DeltaTable, "create_write_transaction", killed)
        with pytest.raises(LakeUnavailable, match="killed"):
            lake.adopt("merges", "candidate_merges", once=("identity", 1))
    assert children(lake) == []
    assert lake.adopt("merges", "candidate_merges", once=("identity", 1)) == 1
    assert children(lake) == ["a"]


def test_small_files_are_joined(lake: DeltaLake) -> None:
    for n in range(6):
        lake.append("audience_memberships", members(f"p{n}"), once=("writer", n))
    held = lake.at(lake.versions())
    files = lake.files("audience_memberships")
    assert lake.compact("audience_memberships", above=6) == 0
    assert lake.compact("audience_memberships", above=5) == 6
    assert len(lake.files("audience_memberships")) == 1
    assert names(lake) == [f"p{n}" for n in range(6)]
    assert lake.append("audience_memberships", members("again"), once=("writer", 5)) == 0
    assert names(held) == names(lake)  # readers of before still find their files
    assert all(Path(file).exists() for file in files)
    assert held.compact("audience_memberships", above=0) == 0
    assert lake.compact("ledger", above=0) == 0


def test_old_files_are_swept(lake: DeltaLake, tmp_path: Path) -> None:
    """Those that a rewrite replaced long ago, and what a writer left that died; no others."""

    def weeks_ago(*files: str | Path) -> None:
        for file in files:
            os.utime(file, (time.time() - 30 * 86_400,) * 2)

    (old,) = _written(lake, "old")
    (new,) = _written(lake, "new")
    folder = tmp_path / "lake" / "audience_memberships"
    weeks_ago(old, new, _orphan(folder, "died.parquet"))
    just_begun = _orphan(folder, "begun.parquet")
    assert lake.sweep(hours=0) == 1  # the one that died; `old` went a moment ago
    _went_weeks_ago(folder)
    assert lake.sweep(hours=31 * 24) == 0
    assert lake.sweep(hours=0) == 1
    assert [Path(file).exists() for file in (old, new, just_begun)] == [False, True, True]
    assert names(lake) == ["new"]
    with pytest.raises(LakeUnavailable, match="read-only"):
        lake.at(lake.versions()).sweep(hours=0)


def _written(lake: DeltaLake, name: str) -> list[str]:
    lake.replace("audience_memberships", members(name))
    return lake.files("audience_memberships")


def _orphan(folder: Path, name: str) -> Path:
    (folder / name).write_bytes(b"half a file")
    return folder / name


def _went_weeks_ago(folder: Path) -> None:
    """The log says so of what was removed."""
    for entry in (folder / "_delta_log").glob("*.json"):
        text = re.sub(
            r'"deletionTimestamp":(\d+)',
            lambda found: f'"deletionTimestamp":{int(found[1]) - 30 * 86_400_000}',
            entry.read_text(),
        )
        entry.write_text(text)


def test_rows_that_fail_on_the_way(lake: DeltaLake) -> None:
    """The error is that of whoever makes the rows, and nothing of them is written."""

    def batches() -> Iterator[pa.RecordBatch]:
        yield from members("a").to_batches()
        raise ZeroDivisionError("of mine")

    schema = members().schema
    with pytest.raises(ZeroDivisionError, match="of mine"):
        lake.append("audience_memberships", pa.RecordBatchReader.from_batches(schema, batches()))
    assert lake.files("audience_memberships") == []
