"""The engine over each tool of the catalogue: whatever breaks, the tool ends with the audience."""

from collections.abc import Iterator
from typing import Any

import pytest
from world import World, buyers

from personas_dagster.activation.report import SyncReport
from personas_dagster.destinations import DESTINATIONS, open_destination
from personas_dagster.simulators import Simulator, simulator
from personas_dagster.simulators.serving import Served

PEOPLE, LEAVING = 24, 8
FAULTS = {"throttle": 0.1, "error": 0.1, "reset": 0.05, "lost": 0.1, "rows": 0.1}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as made:
        yield made


def synced(world: World, account: Simulator, url: str) -> SyncReport:
    """Syncs until nothing is due, as the schedule does it."""
    for _ in range(10):
        settings: dict[str, Any] = {**account.settings(url), "requests_per_second": 1_000}
        tool = open_destination(account.type, settings)
        report = world.sync(buyers(), tool=tool, force=True)
        if not report.failed:
            return report
    raise AssertionError(report.stopped)


@pytest.mark.parametrize("name", DESTINATIONS)
def test_the_tool_ends_with_the_audience(name: str, served: Served, world: World) -> None:
    account = simulator(name, seed=7)
    url = served.add(name, account)
    account.faults.chances.update(FAULTS)  # type: ignore[arg-type]
    for n in range(PEOPLE):
        world.person(f"p{n:02}", user_id=f"user-{n:02}", email=f"p{n:02}@shop.example")
    world.members["buyers"] = set(world.people)
    synced(world, account, url)
    everybody = set(account.members("buyers"))
    assert len(everybody) == PEOPLE
    world.members["buyers"] -= set(sorted(world.people)[:LEAVING])
    synced(world, account, url)
    left = set(account.members("buyers"))
    assert len(left) == PEOPLE - LEAVING and left < everybody
    account.faults.clear()
    assert synced(world, account, url).messages == 0  # may ask what became of the last requests
    account.requests.clear()
    assert synced(world, account, url).messages == 0 and account.requests == []
    assert any(row == ("exited",) for row in world.ledger("reason"))
