"""Sending everything again, when asked to; and not more often than the tool allows."""

import datetime as dt
from collections.abc import Sequence

import pytest
from test_delivery import fill, first, refuse
from world import NOW, World, buyers, spend

from personas_dagster.activation.destination import Abilities, Message
from personas_dagster.errors import PersonasError, Unavailable

QUIET = buyers(forms=("identify",))


def test_everything_again(world: World) -> None:
    fill(world, 3)
    world.sync(QUIET)
    before = {call[0].message_id for call in world.tool.calls}
    world.tool.taken.clear()
    world.members["buyers"] = {"p0000", "p0001"}
    report = world.sync(QUIET, resync=["buyers"])
    assert report.connections["c"].sent == {"resync": 2, "exited": 1}
    assert world.tool.told == [("u0000", True), ("u0001", True), ("u0002", False)]
    assert not before & {m.message_id for call in world.tool.calls[1:] for m in call}
    assert world.sync(QUIET).requests == 0


def test_same_refresh_again_is_another_message(world: World) -> None:
    fill(world, 1)
    for _ in range(3):
        world.sync(QUIET, refresh_id=1, resync=["c"])
    assert len({m.message_id for m in world.tool.taken}) == 3


def test_of_one_connection(world: World) -> None:
    fill(world, 1)
    world.traits["computed_trait", "spend"] = {"p0000": 1}
    world.sync(QUIET, spend())
    report = world.sync(QUIET, spend(), resync=["c"])
    assert [dict(one.sent) for one in report.connections.values()] == [{"resync": 1}, {}]


def test_cut_short_it_goes_on_where_it_was(world: World) -> None:
    world.tool.abilities = Abilities(
        kind="event", matches_on=("user_id",), batch_size=10, concurrency=1
    )
    fill(world, 30)
    world.sync(QUIET)

    def fault(batch: Sequence[Message]) -> None:
        if len(world.tool.calls) == 5:
            raise KeyError("a bug")

    world.tool.faults = fault
    with pytest.raises(KeyError):
        world.sync(QUIET, resync=["c"])
    world.tool.faults = refuse()
    assert world.sync(QUIET).connections["c"].sent == {"resync": 20}
    assert world.sync(QUIET).requests == 0


def test_rejected_rows_are_tried_again(world: World) -> None:
    fill(world, 2)
    world.tool.faults = refuse("u0001")
    world.sync(QUIET)
    world.tool.faults = refuse()
    assert world.sync(QUIET, resync=["c"]).counts["confirmed"] == 2


def test_dry_run_remembers_nothing(world: World) -> None:
    fill(world, 3)
    world.sync(QUIET)
    assert world.sync(QUIET, resync=["c"], dry_run=True).messages == 3
    assert world.sync(QUIET).requests == 0


def test_of_what_does_not_exist(world: World) -> None:
    with pytest.raises(PersonasError, match="no connection or key `b` leads to tool"):
        world.sync(resync=["b"])


@pytest.fixture
def slow(world: World) -> World:
    world.tool.abilities = Abilities(
        kind="list",
        accepts=("audience",),
        matches_on=("user_id",),
        interval=dt.timedelta(hours=6),
    )
    fill(world, 2)
    return world


def at(hours: float) -> dict[str, object]:
    return {"now": lambda: NOW + dt.timedelta(hours=hours)}


def test_not_before_its_time(slow: World) -> None:
    slow.sync(**at(0))
    slow.members["buyers"] = {"p0000"}
    report = slow.sync(**at(5.9))
    assert report.requests == 0
    assert report.skipped == (
        "destination tool takes a sync every 6:00:00; the last began at 2026-11-22 12:00:00 UTC, "
        "the next may begin at 2026-11-22 18:00:00 UTC, or sooner if forced"
    )
    assert slow.audit()[-1][2] == "skipped"
    assert slow.sync(**at(6)).connections["c"].sent == {"exited": 1}


def test_forced(slow: World) -> None:
    slow.sync(**at(0))
    slow.members["buyers"] = {"p0000"}
    assert slow.sync(**at(1), force=True).connections["c"].sent == {"exited": 1}


def test_what_failed_or_asked_nothing_does_not_count(slow: World) -> None:
    slow.tool.faults = first(99, Unavailable("down"))
    assert slow.sync(**at(0)).failed
    slow.tool.faults = refuse()
    assert slow.sync(**at(1)).counts["confirmed"] == 2
    assert slow.sync(**at(8)).requests == 0
    slow.members["buyers"] = {"p0000"}
    assert slow.sync(**at(9)).connections["c"].sent == {"exited": 1}
