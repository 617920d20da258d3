"""Syncs that are killed again and again: `python tests/activation/torture.py [KILLS] [RATE]`.

Each sync is a process of its own, killed with `kill -9` at a random instant; each wants another
audience. Every so often one is run to its end, and the tool must have what is desired.
"""

from __future__ import annotations

import multiprocessing
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa
from faulty import SLOW_SECONDS, Remote, tool

from personas_dagster.state.schema import audit, syncs
from personas_dagster.state.store import State

MEMBERS, BATCH, CONCURRENCY = 20_000, 100, 4
CHECK_EVERY, ROUND = 25, 50


def one_sync(
    folder: str, url: str, refresh_id: int, seed: int, people: int, timeout: float
) -> None:
    """One sync of a random three quarters of the people."""
    from world import World, buyers

    from personas_dagster.activation.retries import Retries
    from personas_dagster.destinations import open_destination

    world = World(Path(folder))
    for n in range(people):
        world.person(f"p{n:05}", user_id=f"u{n:05}")
    world.members["buyers"] = {f"p{n:05}" for n in chosen(seed, people)}
    settings = {"url": url, "batch_size": BATCH, "concurrency": CONCURRENCY, "timeout": timeout}
    world.sync(
        buyers(forms=("identify",)),
        tool=open_destination("webhook", settings),
        refresh_id=refresh_id,
        retries=Retries(initial=0.01, maximum=0.05),
        allow={"c": "a test"},
    )


def chosen(seed: int, people: int) -> list[int]:
    return random.Random(seed).sample(range(people), people * 3 // 4)


@dataclass
class Result:
    """`repeated` counts messages that came again."""

    kills: int
    syncs: int
    repeated: int


class Torture:
    """Syncs of a world in `folder` to a tool."""

    def __init__(
        self, folder: Path, remote: Remote, *, people: int, seed: int, timeout: float
    ) -> None:
        self._folder, self._remote, self._people = folder, remote, people
        self._timeout = timeout
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["world", "personas_dagster.destinations"])
        self._chance = random.Random(seed)
        self._refresh = self._seed = 0
        self.syncs = 0

    def _start(self) -> multiprocessing.process.BaseProcess:
        self.syncs += 1
        arguments = (str(self._folder), self._remote.url, self._refresh, self._seed, self._people)
        process = self._context.Process(target=one_sync, args=(*arguments, self._timeout))
        process.start()
        return process

    def _want(self) -> None:
        """Another audience."""
        self._refresh += 1
        self._seed = self._chance.randrange(10**9)

    def killed(self) -> bool:
        """Start a sync and kill it; False when it ended before."""
        self._want()
        process = self._start()
        until = self._remote.requests + self._chance.randrange(self._people // BATCH)
        latest = time.monotonic() + self._chance.choice((1, 2, 4, 60))
        while process.is_alive() and time.monotonic() < latest:
            if self._remote.requests >= until:
                time.sleep(self._chance.uniform(0, 0.02))
                break
            time.sleep(0.002)
        process.kill()
        process.join()
        killed = process.exitcode == -signal.SIGKILL
        assert killed or process.exitcode == 0, f"a sync ended with {process.exitcode}"
        return killed

    def finish(self, tries: int) -> None:
        """Run the sync that was killed last, to its end: what failed stays due for the next."""
        for _ in range(tries):
            process = self._start()
            process.join()
            assert process.exitcode == 0, f"a sync ended with {process.exitcode}"
            if self._remote.members == self.desired:
                return
        missing, left = self.desired - self._remote.members, self._remote.members - self.desired
        raise AssertionError(f"{len(missing)} missing, {len(left)} left in")

    def audited(self) -> int:
        """How many syncs were killed on their way; each attempt has its line in the audit trail."""
        state = State(f"sqlite:///{self._folder / 'state.db'}")
        begun = state.rows(sa.select(syncs.c.status, syncs.c.counts))
        lines = Counter(row["outcome"] for row in state.rows(sa.select(audit.c.outcome)))
        state.close()
        killed = sum("killed" in row["counts"] for row in begun)
        assert lines["killed"] == killed
        assert lines["killed"] + lines["finished"] + lines["failed"] == len(begun)
        return killed

    @property
    def desired(self) -> set[str]:
        return {f"u{n:05}" for n in chosen(self._seed, self._people)}


def torture(folder: Path, *, kills: int, rate: float, people: int, seed: int = 7) -> Result:
    """`kills` syncs killed, with each kind of fault at `rate`; raises when the tool is wrong.

    In rounds, each with a new tool and a new ledger, so that the last kill costs what the
    first did.
    """
    found = Result(0, 0, 0)
    for number in range(-(-kills // ROUND)):
        place = folder / str(number)
        place.mkdir()
        most = min(ROUND, kills - number * ROUND)
        one = _round(place, kills=most, rate=rate, people=people, seed=seed + number)
        found.kills += one.kills
        found.syncs += one.syncs
        found.repeated += one.repeated
        shutil.rmtree(place)
    return found


def _round(folder: Path, *, kills: int, rate: float, people: int, seed: int) -> Result:
    timeout = SLOW_SECONDS / 2 if rate else 60.0
    with tool(seed) as remote:
        run = Torture(folder, remote, people=people, seed=seed, timeout=timeout)
        done = 0
        while done < kills:
            remote.faults(rate)
            done += run.killed()
            if done % CHECK_EVERY == 0 or done == kills:
                run.finish(tries=1 if not rate else 20)
        repeated = remote.repeated
        assert run.audited() <= done
    if not rate:
        assert repeated <= done * CONCURRENCY * BATCH, f"{repeated} messages came again"
    return Result(done, run.syncs, repeated)


def _one_rate(kills: int, rate: float) -> str:
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="personas-torture-") as folder:
        result = torture(Path(folder), kills=kills, rate=rate, people=MEMBERS)
    return f"each fault at {rate:.0%}: {result} in {time.monotonic() - started:.0f} s"


def main() -> None:
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    rates = [float(sys.argv[2])] if len(sys.argv) > 2 else [0.0, 0.2]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(len(rates), mp_context=context) as pool:
        for line in pool.map(_one_rate, [kills] * len(rates), rates):
            sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
