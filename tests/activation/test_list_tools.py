"""The engine and list destinations together, on their simulators: the list is the audience."""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from world import NOW, World, buyers

from personas_dagster.destinations import open_destination
from personas_dagster.simulators import Simulator, simulator
from personas_dagster.simulators.serving import Served

TYPES = ["facebook_custom_audiences", "google_ads"]


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with Served() as made:
        yield made


class Place:
    """A world whose tool is an account at a simulator."""

    def __init__(self, world: World, account: Simulator, url: str) -> None:
        self.world, self.account = world, account
        self.settings = {**account.settings(url), "requests_per_second": None, "batch_size": 10}
        for n in range(30):
            world.person(f"p{n:02}", user_id=f"u{n:02}", email=f"p{n:02}@x.example")
            world.members["buyers"].add(f"p{n:02}")

    def sync(self, **options: Any) -> Any:
        tool = open_destination(self.account.type, self.settings)
        return self.world.sync(buyers(), tool=tool, **{"force": True, **options})

    def listed(self) -> set[str]:
        return self.account.members("buyers")

    def wanted(self) -> set[str]:
        people = self.world.members["buyers"]
        return {sha256(f"{who}@x.example".encode()).hexdigest() for who in people}


@pytest.fixture
def place(request: Any, tmp_path: Path, served: Served) -> Place:
    account = simulator(request.param)
    return Place(World(tmp_path), account, served.add(request.param, account))


@pytest.mark.parametrize("place", TYPES, indirect=True)
def test_the_list_is_the_audience_whatever_breaks(place: Place) -> None:
    place.world.person("odd", email="not an address")
    place.world.members["buyers"].add("odd")
    place.account.faults.chances.update({"error": 0.2, "reset": 0.1, "lost": 0.2})
    assert place.sync().rejected == 1
    place.world.members["buyers"].discard("odd")
    assert place.listed() == place.wanted() and len(place.listed()) == 30
    for n in range(12):
        place.world.members["buyers"].discard(f"p{n:02}")
    assert not place.sync().failed
    assert place.listed() == place.wanted() and len(place.listed()) == 18


@pytest.mark.parametrize("place", TYPES, indirect=True)
def test_it_is_synced_at_its_own_pace(place: Place) -> None:
    hours = {"facebook_custom_audiences": 1, "google_ads": 6}[place.account.type]
    place.sync(now=lambda: NOW)
    place.world.members["buyers"].discard("p01")
    early = place.sync(force=False, now=lambda: NOW.replace(minute=59))
    assert early.skipped and f"a sync every {hours}:00:00" in early.skipped
    assert place.sync(force=False, now=lambda: NOW.replace(hour=12 + hours)).confirmed == 1


@pytest.mark.parametrize("place", ["facebook_custom_audiences"], indirect=True)
def test_a_destination_without_historical_data_is_told_changes_only(place: Place) -> None:
    place.settings["historical"] = False
    report = place.sync()
    assert (report.messages, report.requests, report.checked) == (0, 0, 1)
    place.world.person("new", email="new@x.example")
    place.world.members["buyers"].add("new")
    assert place.sync().confirmed == 1
    assert place.listed() == {sha256(b"new@x.example").hexdigest()}


@pytest.mark.parametrize("place", ["google_ads"], indirect=True)
def test_what_google_did_not_do_is_sent_again(place: Place) -> None:
    place.sync()
    account: Any = place.account
    lost = next(iter(account.taken))
    inside = place.listed()
    account.taken[lost] = {"requestStatus": "FAILED", "errorInfo": {}}
    sent = next(r for r in account.requests if ":ingest" in r.seen.path)
    gone = {who for who in inside if who.encode() in sent.seen.body}
    account.lists["buyers"] -= gone
    assert len(gone) == 10
    report = place.sync()
    assert report.connections["c"].sent == {"backfill": 10}
    assert place.listed() == place.wanted()
    assert not place.sync().confirmed


@pytest.mark.parametrize("place", TYPES, indirect=True)
def test_a_list_that_is_missing_is_said_and_nothing_is_sent(place: Place) -> None:
    place.settings["create_lists"] = False
    report = place.sync()
    assert "there is no list `buyers`" in report.needs["c"] and report.needs_setup_only
    assert place.account.lists == {} and place.world.ledger() == []
    place.settings["create_lists"] = True
    assert place.sync().confirmed == 30 and place.listed() == place.wanted()
