"""Leases: one holder at a time, whatever happens to it."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
import time
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from personas_dagster.errors import Busy
from personas_dagster.state import Lease, State
from personas_dagster.state.schema import leases

HOLD = """
import sys
from personas_dagster.state import State
lease = State(sys.argv[1]).lease("refresh", owner="other", holder="run 1234").acquire()
print("held", flush=True)
sys.stdin.readline()
lease.release()
print("free", flush=True)
sys.stdin.readline()
"""


def lease(state: State, owner: str = "me") -> Lease:
    return state.lease("refresh", owner=owner, holder=f"run of {owner}")


def held(state: State) -> list[str]:
    return [row["owner"] for row in state.rows(sa.select(leases))]


def start(url: str) -> subprocess.Popen[str]:
    """Another process that holds the lease."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "held\n"
    return process


def test_held_and_given_back(state: State) -> None:
    with lease(state):
        assert held(state) == ["me"]
    assert held(state) == []


def test_same_owner_again(state: State) -> None:
    with lease(state), lease(state):
        assert held(state) == ["me"]


def test_busy_says_who(state: State) -> None:
    with lease(state, "you"), pytest.raises(Busy, match=r"held by run of you \(process \d+ on "):
        lease(state).acquire()


def test_two_names(state: State) -> None:
    with lease(state), state.lease("intake", owner="you", holder="x"):
        assert sorted(held(state)) == ["me", "you"]


def test_two_processes(state: State, state_url: str) -> None:
    process = start(state_url)
    assert process.stdin and process.stdout
    with pytest.raises(Busy, match=f"run 1234 \\(process {process.pid} on "):
        lease(state).acquire()
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "free\n"
    with lease(state):
        assert held(state) == ["me"]
    process.communicate("\n", timeout=60)


def test_dead_holder_is_noticed_at_once(state: State, state_url: str) -> None:
    process = start(state_url)
    process.kill()
    process.communicate()
    with lease(state):
        assert held(state) == ["me"]


def test_holder_elsewhere_runs_out(state: State) -> None:
    mine = lease(state, "far").acquire()
    change(state, host="another machine", pid=1)
    with pytest.raises(Busy):
        lease(state).acquire()
    change(state, expires_at=dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1))
    with lease(state):
        assert held(state) == ["me"]
        mine.release()  # no longer theirs to give back
        assert held(state) == ["me"]


def test_same_pid_of_another_process(state: State) -> None:
    mine = lease(state, "before").acquire()
    change(state, process_started=1.0)
    with lease(state):
        assert held(state) == ["me"]
    mine.release()


def test_renewed_while_held(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("personas_dagster.state.leases._RENEW_SECONDS", 0.01)
    with lease(state):
        old = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
        change(state, expires_at=old)
        for _ in range(2_000):
            if state.rows(sa.select(leases))[0]["expires_at"] > old:
                return
            time.sleep(0.01)  # it is renewed in a thread, which may have to wait for a processor
    pytest.fail("the lease was not renewed")


def test_taken_by_one_of_many(open_state: Callable[[], State]) -> None:
    states = [open_state() for _ in range(5)]
    taken = []
    for number, state in enumerate(states):
        try:
            taken.append(lease(state, str(number)).acquire())
        except Busy:
            continue
    assert len(taken) == 1
    taken[0].release()


def change(state: State, **values: object) -> None:
    with state.begin() as connection:
        connection.execute(sa.update(leases).values(**values))
