"""What must exist at the tool first: asked before a first sync, and said by name."""

from pathlib import Path

import pytest
from world import World, buyers

from personas_dagster.activation.destination import Outcome
from personas_dagster.errors import NeedsSetup, PersonasError, Throttled, Unauthorized, Unavailable

WHAT = "there is no list `buyers`; make it in the tool"


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    for n in range(25):
        made.person(f"p{n}", user_id=f"u{n}")
        made.members["buyers"].add(f"p{n}")
        made.members["vips"].add(f"p{n}")
    return made


def test_the_first_sync_asks_and_sends_nothing_that_lacks_something(world: World) -> None:
    vips = buyers(name="v", key="vips")
    world.tool.lacks = {"c": WHAT}
    report = world.sync(buyers(), vips)
    assert report.needs == {"c": WHAT} and report.needs_setup_only
    assert {m.connection for batch in world.tool.calls for m in batch} == {"v"}
    assert report.connections["c"].postponed == 25 and report.connections["c"].failed == 0
    assert ("sync", "c", "needs_setup", WHAT) in world.audit()
    assert world.audit()[-1][2] == "finished"  # of the other connection, and of the interval

    world.tool.lacks = {}
    world.tool.calls.clear()
    report = world.sync(buyers(), vips)
    assert report.connections["c"].sent == {"backfill": 25} and not report.needs
    assert {m.connection for batch in world.tool.calls for m in batch} == {"c"}


def test_with_nothing_else_to_send_the_sync_failed_and_the_next_is_not_too_early(
    world: World,
) -> None:
    world.tool.lacks = {"c": WHAT}
    assert world.sync().why == f"connection c: {WHAT}"
    assert world.audit()[-1][2:] == ("failed", f"connection c: {WHAT}")
    assert world.ledger() == []


def test_only_a_first_sync_asks(world: World) -> None:
    world.sync()
    world.tool.lacks = {"c": WHAT}
    world.members["buyers"].discard("p1")
    report = world.sync()
    assert not report.needs and report.confirmed == 1


def test_what_goes_missing_later_is_said_and_not_tried_again(world: World) -> None:
    calls = 0

    def faults(batch):  # type: ignore[no-untyped-def]
        nonlocal calls
        if batch[0].connection == "c":
            calls += 1
            raise NeedsSetup(WHAT)

    world.tool.faults = faults
    report = world.sync(buyers(), buyers(name="v", key="vips"))
    assert calls <= world.tool.abilities.concurrency  # those in flight, each once
    assert report.needs == {"c": WHAT} and report.connections["v"].confirmed == 25
    assert {row["connection"] for row in world.ledger()} == {"v"}
    assert report.connections["c"].postponed == 25


@pytest.mark.parametrize("error", [Unavailable("down"), Throttled("slow", 1.0)])
def test_a_tool_that_cannot_be_asked_is_sent_nothing(world: World, error: Exception) -> None:
    asked = 0

    async def check(connection, pace):  # type: ignore[no-untyped-def]
        nonlocal asked
        asked += 1
        raise error

    world.tool.check = check  # type: ignore[method-assign]
    report = world.sync()
    assert asked == 6 and report.stopped == str(error)
    assert not world.tool.calls and not report.needs and report.connections["c"].postponed == 25


def test_a_first_sync_that_could_not_ask_is_still_to_come(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def check(connection, pace):  # type: ignore[no-untyped-def]
        raise Unauthorized("401")

    members = world.members.pop("buyers")  # nobody is due
    with monkeypatch.context() as patch, pytest.raises(Unauthorized):
        patch.setattr(world.tool, "check", check)
        world.sync()
    world.members["buyers"] = members
    world.tool.lacks = {"c": WHAT}
    assert world.sync().needs == {"c": WHAT}


def test_a_dry_run_asks_nothing(world: World) -> None:
    world.tool.lacks = {"c": WHAT}
    assert not world.sync(dry_run=True).needs


def test_lists_are_for_list_destinations(world: World) -> None:
    with pytest.raises(PersonasError, match="tool keeps no lists; remove `list_id`"):
        world.sync(buyers(list_id="42"))


def test_what_a_tool_notes_is_in_the_ledger_and_the_report(world: World) -> None:
    world.tool.faults = lambda batch: [Outcome(note="3 of 10 were unreadable")] * len(batch)
    report = world.sync()
    assert report.confirmed == 25 and not report.failed
    assert set(world.ledger("outcome", "detail")) == {("confirmed", "3 of 10 were unreadable")}
    assert report.connections["c"].samples[0].detail == "3 of 10 were unreadable"
    assert world.sync().counts["reasons"] == {}
