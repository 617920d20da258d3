"""Indexes find what a scan finds, whatever became of them; and they go with the rows they hold."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personas_dagster.engines import DuckDBEngine
from personas_dagster.lake import TABLES, DeltaLake, indexes
from tests.examples import examples

KEYS = [(table, key) for table, keys in indexes._KEYS.items() for key in keys]
Wanted = set[tuple[int, int]]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "WORTH_ROWS", 20)
    monkeypatch.setattr(indexes, "_MOST_ROWS", 200)


@pytest.fixture
def lake(tmp_path: Path) -> DeltaLake:
    return DeltaLake(tmp_path / "lake")


def made(table: str, count: int, seed: int = 0) -> pa.Table:
    """Rows whose keys repeat, and share one half with others."""
    rng = random.Random(seed)
    columns = {
        field.name: [rng.randrange(-4, 4) for _ in range(count)]
        if field.name.endswith(("_high", "_low", "load_id"))
        else [f"{field.name} {rng.randrange(9)}" for _ in range(count)]
        for field in TABLES[table].schema
        if field.type in (pa.int64(), pa.string())
    }
    return pa.table(columns)


def found(lake: DeltaLake, table: str, key: str, wanted: Wanted) -> list[tuple[object, ...]]:
    """By the indexes, and by a scan of what they do not cover."""
    names = ", ".join(indexes.columns(table))
    sought = pa.table({"high": [high for high, _ in wanted], "low": [low for _, low in wanted]})
    sought = sought.cast(pa.schema({"high": pa.int64(), "low": pa.int64()}))
    with DuckDBEngine(threads=1).session(lake) as session:
        session.register("sought", sought)
        session.indexed("known", table, key, sought)
        session.unindexed("other", table)
        rows = session.fetch(
            f"SELECT {names} FROM known UNION ALL SELECT {names} FROM other "
            f"SEMI JOIN sought s ON s.high = {key}_high AND s.low = {key}_low"
        ).to_pylist()
    return sorted((tuple(row.values()) for row in rows), key=str)


def scanned(lake: DeltaLake, table: str, key: str, wanted: Wanted) -> list[tuple[object, ...]]:
    with DuckDBEngine(threads=1).session(lake) as session:
        session.view(table)
        rows = session.fetch(f"SELECT {', '.join(indexes.columns(table))} FROM {table}").to_pylist()
    kept = [row for row in rows if (row[f"{key}_high"], row[f"{key}_low"]) in wanted]
    return sorted((tuple(row.values()) for row in kept), key=str)


EVERYTHING = {(high, low) for high in range(-5, 5) for low in range(-5, 5)}


def assert_same(lake: DeltaLake, table: str = "identifiers") -> None:
    for key in indexes._KEYS[table]:
        for wanted in (EVERYTHING, set(sorted(EVERYTHING)[::7])):
            assert found(lake, table, key, wanted) == scanned(lake, table, key, wanted)


def files(lake: DeltaLake, table: str = "identifiers") -> list[Path]:
    return sorted((Path(lake.root) / indexes.FOLDER / table).glob("*"))


@pytest.mark.parametrize(("table", "key"), KEYS)
@given(
    sizes=st.lists(st.integers(1, 60), max_size=12),
    tended=st.integers(0, 12),
    wanted=st.sets(st.tuples(st.integers(-5, 5), st.integers(-5, 5))),
)
@settings(max_examples=examples(10))
def test_found_as_by_a_scan(
    table: str,
    key: str,
    sizes: list[int],
    tended: int,
    wanted: Wanted,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    lake = DeltaLake(tmp_path_factory.mktemp("lake"))
    for seed, size in enumerate(sizes):
        lake.append(table, made(table, size, seed))
        if seed <= tended:
            lake.index(table)
    assert found(lake, table, key, wanted) == scanned(lake, table, key, wanted)


def test_a_table_has_few_indexes(lake: DeltaLake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexes, "_MOST_ROWS", 16_000)
    for seed in range(40):
        lake.append("merges", made("merges", 15, seed))
        lake.index("merges")
        assert len(lake.indexed("merges").rest) < 2
    assert 1 <= len(files(lake, "merges")) <= 5
    assert_same(lake, "merges")


def test_a_large_table_has_several(lake: DeltaLake) -> None:
    for seed in range(4):
        lake.append("merges", made("merges", 150, seed))
    lake.index("merges")
    assert len(files(lake, "merges")) == 4
    lake.append("merges", made("merges", 90, 9))
    lake.index("merges")
    assert (len(files(lake, "merges")), lake.indexed("merges").rest) == (5, [])
    assert_same(lake, "merges")


def test_many_small_files_are_indexed(lake: DeltaLake) -> None:
    for seed in range(indexes.WORTH_FILES):
        assert files(lake) == []
        lake.append("identifiers", made("identifiers", 1, seed))
        lake.index("identifiers")
    assert len(files(lake)) == 1
    assert_same(lake)


def indexed(lake: DeltaLake) -> list[Path]:
    lake.append("identifiers", made("identifiers", 50))
    lake.index("identifiers")
    lake.append("identifiers", made("identifiers", 5, 1))
    lake.index("identifiers")
    assert len(lake.indexed("identifiers").rest) == 1
    return files(lake)


def test_gone(lake: DeltaLake) -> None:
    (index,) = indexed(lake)
    index.unlink()
    assert_same(lake)
    lake.index("identifiers")
    assert lake.indexed("identifiers").rest == []
    assert_same(lake)


@pytest.mark.parametrize("left", [0, 100, -1])
def test_damaged(lake: DeltaLake, left: int) -> None:
    (index,) = indexed(lake)
    index.write_bytes(index.read_bytes()[:left])
    assert_same(lake)
    lake.index("identifiers")
    assert lake.indexed("identifiers").rest == []
    assert_same(lake)


def test_of_another_version(lake: DeltaLake, monkeypatch: pytest.MonkeyPatch) -> None:
    indexed(lake)
    monkeypatch.setattr(indexes, "_LAYOUT", "2")
    assert len(lake.indexed("identifiers").rest) == 2
    lake.index("identifiers")
    assert (len(files(lake)), lake.indexed("identifiers").rest) == (1, [])
    assert_same(lake)


def test_of_rows_that_were_replaced(lake: DeltaLake) -> None:
    (old,) = indexed(lake)
    versions = lake.versions()
    lake.replace("identifiers", made("identifiers", 40, 5))
    assert_same(lake)
    assert_same(lake.at(versions))
    lake.index("identifiers")
    assert len(files(lake)) == 1 and not old.exists()
    assert_same(lake)
    assert_same(lake.at(versions))


def test_of_files_that_were_joined(lake: DeltaLake) -> None:
    indexed(lake)
    lake.compact("identifiers", above=0)
    assert_same(lake)
    lake.index("identifiers")
    assert (len(files(lake)), lake.indexed("identifiers").rest) == (1, [])
    assert_same(lake)


def test_gone_with_the_rows(lake: DeltaLake) -> None:
    """What is forgotten is in no file, without waiting for the next load."""
    (old,) = indexed(lake)
    lake.replace("identifiers", made("identifiers", 40, 5))
    lake.forget("identifiers")
    assert not old.exists()
    lake.index("identifiers")
    (new,) = files(lake)
    lake.forget("identifiers")
    assert files(lake) == [new]


def test_swept_with_other_files(lake: DeltaLake) -> None:
    (old,) = indexed(lake)
    lake.sweep(hours=0)
    assert old.exists()
    lake.replace("identifiers", made("identifiers", 40, 5))
    lake.sweep(hours=0)
    assert not old.exists()


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_killed_while_it_is_made(
    lake: DeltaLake, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        """As a signal is."""

    def kill(*_: object) -> None:
        raise Killed

    indexed(lake)
    lake.append("identifiers", made("identifiers", 30, 2))
    with monkeypatch.context() as patched, pytest.raises(Killed):
        patched.setattr(os if step == "fsync" else Path, step, kill)
        lake.index("identifiers")
    assert_same(lake)
    lake.index("identifiers")
    assert (len(files(lake)), lake.indexed("identifiers").rest) == (1, [])
    assert_same(lake)


def test_killed_before_what_it_took_in_is_removed(
    lake: DeltaLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    indexed(lake)
    lake.append("identifiers", made("identifiers", 30, 2))
    with monkeypatch.context() as patched:
        patched.setattr(indexes, "sweep", lambda *_: None)
        lake.index("identifiers")
    assert len(files(lake)) == 2
    assert_same(lake)
    lake.index("identifiers")
    assert len(files(lake)) == 1
    assert_same(lake)


def test_rows_without_keys_are_left(lake: DeltaLake) -> None:
    """An earlier version wrote them; readers tell them by that."""
    lake.append("identifiers", pa.table({"value": ["x"] * 30}))
    lake.index("identifiers")
    assert (files(lake), len(lake.indexed("identifiers").rest)) == ([], 1)


def test_an_object_store_has_none() -> None:
    """What is there of a person must go with the table, from every machine."""
    assert DeltaLake("s3://bucket/lake")._index_folder("identifiers") is None


def test_tables_without_keys(lake: DeltaLake) -> None:
    lake.append("dropped_identifiers", pa.table({"value": ["x"] * 30}))
    lake.index("dropped_identifiers")
    assert not (Path(lake.root) / indexes.FOLDER).exists()


def test_whoever_has_one_open_reads_on(lake: DeltaLake) -> None:
    indexed(lake)
    opened = lake.indexed("identifiers")
    lake.replace("identifiers", made("identifiers", 40, 5))
    lake.index("identifiers")
    wanted = pa.table({"high": [1], "low": [1]})
    assert opened.find("key", wanted).num_rows == sum(
        row["key_high"] == row["key_low"] == 1 for row in made("identifiers", 50).to_pylist()
    )
    assert not pc.any(pc.not_equal(opened.find("key", wanted).column("key_low"), 1)).as_py()


def test_an_unknown_key(lake: DeltaLake) -> None:
    with pytest.raises(KeyError):
        lake.indexed("merges").find("key", pa.table({"high": [1], "low": [1]}))
