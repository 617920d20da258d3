"""`kill -9` at random points: the next refresh ends where an undisturbed one would have."""

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


def ingest(place: Place, files: list[Path]) -> None:
    taken = place.personas("ingest", *map(str, files))
    assert taken.returncode == 0, taken.stderr


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
def test_killed_at_random_points(new_place: Callable[[], Place], tmp_path: Path) -> None:
    files = shop.write(tmp_path, people=150)
    size = -(-len(files) // len(DAYS))
    chance, kills = random.Random(11), 0
    calm, disturbed = new_place(), new_place()
    for place in (calm, disturbed):
        place.define(DEFINITIONS)
    for number, day in enumerate(DAYS):
        for place in (calm, disturbed):
            ingest(place, files[number * size : (number + 1) * size])
        assert calm.personas("refresh", "--as-of", day).returncode == 0
        for least, most in KILLS:
            more, pause = chance.randint(least, most), chance.uniform(0, 0.05)
            kills += kill_after(disturbed, day, more, pause)
        ended = disturbed.personas("refresh", "--as-of", day)
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["as_of"].startswith(day)
        assert digests(disturbed.space) == digests(calm.space), day
    assert kills >= 8
    status = [row["status"] for row in disturbed.space.state.rows(refreshes.select())]
    assert status.count("started") == 0 and status.count("finished") >= len(DAYS)
