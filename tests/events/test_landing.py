"""Files: what is landed, what is refused, and what is left alone."""

from __future__ import annotations

import datetime as dt
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from personas_dagster.errors import InputError

Message = Callable[..., dict[str, Any]]
NOW = dt.datetime(2024, 6, 1, 12, tzinfo=dt.UTC)


def test_a_copy_is_kept_byte_for_byte(intake: Any, message: Message) -> None:
    path = intake.write(message(1), "nonsense", name="Some Name.ndjson.gz")
    (file,) = intake.landing.land([path], source_id="shop", now=NOW)
    assert file.path == intake.root / "landing" / "files" / f"{file.sha256}.jsonl.gz"
    assert file.path.read_bytes() == path.read_bytes()
    assert (file.name, file.source_id, file.landed_at, file.known) == (
        str(path),
        "shop",
        NOW,
        False,
    )
    intake.load()
    assert intake.rows()[0]["source_id"] == "shop"


def test_the_same_file_twice(intake: Any, message: Message) -> None:
    path = intake.write(message(1), message(2))
    copy = intake.write(message(1), message(2))
    report = intake.take_files(path, copy)
    assert (report.files, report.accepted, report.known_files) == (1, 2, 1)
    before = intake.lake.versions()
    again = intake.take_files(path)
    assert (again.load_id, again.accepted, again.known_files) == (None, 0, 1)
    assert intake.lake.versions() == before
    assert len(list((intake.root / "landing" / "files").iterdir())) == 1


def test_a_folder_is_walked(intake: Any, message: Message) -> None:
    for number, name in enumerate(["b.jsonl", "a/z.json", ".hidden.jsonl", "x.jsonl.part"]):
        (intake.root / "in" / "a").mkdir(parents=True, exist_ok=True)
        intake.write(message(number), name=f"in/{name}")
    (intake.root / "in" / "notes.txt").write_text("not messages")
    landed = intake.landing.land([intake.root / "in"], now=NOW)
    assert [Path(file.name).name for file in landed] == ["b.jsonl", "z.json"]


@pytest.mark.parametrize(
    ("name", "content", "found"),
    [
        ("absent.jsonl", None, "nothing is there"),
        ("notes.txt", b"x", "unknown kind of file (.txt)"),
        ("noextension", b"x", "no extension"),
        ("bad.parquet", b"PAR1 and no more", "not Parquet"),
        ("bad.jsonl.gz", b"{}", "not gzip (starts with b'{}')"),
    ],
)
def test_unreadable_files(
    intake: Any, message: Message, name: str, content: bytes | None, found: str
) -> None:
    bad = intake.root / name
    if content is not None:
        bad.write_bytes(content)
    with pytest.raises(InputError) as error:
        intake.landing.land([intake.write(message(1)), bad], now=NOW)
    assert str(bad) in str(error.value)
    assert found in str(error.value)
    assert intake.landing.pending() == []


def test_a_folder_without_messages(intake: Any) -> None:
    (intake.root / "empty").mkdir()
    with pytest.raises(InputError, match="no file of messages"):
        intake.landing.land([intake.root / "empty"], now=NOW)


def test_discover(intake: Any, message: Message) -> None:
    incoming = intake.root / "landing" / "incoming"
    (incoming / "shop" / "today").mkdir(parents=True)
    for number, name in enumerate(["a.jsonl", "shop/today/b.jsonl", "c.jsonl.tmp", ".d.jsonl"]):
        intake.write(message(number), name=f"landing/incoming/{name}")
    (incoming / "e.xml").write_text("<x/>")
    landed = intake.landing.discover(now=NOW)
    assert [file.source_id for file in landed] == ["files", "files", "shop"]
    assert sorted(path.name for path in incoming.rglob("*") if path.is_file()) == [
        ".d.jsonl",
        "c.jsonl.tmp",
    ]
    report = intake.load()
    assert report.accepted == 2
    assert list(report.damaged) == [str(incoming / "e.xml")]
    assert "unknown kind of file" in report.damaged[str(incoming / "e.xml")]
    assert intake.landing.discover(now=NOW) == []


def test_discover_leaves_what_is_still_written(
    intake: Any, message: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    (intake.root / "landing" / "incoming").mkdir(parents=True)
    path = intake.write(message(1), name="landing/incoming/a.jsonl")
    take = intake.landing._take

    def slow(*arguments: Any) -> Any:
        file = take(*arguments)
        with path.open("ab") as stream:
            stream.write(b'{"more": 1}\n')
        return file

    monkeypatch.setattr(intake.landing, "_take", slow)
    intake.landing.discover(now=NOW)
    assert path.exists()


def test_interrupted_landing(
    intake: Any, message: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = intake.write(message(1))
    with monkeypatch.context() as patch:
        patch.setattr(intake.landing._state, "begin", None)
        with pytest.raises(TypeError):
            intake.landing.land([path], now=NOW)
    assert intake.landing.pending() == []
    assert intake.take_files(path).accepted == 1


def test_a_lost_copy_comes_back(intake: Any, message: Message) -> None:
    path = intake.write(message(1))
    (file,) = intake.landing.land([path], now=NOW)
    file.path.unlink()
    assert intake.landing.land([path], now=NOW)[0].known
    assert file.path.read_bytes() == path.read_bytes()


def test_damaged_gzip_loads_what_can_be_read(intake: Any, message: Message) -> None:
    path = intake.write(*(message(i) for i in range(5_000)), name="cut.jsonl.gz")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    report = intake.take_files(path)
    assert 1_000 < report.accepted < 4_000
    assert report.rejected == 0
    assert "ends too early" in report.damaged[str(path)]
    lines = [row["line"] for row in intake.rows()]
    assert lines == list(range(1, report.accepted + 1))


def test_garbage_in_gzip(intake: Any, message: Message) -> None:
    first = gzip.compress(intake.write(message(1), message(2)).read_bytes())
    second = gzip.compress(intake.write(*(message(i) for i in range(3, 5_000))).read_bytes())
    middle = len(second) // 2
    path = intake.root / "garbage.jsonl.gz"
    path.write_bytes(first + second[:middle] + b"\0\xff" * 500 + second[middle + 1_000 :])
    report = intake.take_files(path, intake.write(message(6_000), name="good.jsonl"))
    assert report.accepted + report.rejected > 1_000
    assert "gzip" in report.damaged[str(path)]
    assert {1, 2} <= {row["line"] for row in intake.rows() if row["file_id"] == 1}
    assert any(row["message_id"] == "m6000" for row in intake.rows())


@pytest.mark.parametrize("cut", [1, 4, 8])
def test_gzip_without_its_trailer_loses_nothing(intake: Any, message: Message, cut: int) -> None:
    path = intake.write(message(1), message(2), name="cut.jsonl.gz")
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()).rstrip(b"\n"))[:-cut])
    report = intake.take_files(path)
    assert (report.accepted, len(report.damaged)) == (2, 1)


def test_wrong_checksum(intake: Any, message: Message) -> None:
    path = intake.write(message(1), message(2), name="sum.jsonl.gz")
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    report = intake.take_files(path)
    assert report.accepted == 2
    assert "incorrect data check" in report.damaged[str(path)]


@pytest.mark.parametrize("name", ["e.jsonl", "e.jsonl.gz", "e.csv"])
def test_empty_files(intake: Any, name: str) -> None:
    path = intake.root / name
    path.write_bytes(b"")
    report = intake.take_files(path)
    assert (report.files, report.accepted, report.damaged) == (1, 0, {})


def test_members_and_padding_of_gzip(intake: Any, message: Message) -> None:
    path = intake.root / "members.jsonl.gz"
    parts = [intake.write(message(i)).read_bytes() for i in range(3)]
    path.write_bytes(b"".join(gzip.compress(part) for part in parts) + b"\0" * 512)
    report = intake.take_files(path)
    assert (report.accepted, report.damaged) == (3, {})


def test_no_rights(intake: Any, message: Message) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    path = intake.write(message(1))
    path.chmod(0)
    with pytest.raises(InputError, match="cannot be read"):
        intake.landing.land([path], now=NOW)


def test_what_came_before_is_not_read_again(intake: Any, message: Message) -> None:
    """A server lands thousands of files a day: no question of an intake may go through them all."""
    intake.take(message(1))
    asked: list[tuple[str, Any]] = []

    def note(_: Any, __: Any, statement: str, parameters: Any, *more: Any) -> None:
        asked.append((statement, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        intake.landing.pending()
        intake.take(message(2))
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)
    asked = [one for one in asked if one[0].startswith(("SELECT", "UPDATE"))]
    assert len(asked) >= 6
    with intake.state.read() as connection:
        for statement, parameters in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            assert not [row.detail for row in plan if row.detail.startswith("SCAN")], statement
