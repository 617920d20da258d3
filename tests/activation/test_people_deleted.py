"""People are deleted at a tool: whom it is asked for, what is said of it, and what it takes."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from world import ABILITIES, NOW, Tool, World, no_wait

from personas_dagster import deliver
from personas_dagster.activation import deletion
from personas_dagster.activation.destination import DELIVERED, Outcome
from personas_dagster.activation.pace import SharedPace, SharedWindow, limiter_of
from personas_dagster.activation.retries import Retries
from personas_dagster.errors import Busy, Rejected, Throttled, Unauthorized, Unavailable
from personas_dagster.simulators import Simulator, simulator
from personas_dagster.simulators.serving import Served
from personas_dagster.spaces import Space
from personas_dagster.state.schema import audit
from tests.place import Place

ANN = {"user_id": "ann", "email": "ann@example.com"}
BO, CY = {"email": "bo@example.com"}, {"user_id": "cy"}
RETRIES = Retries(sleep=no_wait)


def tool() -> Tool:
    return Tool(replace(ABILITIES, deletes_by=("user_id", "email"), deletes_at_once=2))


def delete(tool: Any, *people: dict[str, str]) -> deletion.Deleted:
    pace = SharedPace(None, no_wait)
    return asyncio.run(deletion.delete(tool, people, pace=pace, retries=RETRIES))


def test_each_is_asked_for_once_in_batches() -> None:
    one = tool()
    found = delete(one, ANN, BO, dict(ANN), CY, {"group_id": "acme"})
    assert one.deleting == [[ANN, BO], [CY]]
    assert (found.done, found.is_whole, found.said) == (3, True, "deleted there (recipients: 3)")


def test_an_alias_is_two_people() -> None:
    one = tool()
    assert delete(one, {"previous_id": "old", "user_id": "ann"}).done == 2
    assert one.deleting == [[{"user_id": "ann"}, {"user_id": "old"}]]


def test_whom_the_tool_cannot_delete_is_said() -> None:
    one = tool()
    found = delete(one, CY, {"ios.idfa": "AB"})
    assert one.deleting == [[CY]] and not found.is_whole
    assert found.said == (
        "recipients deleted there: 1, refused, or without an identifier to delete by: 1; delete "
        "the person there by hand"
    )


def test_refused_alone_of_a_batch() -> None:
    one = tool()

    def refuse(people: Sequence[Any]) -> Sequence[Outcome] | None:
        if ANN in people:
            raise Rejected("ann@example.com is protected")
        return None

    one.deletion_faults = refuse
    found = delete(one, ANN, BO, CY)
    assert (found.done, found.refused) == (2, 1) and "ann" not in found.said


def test_what_may_be_tried_again_is() -> None:
    one = tool()
    script: list[Sequence[Outcome] | Exception | None]
    script = [Throttled("slow down", 3.0), [DELIVERED, Outcome(Unavailable("busy"))], None]

    def next_one(people: Sequence[Any]) -> Sequence[Outcome] | None:
        found = script.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    one.deletion_faults = next_one
    assert delete(one, ANN, BO).done == 2
    assert one.deleting == [[ANN, BO], [ANN, BO], [BO]]


@pytest.mark.parametrize(
    ("error", "calls", "why"),
    [
        (Unavailable("HTTP 500 about ann@example.com"), 6, "the tool did not answer as it should"),
        (Unauthorized("HTTP 401"), 1, "the credentials were not accepted"),
        (Throttled("later", 3600.0), 1, "the tool was too busy"),
    ],
)
def test_a_tool_out_of_reach_is_said(error: Exception, calls: int, why: str) -> None:
    """The second batch is not tried: it would take as long again."""
    one = tool()

    def fail(people: Sequence[Any]) -> None:
        raise error

    one.deletion_faults = fail
    found = delete(one, ANN, BO, CY)
    assert len(one.deleting) == calls and found.unreachable == 3
    assert found.said.endswith(f"not deleted, since {why}: 3; delete the person there by hand")
    assert "ann" not in found.said


def test_the_cap_is_shared_with_syncs(world: World) -> None:
    assert limiter_of(world.state, "tool", 5) is None  # no row to count in
    world.sync()
    assert isinstance(limiter_of(world.state, "tool", 5), SharedWindow)
    assert limiter_of(world.state, "tool", None) is None


@pytest.fixture
def served() -> Iterator[Served]:
    with Served() as made:
        yield made


@pytest.fixture
def shop(
    new_place: Callable[[], Place], served: Served, monkeypatch: pytest.MonkeyPatch
) -> tuple[Space, Simulator]:
    """A space with a webhook that knows Ann, and a stream that cannot delete."""
    place, account = new_place(), simulator("webhook")
    monkeypatch.setenv("HOOK", f"{served.add('hook', account)}/hook/{account.key}")
    place.write("resources/destinations/hook.yaml", "type: webhook\nsettings: {url: {env: HOOK}}\n")
    place.write(
        "resources/destinations/stream.yaml",
        "type: kinesis\nsettings: {stream: events, region: eu-west-1}\n",
    )
    account.people["ann"] = {"email": "ann@example.com"}
    return place.space, account


def trail(space: Space) -> list[dict[str, Any]]:
    return space.state.rows(sa.select(audit).where(audit.c.what == "deletion"))


def test_a_space_deletes_at_its_destinations(shop: tuple[Space, Simulator]) -> None:
    space, account = shop
    said = deliver.delete_people(space, "hook", [ANN], now=NOW)
    assert said == "deleted there (recipients: 1)" and account.people == {}
    (row,) = trail(space)
    assert (row["subject"], row["outcome"], row["reason"]) == ("hook", "finished", said)
    assert row["counts"] == {"deleted": 1, "refused": 0, "unreachable": 0}
    assert "ann" not in repr(row)


def test_a_tool_that_cannot_delete_is_not_asked(shop: tuple[Space, Simulator]) -> None:
    space, _ = shop
    assert deliver.delete_people(space, "stream", [ANN], now=NOW) is None
    assert trail(space) == []


def test_an_outage_is_said_and_leaves_a_line(shop: tuple[Space, Simulator]) -> None:
    space, account = shop
    account.faults.chances["error"] = 1.0
    said = deliver.delete_people(space, "hook", [ANN], now=NOW, retries=RETRIES)
    assert (
        said
        and "not deleted, since the tool did not answer as it should: 1" in said
        and "ann" in account.people
    )
    assert [(row["outcome"], row["reason"]) for row in trail(space)] == [("failed", said)]


def test_no_sync_runs_meanwhile(shop: tuple[Space, Simulator]) -> None:
    space, account = shop
    lease = space.state.lease("destination:hook", owner="somebody", holder="sync of hook")
    with lease, pytest.raises(Busy):
        deliver.delete_people(space, "hook", [ANN], now=NOW)
    assert "ann" in account.people
