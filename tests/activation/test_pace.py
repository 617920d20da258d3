"""The cap on requests: in any window, from any process, counted where they arrive."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from world import NOW

from personas_dagster.activation.outbox import Outbox
from personas_dagster.activation.pace import SharedPace, SharedWindow, answered_now
from personas_dagster.lake.delta import DeltaLake
from personas_dagster.samples.receiver import Receiver
from personas_dagster.state.store import State

HERE = Path(__file__).parent


def started(folder: Path, url: str | None = None) -> State:
    """A state in which a sync of the tool runs; in a file, unless a URL names another database."""
    state = State(url or f"sqlite:///{folder / 'state.db'}")
    Outbox(state, DeltaLake(folder), "tool", lambda: NOW).start(1, 1)
    return state


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 1_000_000

    def __call__(self) -> int:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += max(1, round(seconds * 1000))


@pytest.fixture
def window(tmp_path: Path) -> Callable[..., tuple[SharedWindow, Clock]]:
    def make(per_second: float) -> tuple[SharedWindow, Clock]:
        clock, state = Clock(), started(tmp_path)
        return SharedWindow(state, "tool", per_second, clock=clock, sleep=clock.sleep), clock

    return make


async def ask(
    limiter: SharedWindow, clock: Clock, times: int, takes: Callable[[], Awaitable[None]]
) -> list[int]:
    starts = []
    for _ in range(times):
        with SharedPace(limiter).turn() as turn:
            await turn()
            starts.append(clock.now)
            await takes()
    return starts


def most_in_a_second(times: list[int]) -> int:
    return max(sum(one <= other < one + 1000 for other in times) for one in times)


async def at_once() -> None: ...


@pytest.mark.parametrize(("cap", "most", "lasts"), [(3, 3, 3_000), (0.5, 1, 18_000)])
def test_never_above_the_cap(window, cap: float, most: int, lasts: int) -> None:  # type: ignore[no-untyped-def]
    limiter, clock = window(cap)
    starts = asyncio.run(ask(limiter, clock, 10, at_once))
    assert most_in_a_second(starts) <= most
    assert lasts <= starts[-1] - starts[0] <= lasts + 100


def test_a_slow_answer_keeps_its_place(window) -> None:  # type: ignore[no-untyped-def]
    """The request may have arrived just before it was answered."""
    limiter, clock = window(1)
    starts = asyncio.run(ask(limiter, clock, 2, lambda: clock.sleep(5)))
    assert starts[1] - starts[0] >= 6_000


def test_more_requests_in_one_send_than_places(window) -> None:  # type: ignore[no-untyped-def]
    limiter, clock = window(2)

    async def send() -> int:
        with SharedPace(limiter).turn() as turn:
            for _ in range(7):
                await turn()
        return clock.now

    assert asyncio.run(send()) - 1_000_000 >= 3_000


def test_what_a_killed_sync_asked_counts_from_now_on() -> None:
    assert answered_now({"a": [1, None], "b": [1, 5]}, 100) == {"a": [1, 101], "b": [1, 5]}


def test_next_sync_takes_the_places_over(window, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    limiter, clock = window(1)
    asyncio.run(ask(limiter, clock, 1, at_once))
    started(tmp_path)
    before = clock.now
    asyncio.run(limiter.acquire())
    assert clock.now - before >= 1_000


def test_clock_set_back(window) -> None:  # type: ignore[no-untyped-def]
    limiter, clock = window(1)
    asyncio.run(ask(limiter, clock, 1, at_once))
    clock.now -= 3_600_000
    before = clock.now
    asyncio.run(limiter.acquire())
    assert clock.now == before


@pytest.mark.quiet
def test_two_processes_share_a_cap(tmp_path: Path) -> None:
    share_a_cap(tmp_path, f"sqlite:///{tmp_path / 'state.db'}")


@pytest.mark.postgres
@pytest.mark.quiet
def test_two_processes_share_a_cap_in_postgres(tmp_path: Path, postgres_url: str) -> None:
    share_a_cap(tmp_path, postgres_url)


def share_a_cap(folder: Path, url: str) -> None:
    """Two processes ask as fast as they may; the tool counts."""
    cap, each = 20, 40
    arrivals: list[float] = []

    class Clocked(Receiver):
        def take(self, path, headers, body):  # type: ignore[no-untyped-def]
            arrivals.append(time.monotonic())
            return super().take(path, headers, body)

    started(folder, url).close()
    with Clocked() as receiver:
        command = [sys.executable, str(HERE / "ask_often.py"), url]
        command += [receiver.url, str(cap), str(each)]
        environment = {**os.environ, "PYTHONPATH": str(HERE.parents[1])}
        both = [subprocess.Popen(command, env=environment) for _ in range(2)]
        assert [process.wait(timeout=120) for process in both] == [0, 0]
    assert len(arrivals) == 2 * each
    most = max(sum(one <= other < one + 1 for other in arrivals) for one in arrivals)
    assert most <= cap * 1.05
