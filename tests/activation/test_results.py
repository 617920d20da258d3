"""Tools that take a request at once and work it off later: what became of it is asked for."""

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from world import NOW, World, buyers

from personas_dagster.activation.destination import Message, Outcome, Result
from personas_dagster.errors import Rejected, Unavailable
from personas_dagster.state.schema import receipts


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A tool that gives one receipt for each batch, of ten."""
    made = World(tmp_path)
    for n in range(20):
        made.person(f"p{n:02}", user_id=f"u{n:02}")
        made.members["buyers"].add(f"p{n:02}")
    count = 0

    def take(batch: Sequence[Message]) -> list[Outcome]:
        nonlocal count
        count += 1
        return [Outcome(receipt=f"r{count}")] * len(batch)

    made.tool.faults = take
    return made


ONE_FORM = buyers(forms=("identify",))


def open_receipts(world: World) -> set[str]:
    return {row["receipt"] for row in world.state.rows(receipts.select())}


def users(world: World, receipt: str) -> set[str]:
    rows = world.ledger("recipient", "detail")
    return {recipient for recipient, detail in rows if detail == receipt}


def test_rows_know_their_receipt(world: World) -> None:
    report = world.sync(ONE_FORM)
    assert report.confirmed == 20 and not report.connections["c"].samples
    assert open_receipts(world) == {"r1", "r2"}
    assert len(users(world, "r1")) == len(users(world, "r2")) == 10


def test_what_came_to_nothing_is_sent_again(world: World) -> None:
    world.sync(ONE_FORM)
    lost = users(world, "r1")
    world.tool.results = {"r1": Result(Unavailable("internal")), "r2": Result()}
    world.tool.calls.clear()
    report = world.sync(ONE_FORM)
    assert report.connections["c"].sent == {"backfill": 10}
    assert {row for row, detail in world.ledger("recipient", "detail") if detail == "r3"} == lost
    assert ("sync", "c", "undone", "r1: internal") in world.audit()
    assert open_receipts(world) == {"r3"}
    assert not world.sync(ONE_FORM).confirmed  # and nothing more


def test_what_was_refused_for_good_is_not(world: World) -> None:
    world.sync(ONE_FORM)
    world.tool.results = {"r1": Result(Rejected("no consent")), "r2": Result()}
    assert not world.sync(ONE_FORM).confirmed
    assert world.ledger("outcome", "detail").count(("rejected", "no consent")) == 10


def test_an_exit_that_came_to_nothing_is_sent_again(world: World) -> None:
    world.sync(ONE_FORM)
    world.tool.results = {"r1": Result(), "r2": Result()}
    world.members["buyers"].discard("p01")
    assert world.sync(ONE_FORM).connections["c"].sent == {"exited": 1}
    world.tool.results = {"r3": Result(Unavailable("internal"))}
    world.tool.calls.clear()
    assert world.sync(ONE_FORM).connections["c"].sent == {"exited": 1}
    assert [m.value for batch in world.tool.calls for m in batch] == [False]
    world.tool.results = {"r4": Result()}
    assert not world.sync(ONE_FORM).confirmed


def test_what_was_told_since_is_left_alone(world: World) -> None:
    """The entry came to nothing after all, but the person has left."""
    world.sync(ONE_FORM)
    world.members["buyers"].discard("p01")
    world.sync(ONE_FORM)
    world.tool.results = {"r1": Result(Unavailable("internal")), "r2": Result(), "r3": Result()}
    sent = world.sync(ONE_FORM).connections["c"].sent
    assert sent == {"backfill": 9}


def test_a_part_that_was_not_done_is_in_the_audit_trail(world: World) -> None:
    world.sync(ONE_FORM)
    world.tool.results = {"r1": Result(note="3 INVALID_FORMAT"), "r2": Result()}
    assert not world.sync(ONE_FORM).confirmed
    assert ("sync", "c", "partial", "r1: 3 INVALID_FORMAT") in world.audit()


def at(hours: float) -> Any:
    return {"now": lambda: NOW + dt.timedelta(hours=hours)}


def test_it_is_asked_less_and_less_often(world: World) -> None:
    world.sync(ONE_FORM, **at(0))
    for hours, asked in ((0.4, 0), (0.5, 2), (0.9, 2), (1.0, 4), (1.9, 4), (2.0, 6), (3.9, 6)):
        world.sync(ONE_FORM, **at(hours))
        assert len(world.tool.asked) == asked, hours
    world.sync(ONE_FORM, **at(24 * 7))
    assert not open_receipts(world)
    said = "r1: the tool never said what became of it"
    assert ("sync", "c", "unknown", said) in world.audit()


def test_a_tool_that_cannot_be_asked_is_asked_later(world: World) -> None:
    world.sync(ONE_FORM)

    async def result(receipt: str, pace: Any) -> Result:
        raise Unavailable("down")

    world.tool.result = result  # type: ignore[method-assign]
    world.members["buyers"].discard("p01")
    report = world.sync(ONE_FORM)
    assert report.confirmed == 1 and not report.failed
    assert open_receipts(world) == {"r1", "r2", "r3"}


def test_killed_while_asking(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the tool said is in the ledger, and it is asked again: the rows are there once."""
    world.sync(ONE_FORM)
    world.tool.results = {"r1": Result(Unavailable("internal")), "r2": Result()}
    with monkeypatch.context() as killed:
        killed.setattr("personas_dagster.activation.results.close", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            world.sync(ONE_FORM)
    assert world.sync(ONE_FORM).connections["c"].sent == {"backfill": 10}
    assert world.ledger("outcome").count(("failed",)) == 10
    assert open_receipts(world) == {"r3"}
