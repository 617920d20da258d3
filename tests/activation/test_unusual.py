"""What a report says is not as usual, and audiences whose source is overdue."""

import pytest
from test_delivery import fill
from world import World, buyers

LOOSE = buyers(forms=("identify",), max_change=9.0)


def members(world: World, start: int, stop: int) -> None:
    world.members["buyers"] = {f"p{n:04}" for n in range(start, stop)}


@pytest.fixture
def steady(world: World) -> World:
    """400 members, of whom 20 come and go with each sync."""
    fill(world, 1_500)
    for n in range(5):
        members(world, 20 * n, 400 + 20 * n)
        world.sync(LOOSE)
    return world


def test_usual_changes(steady: World) -> None:
    members(steady, 110, 510)
    report = steady.sync(LOOSE)
    assert (report.connections["c"].usual_changes, report.connections["c"].changes) == (40, 60)
    assert report.unusual(changes=0.5, size=0.2) == []
    (found,) = report.unusual(changes=0.4, size=0.2, at_least=10)
    assert str(found) == "connection c: 60 changes, usually 40 (+50%)"


def test_spike(steady: World) -> None:
    members(steady, 80, 1_480)
    found = steady.sync(LOOSE).unusual(changes=1.0, size=0.2)
    assert [(one.what, one.usual, one.now) for one in found] == [
        ("changes", 40, 1_000), ("size", 400, 1_400),
    ]  # fmt: skip


def test_drop(steady: World) -> None:
    found = steady.sync(LOOSE).unusual(changes=0.9, size=0.2, at_least=40)
    assert [(one.what, one.now, one.share) for one in found] == [("changes", 0, -1.0)]


def test_first_syncs_and_resyncs_are_usual(steady: World) -> None:
    report = steady.sync(LOOSE, buyers(name="new"), resync=["c"])
    assert report.connections["new"].changes == 400
    assert report.unusual(changes=0.9, size=0.2) == []


def test_held_while_a_source_is_overdue(steady: World) -> None:
    late = {"buyers": "shop has sent nothing since 2026-11-20"}
    assert not steady.sync(LOOSE, overdue=late).held  # nothing to send
    members(steady, 90, 490)
    report = steady.sync(LOOSE, overdue=late)
    assert report.held == {
        "c": "has a source that is overdue: shop has sent nothing since 2026-11-20"
    }
    assert report.requests == 0
    assert steady.sync(LOOSE, overdue=late, allow={"c": "known"}).counts["confirmed"] == 20
