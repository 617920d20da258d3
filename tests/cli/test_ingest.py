"""Bad input through the command line: counted, kept, and never in the way."""

from __future__ import annotations

import gzip
import json
from typing import Any

from tests.cli.running import Personas
from tests.place import Place

GOOD = {"type": "track", "event": "Order", "userId": "u1", "timestamp": "2026-01-01T00:00:00Z"}


def rejected(place: Place) -> list[dict[str, Any]]:
    space = place.space
    with space.engine.session(space.lake) as session:
        session.view("rejected_events")
        found: list[dict[str, Any]] = session.fetch(
            "SELECT * FROM rejected_events ORDER BY file, line"
        ).to_pylist()
    return found


def test_bad_messages(personas: Personas, place: Place) -> None:
    many = dict.fromkeys(map(str, range(301)), 1)
    bad = {
        "not_json": '{"type": "track", ',
        "wrong_type": json.dumps({**GOOD, "userId": ["u1"]}),
        "missing_ids": json.dumps({**GOOD, "userId": None}),
        "too_many_properties": json.dumps({**GOOD, "properties": many}),
        "unknown_type": json.dumps({**GOOD, "type": "tarck"}),
        "bad_timestamp": json.dumps({**GOOD, "timestamp": "yesterday"}),
    }
    fine = json.dumps({**GOOD, "properties": dict.fromkeys(map(str, range(300)), 1)})
    place.write("in.jsonl", "\n".join([*bad.values(), fine]) + "\n")
    ended = personas("ingest", "in.jsonl")
    assert ended.code == 0
    (report,) = ended.rows
    assert (report["accepted"], report["rejected"], report["duplicates"]) == (1, len(bad), 0)
    assert report["reasons"] == dict.fromkeys(bad, 1)
    rows = rejected(place)
    assert [row["reason"] for row in rows] == list(bad)
    assert [row["raw"] for row in rows] == list(bad.values())
    assert [row["line"] for row in rows] == list(range(1, len(bad) + 1))
    assert {row["file"] for row in rows} == {"in.jsonl"}
    assert ended.lines == ["6 rejected: see the table rejected_events for each one"]


def test_damaged_gzip(personas: Personas, place: Place) -> None:
    lines = [json.dumps({**GOOD, "messageId": f"m{n}"}) for n in range(2_000)]
    whole = gzip.compress("\n".join(lines).encode())
    place.write("in.jsonl.gz", "").write_bytes(whole[: len(whole) // 2])
    ended = personas("ingest", "in.jsonl.gz")
    assert ended.code == 0
    (report,) = ended.rows
    assert 0 < report["accepted"] < 2_000 and report["rejected"] == 0
    assert list(report["damaged"]) == ["in.jsonl.gz"]
    assert "what could be read was loaded" in ended.err
    place.write("whole.jsonl.gz", "").write_bytes(whole)
    (report,) = personas("ingest", "whole.jsonl.gz").rows
    assert report["accepted"] + report["duplicates"] == 2_000


def test_same_file_again(personas: Personas, place: Place) -> None:
    place.messages(GOOD, name="in.jsonl")
    assert personas("ingest", "in.jsonl").rows[0]["accepted"] == 1
    (report,) = personas("ingest", "in.jsonl").rows
    assert (report["accepted"], report["known_files"], report["received_dates"]) == (0, 1, None)


def test_dates_in_short(personas: Personas, place: Place) -> None:
    place.messages(*({**GOOD, "timestamp": f"2026-01-{day:02}T00:00:00Z"} for day in (3, 9, 5)),
                   name="in.jsonl")  # fmt: skip
    (report,) = personas("ingest", "in.jsonl").rows
    assert report["received_dates"] == {"from": "2026-01-03", "to": "2026-01-09", "days": 3}


def test_one_of_several_is_missing(personas: Personas, place: Place) -> None:
    """Paths are looked at before anything is taken."""
    place.messages(GOOD, name="in.jsonl")
    assert personas("ingest", "in.jsonl", "gone.jsonl").code == 1
    assert personas("ingest", "in.jsonl").rows[0]["accepted"] == 1
