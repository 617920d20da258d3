import gzip
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import duckdb
import pytest


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    path = Path(__file__).parents[2] / "benchmarks" / "messages.py"
    spec = importlib.util.spec_from_file_location("benchmark_messages", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def exported(
    generator: ModuleType, tmp_path_factory: pytest.TempPathFactory
) -> duckdb.DuckDBPyConnection:
    folder = tmp_path_factory.mktemp("exported")
    paths = generator.write(folder, messages=100_000, format="parquet")
    connection = duckdb.connect()
    connection.read_parquet([str(path) for path in paths]).to_table("messages")
    return connection


def one(connection: duckdb.DuckDBPyConnection, query: str) -> tuple[float, ...]:
    found = connection.execute(query).fetchone()
    assert found is not None
    return tuple(found)


def test_counts(exported: duckdb.DuckDBPyConnection) -> None:
    counts = 'count(*), count(distinct "messageId")'
    assert one(exported, f"SELECT {counts} FROM messages") == (100_000, 100_000)


def test_all_columns_are_text(exported: duckdb.DuckDBPyConnection) -> None:
    table = exported.table("messages")
    assert ",".join(table.columns) == (
        "messageId,type,userId,anonymousId,event,properties,traits,context,timestamp,receivedAt"
    )
    assert set(map(str, table.types)) == {"VARCHAR"}


def test_a_third_of_combinations_is_new(exported: duckdb.DuckDBPyConnection) -> None:
    (combinations,) = one(
        exported,
        """SELECT count(distinct ("userId", "anonymousId", traits->>'email')) FROM messages""",
    )
    assert 0.32 < combinations / 100_000 < 0.36


def test_nobody_exceeds_the_limits(exported: duckdb.DuckDBPyConnection) -> None:
    assert one(
        exported,
        """SELECT max(browsers), max(mailboxes) FROM (
             SELECT count(distinct "anonymousId") AS browsers,
               count(distinct traits->>'email') AS mailboxes
             FROM messages WHERE "userId" IS NOT NULL GROUP BY "userId")""",
    ) == (5, 3)


def test_how_messages_are_known(exported: duckdb.DuckDBPyConnection) -> None:
    only_browser, both, only_user = one(
        exported,
        """SELECT avg(("userId" IS NULL)::INT),
             avg(("userId" IS NOT NULL AND "anonymousId" IS NOT NULL)::INT),
             avg(("anonymousId" IS NULL)::INT) FROM messages""",
    )
    assert only_browser == pytest.approx(0.46, abs=0.02)
    assert both == pytest.approx(0.46, abs=0.02)
    assert only_user == pytest.approx(0.08, abs=0.02)


def test_files_in_order_of_time(generator: ModuleType, tmp_path: Path) -> None:
    paths = generator.write(tmp_path, messages=2_000, files=3, days=10)
    lines = [line for path in paths for line in gzip.decompress(path.read_bytes()).splitlines()]
    messages = [json.loads(line) for line in lines]
    stamps = [message["timestamp"] for message in messages]
    assert len(messages) == 2_000
    assert stamps == sorted(stamps)
    assert stamps[0] == "2026-02-19T00:00:00.000Z"
    assert stamps[-1] < "2026-03-01"
    assert all(message["receivedAt"] > message["timestamp"] for message in messages)


def test_formats_hold_the_same(generator: ModuleType, tmp_path: Path) -> None:
    table = duckdb.read_parquet(
        str(generator.write(tmp_path, messages=500, files=1, format="parquet")[0])
    )
    (lines,) = generator.write(tmp_path, messages=500, files=1)
    rows = [dict(zip(table.columns, row, strict=True)) for row in table.fetchall()]
    for row in rows:
        for name in ("properties", "traits", "context"):
            row[name] = json.loads(row[name]) if row[name] else None
    messages = [json.loads(line) for line in gzip.decompress(lines.read_bytes()).splitlines()]
    assert messages == [{k: v for k, v in row.items() if v is not None} for row in rows]


@pytest.mark.parametrize("format", ["jsonl.gz", "parquet"])
def test_same_seed_same_bytes(
    generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    def bytes_of(name: str, **options: int) -> list[bytes]:
        paths = generator.write(tmp_path / name, messages=3_000, files=2, format=format, **options)
        return [path.read_bytes() for path in paths]

    first = bytes_of("first")
    assert bytes_of("other", seed=2) != first
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    assert bytes_of("again") == first


def test_chunks_leave_no_trace(
    generator: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = generator.write(tmp_path / "whole", messages=1_000, files=1)
    monkeypatch.setattr(generator, "CHUNK", 300)
    (parts,) = generator.write(tmp_path / "parts", messages=1_000, files=1)
    assert gzip.decompress(whole.read_bytes()) == gzip.decompress(parts.read_bytes())


def test_refuses_unknown_format(generator: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'csv'"):
        generator.write(tmp_path, messages=1, format="csv")
