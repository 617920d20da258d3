"""The circuit breaker, the dry run, and two syncs at once."""

import pytest
from test_delivery import fill
from world import NOW, Tool, World, buyers

from personas_dagster.activation.destination import Abilities
from personas_dagster.activation.outbox import Outbox
from personas_dagster.errors import Busy, PersonasError
from personas_dagster.state.schema import audit


def test_large_change_is_held_and_let_pass_once(world: World) -> None:
    fill(world, 300)
    world.sync()
    world.members["buyers"] = {f"p{n:04}" for n in range(100)}
    report = world.sync()
    assert report.held == {"c": "200 of 300 members would change (67%, max_change is 50%)"}
    assert report.requests == 0
    assert world.sync(allow={"buyers": "sale is over"}).connections["c"].sent == {"exited": 200}
    what, subject, outcome, reason = world.audit()[-2]
    assert (what, subject, outcome) == ("allow", "c", "allowed")
    assert reason is not None and reason.startswith("test: sale is over")


def test_small_or_first_changes_pass(world: World) -> None:
    fill(world, 300)
    assert not world.sync().held
    world.members["buyers"] = {f"p{n:04}" for n in range(201)}  # 99 leave
    assert not world.sync(buyers(max_change=0.1)).held


def test_empty_audience_is_held(world: World) -> None:
    fill(world, 3)
    world.sync()
    world.members["buyers"] = set()
    assert world.sync().held == {"c": "became empty (it had 3 members)"}
    assert ("sync", "c", "held", "became empty (it had 3 members)") in world.audit()


def test_new_identifiers_are_no_change_of_the_audience(world: World) -> None:
    fill(world, 150)
    world.sync()
    for n in range(150):
        world.person(f"p{n:04}", email=f"{n}@x")
    assert world.sync().connections["c"].sent == {"new_identifier": 150}


def test_dry_run_moves_nothing(world: World) -> None:
    world.tool.abilities = Abilities(kind="event", matches_on=("user_id",), requests_per_second=2)
    fill(world, 30)
    report = world.sync(dry_run=True)
    assert (report.requests, report.seconds, len(report.examples)) == (60, 30.0, 20)
    assert (world.tool.calls, world.ledger(), world.audit()) == ([], [], [])
    world.tool.abilities = Tool().abilities
    assert world.sync().connections["c"].sent == {"backfill": 30}


def test_second_sync_at_once_is_busy(world: World) -> None:
    fill(world, 3)
    with world.state.lease("destination:tool", owner="other", holder="the other sync"):
        with pytest.raises(Busy, match="destination:tool is held by the other sync"):
            world.sync()
    assert world.sync().counts["confirmed"] == 3


def test_connection_of_another_destination(world: World) -> None:
    with pytest.raises(PersonasError, match="belongs to destination braze"):
        world.sync(buyers(destination="braze"))


def test_a_killed_attempt_is_in_the_audit_trail(world: World) -> None:
    fill(world, 3)
    Outbox(world.state, world.lake, "tool", lambda: NOW).start(1, attempt=2)  # and no more
    world.sync(attempt=3)
    rows = world.state.rows(audit.select().order_by(audit.c.audit_id))
    assert [(row["outcome"], row["attempt"]) for row in rows] == [("killed", 2), ("finished", 3)]
    assert rows[0]["reason"].startswith("the sync that began at 2026-11-22 12:00:00 UTC never")
    assert rows[1]["counts"]["reasons"] == {"backfill": 3}


def test_audit_trail(world: World) -> None:
    fill(world, 3)
    world.sync(now=lambda: NOW)
    assert world.audit() == [("sync", "tool", "finished", None)]
