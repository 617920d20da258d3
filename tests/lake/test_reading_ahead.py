"""The parts of data files that a refresh will read, asked of the system ahead."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from personas_dagster.lake import DeltaLake, ahead
from personas_dagster.lake.ahead import read_ahead

Asked = list[tuple[int, int]]


@pytest.fixture
def lake(tmp_path: Path) -> DeltaLake:
    """Two months of messages, with a typed column."""
    lake = DeltaLake(tmp_path / "lake")
    rows = {
        "event": ["Order", "Visit"],
        "properties": ['{"total": 1}', "{}"],
        "month": ["2026-01", "2026-02"],
        "typed_property_number_total": [1.0, None],
    }
    lake.append("events", pa.table(rows))
    lake.append("merges", pa.table({"child_id": ["x"], "parent_id": ["y"]}))
    return lake


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    found: Asked = []

    def advise(file: int, start: int, size: int, advice: int) -> None:
        assert advice == os.POSIX_FADV_WILLNEED
        assert 0 < start < start + size <= os.fstat(file).st_size
        found.append((start, size))

    monkeypatch.setattr(os, "posix_fadvise", advise)
    return found


def sizes(lake: DeltaLake, table: str, *columns: str) -> list[int]:
    """Bytes of these columns, file by file."""
    found = []
    for file in lake.files(table):
        group = pq.read_metadata(file).row_group(0)
        pieces = [group.column(place) for place in range(group.num_columns)]
        found += [one.total_compressed_size for one in pieces if one.path_in_schema in columns]
    return found


def ask(lake: DeltaLake, wanted: dict[str, list[str]], **options: int) -> None:
    asking = read_ahead(lake, wanted, **options)
    assert asking
    asking.join(10)


def test_columns_that_are_wanted_and_derived_ones(lake: DeltaLake, asked: Asked) -> None:
    ask(lake, {"events": ["event"], "profiles": ["profile_id"]})
    expected = sizes(lake, "events", "event", "typed_property_number_total")
    assert len(expected) == 4
    assert sorted(size for _, size in asked) == sorted(expected)


def test_at_most(lake: DeltaLake, asked: Asked) -> None:
    """The first tables first."""
    wanted = {"merges": ["child_id", "parent_id"], "events": ["event"]}
    (first, second) = sizes(lake, "merges", "child_id", "parent_id")
    ask(lake, wanted, at_most=first + second)
    assert [size for _, size in asked] == [first, second]
    ask(lake, wanted, at_most=first - 1)
    assert len(asked) == 2


def test_file_that_is_gone(lake: DeltaLake, asked: Asked) -> None:
    """Of the others it is asked all the same; who reads the file tells of it."""
    gone, left = lake.files("events")
    Path(gone).unlink()
    ask(lake, {"events": ["event"]})
    assert len(asked) == 2


def test_nothing_to_ask_for(tmp_path: Path, asked: Asked) -> None:
    assert read_ahead(DeltaLake(tmp_path / "lake"), {"events": ["event"]}) is None


def test_memory_of_a_container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [tmp_path / "none", tmp_path / "max", tmp_path / "limit"]
    monkeypatch.setattr(ahead, "_LIMITS", limits[:2])
    limits[1].write_text("max\n")
    whole = ahead._memory()
    limits[2].write_text("4096000\n")
    monkeypatch.setattr(ahead, "_LIMITS", limits)
    assert ahead._memory() == 4096000 < whole


def test_system_that_takes_no_advice(lake: DeltaLake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fadvise")
    assert read_ahead(lake, {"events": ["event"]}) is None
