"""A refresh through the command line: what it refuses, and what it survives."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from personas_dagster.state.schema import refreshes
from tests.cli.running import Personas
from tests.place import COMMAND, Place

ORDER = {"type": "track", "event": "Order", "messageId": "m1", "receivedAt": "2026-01-01T00:00:00Z"}
BUYERS = {"audiences/buyers": "event('Order').count() >= 1"}


def test_goes_forward_only(personas: Personas, place: Place) -> None:
    place.define(BUYERS)
    place.messages({**ORDER, "userId": "u1"}, name="in.jsonl")
    personas("ingest", "in.jsonl")
    ended = personas("refresh", "--as-of", "2026-02-01")
    assert ended.code == 0, ended
    assert ended.rows[0]["entered"] == 1 and "buyers" in ended.err
    earlier = personas("refresh", "--as-of", "2026-01-31T23:59:59Z")
    assert earlier.code == 1
    assert earlier.lines == [
        "personas: as of 2026-01-31T23:59:59Z is earlier than the last refresh "
        "(2026-02-01T00:00:00Z); a refresh only goes forward: use `personas query --as-of` to "
        "look back"
    ]
    assert personas("refresh", "--as-of", "2026-02-01", "-q").rows[0]["entered"] == 0


def test_no_definitions(personas: Personas, place: Place) -> None:
    place.messages({**ORDER, "userId": "u1"}, name="in.jsonl")
    personas("ingest", "in.jsonl")
    ended = personas("refresh")
    assert ended.code == 0, ended
    assert ended.rows[0]["identity"]["profiles"] == 1


def test_nothing_at_all(personas: Personas) -> None:
    ended = personas("refresh")
    assert ended.code == 0, ended
    assert ended.rows[0]["identity"] == {}


def test_used_key(personas: Personas, place: Place) -> None:
    place.define(BUYERS)
    assert personas("refresh", "--as-of", "2026-02-01").code == 0
    (place.root / "assets/audiences/buyers.yaml").unlink()
    assert personas("refresh", "--as-of", "2026-02-01").code == 0
    place.define({"audiences/buyers": "event('Order').count() >= 2"})
    ended = personas("refresh", "--as-of", "2026-02-01")
    assert ended.code == 1 and len(ended.lines) == 1, ended
    assert "key `buyers` was used by the audience «event('Order').count() >= 1»" in ended.err
    place.define(BUYERS)
    assert personas("refresh", "--as-of", "2026-02-01").code == 0


def test_somebody_else_refreshes(personas: Personas, place: Place) -> None:
    place.define(BUYERS)
    with place.space.state.lease("refresh", owner="other", holder="run 12345678"):
        ended = personas("refresh")
    assert ended.code == 1 and len(ended.lines) == 1, ended
    assert "refresh is held by run 12345678 (process " in ended.err
    assert place.space.state.rows(refreshes.select()) == []
    assert personas("refresh").code == 0


def test_two_at_once(place: Place) -> None:
    """One does the work; the other ends with one line, or comes after it and finds it done."""
    place.define(BUYERS)
    place.personas("refresh", "--as-of", "2026-01-01")  # makes Dagster's own databases
    place.messages({**ORDER, "userId": "u1"}, name="in.jsonl")
    place.personas("ingest", "in.jsonl")
    both = [start(place, "refresh", "--as-of", "2026-02-01") for _ in range(2)]
    ended = [(*process.communicate(timeout=300), process.returncode) for process in both]
    codes = sorted(code for _, _, code in ended)
    assert codes in ([0, 0], [0, 1]), ended
    for out, err, code in ended:
        if code == 1:
            assert out == "" and len(err.strip().splitlines()) == 1, err
            assert "is held by run" in err
    entered = [json.loads(out)["entered"] for out, _, code in ended if code == 0]
    assert sum(entered) == 1
    done = [row["status"] for row in place.space.state.rows(refreshes.select())]
    assert done == ["finished"] * (1 + len(entered))


def test_databases_are_left_as_one_file_each(place: Place) -> None:
    """What SQLite keeps beside a database that is open is put into it at the process's end."""
    place.define(BUYERS)
    place.messages({**ORDER, "userId": "u1"}, name="in.jsonl")
    for arguments in (("ingest", "in.jsonl"), ("refresh",)):
        process = start(place, *arguments)
        assert (process.communicate(), process.returncode)[1] == 0
    assert list(place.root.rglob("*.db"))
    assert not list(place.root.rglob("*.db-*"))


def start(place: Place, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(COMMAND), *arguments],
        cwd=place.root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextmanager
def locked(place: Place) -> Iterator[None]:
    """The state database, held by somebody else for writing."""
    connection = sqlite3.connect(place.root / ".personas" / "state.db", isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


def test_locked_state(personas: Personas, place: Place) -> None:
    place.define(BUYERS)
    place.messages({**ORDER, "userId": "u1"}, name="in.jsonl")
    with locked(place):
        for command in (["ingest", "in.jsonl"], ["refresh", "--as-of", "2026-02-01"]):
            ended = personas(*command)
            assert ended.code == 1 and ended.out == "", ended
            assert len(ended.lines) == 1, ended
            assert "database is locked; end the process that holds it" in ended.err
    space = place.space
    assert space.lake.versions() == {} and space.landing.pending() == []
    assert personas("ingest", "in.jsonl").rows[0]["accepted"] == 1
    assert personas("refresh", "--as-of", "2026-02-01").rows[0]["entered"] == 1
