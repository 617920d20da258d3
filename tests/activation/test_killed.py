"""`kill -9` at any moment: nothing lost, nobody left in who should be out."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from personas_dagster.samples.receiver import Receiver

KILLS, IN_FLIGHT, BATCH = 5, 4, 10
SCRIPT = Path(__file__).parent / "one_sync.py"
ROOT = Path(__file__).parents[2]


def start(folder: Path, url: str, refresh: int, members: list[int]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), str(folder), url, str(refresh), json.dumps(members)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def kill_within(process: "subprocess.Popen[str]", receiver: Receiver, requests: int) -> bool:
    """Kill the sync once it made this many requests more; False if it ended before."""
    assert process.stdout
    process.stdout.readline()
    until = receiver.requests + requests
    while receiver.requests < until and process.poll() is None:
        time.sleep(0.001)
    killed = process.poll() is None
    process.kill()
    process.wait()
    process.stdout.close()
    return killed


def test_killed_at_random_instants(tmp_path: Path) -> None:
    chance = random.Random(7)
    with Receiver() as receiver:
        kills = 0
        for refresh in range(1, KILLS + 1):
            members = sorted(chance.sample(range(2_000), 1_500))
            process = start(tmp_path, receiver.url, refresh, members)
            kills += kill_within(process, receiver, chance.randrange(0, 60))
        # the refresh of the last kill is run again, to its end
        process = start(tmp_path, receiver.url, KILLS, members)
        process.communicate(timeout=60)
        assert process.returncode == 0
        messages = receiver.messages
    assert kills == KILLS
    state = {m["userId"]: m["traits"]["buyers"] for m in messages}
    assert {user for user, value in state.items() if value} == {f"u{n:04}" for n in members}
    repeated = len(messages) - len({m["messageId"] for m in messages})
    assert repeated <= kills * IN_FLIGHT * BATCH
