"""Files that a server writes: what of them is taken up when it is gone."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from personas_dagster.events import journal
from personas_dagster.events.journal import JournalFile, probe, recover

NOW = dt.datetime(2024, 6, 1, 12, tzinfo=dt.UTC)
WRITER = """
import sys
from pathlib import Path
from personas_dagster.events.journal import JournalFile
file = JournalFile(Path(sys.argv[1]), "x")
file.append(sys.argv[2].encode())
print(file.path, flush=True)
sys.stdin.read()
"""


def line(number: int) -> str:
    return json.dumps({"type": "track", "event": "e", "userId": "u", "messageId": f"m{number}"})


def files(folder: Path) -> list[str]:
    return sorted(path.suffixes[-1] for path in folder.rglob("*") if path.is_file())


def test_a_file_is_taken_up_when_it_is_finished(intake: Any) -> None:
    file = JournalFile(intake.landing.incoming / "web", "x")
    file.append(f"{line(1)}\n{line(2)}\n".encode())
    assert intake.landing.discover(now=NOW) == []
    file.finish()
    (landed,) = intake.landing.discover(now=NOW)
    assert (landed.source_id, landed.format) == ("web", "http.jsonl")
    intake.load()
    assert [row["message_id"] for row in intake.rows()] == ["m1", "m2"]
    assert files(intake.landing.incoming) == []


def test_an_empty_file_goes_away(tmp_path: Path) -> None:
    JournalFile(tmp_path / "web", "x").finish()
    assert files(tmp_path) == []


@pytest.mark.parametrize("torn", ["", line(3)[:20], line(3), "\0" * 100_000])
def test_a_killed_writer_s_file_is_taken_up_without_its_torn_line(intake: Any, torn: str) -> None:
    command = [sys.executable, "-c", WRITER, str(intake.landing.incoming / "web")]
    text = f"{line(1)}\n{line(2)}\n".replace("\0", "")
    with subprocess.Popen(
        [*command, text], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as writer:
        assert writer.stdout is not None
        path = Path(writer.stdout.readline().strip())
        assert intake.landing.discover(now=NOW) == []  # its writer lives
        writer.kill()
        writer.wait()
    with path.open("a") as stream:
        stream.write(torn)
    assert len(intake.landing.discover(now=NOW)) == 1
    report = intake.load()
    assert (report.accepted, report.rejected) == (2, 0)


def test_a_line_that_was_torn_from_the_start_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "web" / "x.http.jsonl.part"
    path.parent.mkdir()
    path.write_text(line(1))
    assert recover(tmp_path) == []
    assert files(tmp_path) == []


def test_a_write_that_fails_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = JournalFile(tmp_path / "web", "x")
    file.append(b"{}\n")
    write = os.write

    def half(descriptor: int, data: Any) -> int:
        if len(data) < 4:
            raise OSError(28, "No space left on device")
        return write(descriptor, data[:4])

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", half)
        with pytest.raises(OSError, match="No space left"):
            file.append(b"[12345]\n[]\n")
    file.append(b"{}\n")
    file.finish()
    (path,) = (tmp_path / "web").iterdir()
    assert path.read_bytes() == b"{}\n{}\n"


def test_what_cannot_be_taken_back_is_left_to_recover(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = JournalFile(tmp_path / "web", "x")
    file.append(b"{}\n")
    write = os.write

    def broken(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fdatasync", broken)
        patched.setattr(os, "ftruncate", broken)
        patched.setattr(os, "write", lambda file, data: write(file, data[:4]))
        with pytest.raises(OSError, match="Input/output"):
            file.append(b"[12345]")
    file.finish()
    assert files(tmp_path) == [".part"]
    (path,) = recover(tmp_path)
    assert path.read_bytes() == b"{}\n"


def test_refused_messages_keep_their_reason_and_text(intake: Any) -> None:
    file = JournalFile(intake.landing.incoming / "web", "x")
    refused = journal.refused("message_too_large", "found much", b'{"a":\n"\t!"}')
    file.append(refused + f"\n{line(1)}\n".encode())
    file.finish()
    intake.landing.discover(now=NOW)
    report = intake.load()
    assert (report.accepted, report.reasons) == (1, {"message_too_large": 1})
    (row,) = intake.rows("rejected_events")
    assert (row["detail"], row["raw"], row["line"]) == ("found much", '{"a": "\t!"}', 1)


def test_other_files_know_no_refused_lines(intake: Any) -> None:
    path = intake.root / "some.jsonl"
    path.write_bytes(journal.refused("message_too_large", "found much", b"{}") + b"\n")
    assert intake.take_files(path).reasons == {"not_json": 1}


def test_a_probe_leaves_nothing_and_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe(tmp_path / "web")
    assert files(tmp_path) == []

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        probe(tmp_path / "web")
    assert files(tmp_path) == []
