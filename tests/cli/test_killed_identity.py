"""`kill -9` while the graph is derived anew, and two commands at once.

What is killed, or runs beside another, is a process; what only comes before or after is not.
"""

from __future__ import annotations

import json
import subprocess
import time

import pytest

from tests.cli.running import Personas
from tests.place import COMMAND, Place

DAY = "2026-01-{:02}T00:00:00Z"


def said(number: int, **fields: object) -> dict[str, object]:
    at = DAY.format(1 + number % 20)
    return {"messageId": f"m{number}", "type": "track", "event": "Order", "receivedAt": at,
            "timestamp": at, **fields}  # fmt: skip


def filled(place: Place, personas: Personas) -> None:
    place.define({"audiences/buyers": "event('Order').count() >= 2"})
    people = [said(n, userId=f"u{n % 30}", anonymousId=f"d{n % 45}") for n in range(300)]
    assert personas("ingest", place.messages(*people, name="in.jsonl")).code == 0
    ended = personas("refresh", "--as-of", "2026-02-01")
    assert ended.code == 0, ended.err


def start(place: Place, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([str(COMMAND), *arguments], cwd=place.root, text=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)  # fmt: skip


def graph(personas: Personas) -> str:
    return personas("identity", "export").out


def rows(lines: str) -> list[dict[str, list[object]]]:
    return [json.loads(line) for line in lines.splitlines()]


@pytest.mark.slow
def test_a_killed_detachment_is_done_by_the_next_refresh(place: Place, personas: Personas) -> None:
    filled(place, personas)
    before = graph(personas)
    lake = place.root / ".personas" / "lake"
    commits = len(list(lake.glob("*/_delta_log/*.json")))
    process = start(place, "identity", "detach", "anonymous_id:d1", "--yes")
    while process.poll() is None and len(list(lake.glob("*/_delta_log/*.json"))) < commits + 4:
        time.sleep(0.002)
    process.kill()
    process.communicate()
    assert graph(personas) == before  # nothing of it is published
    ended = personas("refresh")
    assert ended.code == 0, ended.err
    done = graph(personas)
    together = ({"type": "anonymous_id", "id": "d1"}, {"type": "user_id", "id": "u1"})
    assert not any(all(one in row["external_ids"] for one in together) for row in rows(done))
    assert any(all(one in row["external_ids"] for one in together) for row in rows(before))
    assert personas("identity", "rebuild").code == 0
    assert graph(personas) == done


@pytest.mark.slow
def test_two_at_once(place: Place, personas: Personas) -> None:
    """One waits its turn or is told who is at it; the graph is right in the end."""
    filled(place, personas)
    before = graph(personas)
    more = [said(n, userId=f"u{n % 30}", anonymousId=f"e{n}") for n in range(300, 330)]
    assert personas("ingest", place.messages(*more, name="more.jsonl")).code == 0
    at_work = [start(place, "identity", "rebuild"), start(place, "refresh"),
               start(place, "identity", "rebuild")]  # fmt: skip
    ended = [(one.communicate(timeout=600), one.returncode) for one in at_work]
    for (_, errors), code in ended:
        assert code == 0 or (code == 1 and "is held by" in errors), errors
    assert any(code == 0 for _, code in ended)
    assert personas("refresh").code == 0
    done = graph(personas)
    assert personas("identity", "rebuild").code == 0
    assert graph(personas) == done != before
