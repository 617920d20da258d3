"""`kill -9` at random points: the next refresh ends where an undisturbed one would have.

What is killed is a process; what only comes before or after is not.
"""

from __future__ import annotations

import json
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from personas_dagster.digests import digests
from personas_dagster.samples import shop
from personas_dagster.state.schema import refreshes
from tests.cli.running import Personas
from tests.place import COMMAND, Place

# The first kill falls among the candidates, the next ones further and further on: into the graph,
# the events, the traits, the audiences. How often the lake is written to before each, at random:
KILLS = ((1, 6), (7, 10), (1, 3), (1, 2), (0, 1))
DEFINITIONS = {
    "computed_traits/revenue": "event('Order Completed').sum(property('revenue'))",
    "audiences/buyers": "event('Order Completed').within(30 days).count() >= 1",
    "audiences/rich": "trait('revenue') >= 100",
}
DAYS = ("2026-01-20", "2026-03-02")


def commits(place: Place) -> int:
    """How often the lake was written to."""
    return sum(1 for _ in (place.root / ".personas" / "lake").glob("*/_delta_log/*.json"))


def kill_after(place: Place, day: str, more: int, pause: float) -> bool:
    """Start a refresh and kill it once it has written this often; False if it ended before.

    Without any write to wait for, the moment is chance's alone.
    """
    until = commits(place) + more
    pause = pause if more else pause * 200
    process = subprocess.Popen(
        [str(COMMAND), "refresh", "--as-of", day],
        cwd=place.root,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    while process.poll() is None and commits(place) < until:
        time.sleep(0.002)
    time.sleep(pause)
    killed = process.poll() is None
    process.kill()
    process.wait()
    return killed


@pytest.mark.slow
def test_killed_at_random_points(
    new_place: Callable[[], Place],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    files = shop.write(tmp_path, people=150)
    size = -(-len(files) // len(DAYS))
    chance, kills = random.Random(11), 0
    calm, disturbed = new_place(), new_place()
    for place in (calm, disturbed):
        place.define(DEFINITIONS)
    undisturbed, later = (Personas(p.root, monkeypatch, capfd) for p in (calm, disturbed))
    for number, day in enumerate(DAYS):
        for personas in (undisturbed, later):
            taken = personas("ingest", *files[number * size : (number + 1) * size])
            assert taken.code == 0, taken.err
        assert undisturbed("refresh", "--as-of", day).code == 0
        for least, most in KILLS:
            more, pause = chance.randint(least, most), chance.uniform(0, 0.05)
            kills += kill_after(disturbed, day, more, pause)
        ended = later("refresh", "--as-of", day)
        assert ended.code == 0, ended.err
        assert json.loads(ended.out)["as_of"].startswith(day)
        assert digests(disturbed.space) == digests(calm.space), day
    assert kills >= 8
    status = [row["status"] for row in disturbed.space.state.rows(refreshes.select())]
    assert status.count("started") == 0 and status.count("finished") >= len(DAYS)
