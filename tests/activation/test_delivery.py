"""What happens when a tool does not take everything at once."""

from collections.abc import Callable, Sequence

import pytest
from world import Tool, World, buyers, no_wait, spend

from personas_dagster.activation.destination import DELIVERED, Abilities, Message, Outcome
from personas_dagster.activation.retries import Retries
from personas_dagster.destinations import open_destination
from personas_dagster.errors import DeliveryError, Rejected, Throttled, Unauthorized, Unavailable
from tests.destinations.loopback import Loopback, Reply

IDENTIFY = buyers(forms=("identify",))


def fill(world: World, count: int) -> None:
    for n in range(count):
        world.person(f"p{n:04}", user_id=f"u{n:04}")
    world.members["buyers"] = set(world.people)


def first(count: int, error: DeliveryError) -> Callable[[Sequence[Message]], None]:
    """A fault of the first calls."""
    left = [count]

    def fault(batch: Sequence[Message]) -> None:
        if left[0]:
            left[0] -= 1
            raise error

    return fault


def refuse(*users: str, error: DeliveryError | None = None) -> Callable[..., list[Outcome]]:
    """An answer that refuses these users one by one."""
    refused = Outcome(error or Rejected("bad address"))
    return lambda batch: [refused if m.recipient["user_id"] in users else DELIVERED for m in batch]


@pytest.mark.parametrize("error", [Unavailable("down"), Throttled("slow", 0.01), Throttled("slow")])
def test_retried_five_times(world: World, error: DeliveryError) -> None:
    fill(world, 1)
    world.tool.faults = first(5, error)
    report = world.sync()
    assert (report.requests, report.counts["confirmed"], report.failed) == (6, 1, False)


def test_given_up_after_five_and_due_again(world: World) -> None:
    fill(world, 1)
    world.tool.faults = first(6, Unavailable("down"))
    report = world.sync()
    assert (report.requests, report.counts["failed"], report.failed) == (6, 1, True)
    assert world.sync().counts["confirmed"] == 1


def test_sent_again_is_the_same_message(world: World) -> None:
    fill(world, 1)
    world.tool.faults = first(6, Unavailable("down"))
    world.sync(IDENTIFY)
    world.sync(IDENTIFY)
    assert len({call[0].message_id for call in world.tool.calls}) == 1
    assert world.ledger("reason", "outcome") == [("backfill", "failed"), ("backfill", "confirmed")]


def test_back_off_has_full_jitter(world: World) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    fill(world, 1)
    world.tool.faults = first(99, Unavailable("down"))
    world.sync(retries=Retries(initial=1.0, maximum=4.0, sleep=sleep))
    assert len(waits) == 5
    assert all(0 <= wait <= most for wait, most in zip(waits, (1, 2, 4, 4, 4), strict=True))
    assert len(set(waits)) == 5


def test_retry_after_is_obeyed_by_all(world: World) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    fill(world, 1)
    world.tool.faults = first(1, Throttled("slow", 17.0))
    world.sync(retries=Retries(sleep=sleep))
    assert waits == [17.0]


def test_too_long_a_retry_after_is_left_to_later(world: World) -> None:
    fill(world, 1)
    world.tool.faults = first(1, Throttled("tomorrow", 86_400.0))
    report = world.sync()
    assert (report.requests, report.counts["failed"]) == (1, 1)
    assert world.ledger() == []  # the tool never heard of it


def test_rejected_rows_do_not_block_others(world: World) -> None:
    fill(world, 10)
    world.tool.faults = refuse("u0003")
    report = world.sync(IDENTIFY)
    assert (report.counts["confirmed"], report.counts["rejected"]) == (9, 1)
    assert report.connections["c"].samples[0].detail == "bad address"
    assert world.sync(IDENTIFY).requests == 0


def test_rejected_until_the_value_changes(world: World) -> None:
    world.person("p1", user_id="u1")
    world.traits["computed_trait", "spend"] = {"p1": 1}
    world.tool.faults = refuse("u1")
    world.sync(spend())
    assert world.sync(spend()).requests == 0
    world.traits["computed_trait", "spend"] = {"p1": 2}
    assert world.sync(spend()).requests == 1


def test_rejected_entry_gets_no_exit(world: World) -> None:
    fill(world, 2)
    world.tool.faults = refuse("u0000")
    world.sync(IDENTIFY)
    world.members["buyers"] = {"p0001"}
    assert world.sync(IDENTIFY).requests == 0


def test_rejected_batch_is_halved(world: World) -> None:
    def fault(batch: Sequence[Message]) -> None:
        if any(m.recipient["user_id"] == "u0007" for m in batch):
            raise Rejected("400")

    fill(world, 10)
    world.tool.faults = fault
    report = world.sync(IDENTIFY)
    assert (report.counts["confirmed"], report.counts["rejected"]) == (9, 1)


def test_partly_taken_row_still_gets_its_exit(world: World) -> None:
    fill(world, 2)
    world.tool.faults = lambda batch: [
        Outcome(Rejected("no events")) if m.form == "track" else DELIVERED for m in batch
    ]
    report = world.sync()
    assert report.counts["rejected"] == 2
    assert world.ledger("outcome") == [("partial",), ("partial",)]
    assert world.sync().requests == 0
    world.members["buyers"] = {"p0001"}
    assert world.sync().connections["c"].sent == {"exited": 1}


@pytest.mark.parametrize("error", [Throttled("row limit"), Unavailable("busy")])
def test_only_the_rows_at_fault_are_retried(world: World, error: DeliveryError) -> None:
    fill(world, 10)
    world.tool.faults = refuse("u0003", "u0004", error=error)
    report = world.sync(IDENTIFY)
    assert [len(call) for call in world.tool.calls] == [10, 2, 2, 2, 2, 2]
    assert (report.counts["confirmed"], report.counts["failed"]) == (8, 2)
    world.tool.faults = refuse()
    assert world.sync(IDENTIFY).counts["confirmed"] == 2


def test_failed_entry_is_removed_when_it_leaves(world: World) -> None:
    fill(world, 2)
    world.tool.faults = first(99, Unavailable("no answer"))
    world.sync(IDENTIFY)
    world.tool.faults = refuse()
    world.members["buyers"] = {"p0001"}
    world.sync(IDENTIFY)
    assert world.tool.told == [("u0000", False), ("u0001", True)]


def test_unauthorized_stops_the_sync(world: World) -> None:
    fill(world, 500)
    world.tool.faults = first(999, Unauthorized("HTTP 401"))
    with pytest.raises(Unauthorized, match="destination tool: HTTP 401; check its credentials"):
        world.sync()
    assert len(world.tool.calls) <= world.tool.abilities.concurrency
    assert world.audit()[-1] == ("sync", "tool", "failed", "HTTP 401")
    world.tool.faults = refuse()
    assert world.sync().counts["confirmed"] == 500


def test_refused_credentials_leave_a_first_sync_and_a_resync_to_be_done(world: World) -> None:
    fill(world, 3)
    world.tool.faults = first(1, Unauthorized("HTTP 401"))
    with pytest.raises(Unauthorized):
        world.sync(IDENTIFY)
    assert world.sync(IDENTIFY).connections["c"].sent == {"backfill": 3}
    world.tool.faults = first(1, Unauthorized("HTTP 401"))
    with pytest.raises(Unauthorized):
        world.sync(IDENTIFY, resync=["c"])
    assert world.sync(IDENTIFY).connections["c"].sent == {"resync": 3}


def test_a_tool_that_is_down_is_left_alone(world: World) -> None:
    world.tool.abilities = Abilities(kind="event", matches_on=("user_id",), concurrency=1)
    fill(world, 100)
    world.tool.faults = first(10_000, Unavailable("down"))
    report = world.sync(IDENTIFY)
    assert (len(world.tool.calls), report.counts["postponed"]) == (18, 97)
    assert report.stopped == "down"


def test_a_bug_in_a_destination_loses_nothing(world: World) -> None:
    def fault(batch: Sequence[Message]) -> None:
        raise KeyError("a bug")

    fill(world, 30)
    world.tool.faults = fault
    with pytest.raises(KeyError):
        world.sync()
    world.tool.faults = refuse()
    report = world.sync()
    assert (report.counts["confirmed"], report.recovered > 0) == (30, True)


def test_progress(world: World) -> None:
    seen: list[tuple[int, int]] = []
    fill(world, 25)
    world.sync(IDENTIFY, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(10, 25), (20, 25), (25, 25)]


def test_connections_are_kept_and_used_at_once(world: World) -> None:
    fill(world, 12)
    with Loopback() as server:
        server.reply = lambda request: Reply(delay=0.2)
        world.sync(
            IDENTIFY, tool=open_destination("webhook", {"url": server.url, "concurrency": 4})
        )
        assert len(server.received) == 12
        assert (server.connections, server.most_at_once) == (4, 4)


@pytest.mark.quiet
def test_cap_holds_in_any_second(world: World) -> None:
    import time

    class Clocked(Tool):
        async def send(self, batch, pace):  # type: ignore[no-untyped-def]
            answer = await super().send(batch, pace)
            times.append(time.monotonic())
            return answer

    times: list[float] = []
    fill(world, 45)
    tool = Clocked(
        Abilities(kind="event", matches_on=("user_id",), requests_per_second=20, concurrency=8)
    )
    world.sync(IDENTIFY, tool=tool, retries=Retries(sleep=no_wait))
    assert len(times) == 45
    assert max(sum(t <= u < t + 0.99 for u in times) for t in times) <= 21
