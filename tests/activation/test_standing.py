"""Who is passed over because nothing moved, and who must not be."""

import pytest
from test_delivery import first, refuse
from world import ABILITIES, Tool, World, buyers, spend

from personas_dagster.activation import sync as engine
from personas_dagster.activation.connection import Connection
from personas_dagster.activation.destination import Abilities
from personas_dagster.activation.difference import Difference
from personas_dagster.errors import Unavailable

QUIET = buyers(forms=("identify",))


def touched(
    world: World, connection: Connection = QUIET, abilities: Abilities = ABILITIES
) -> list[str]:
    """Profiles that a sync would look at."""
    with world.engine.session(world.lake) as session:
        world.prepare(session)
        session.view("ledger")
        Difference(session, [connection], abilities, first=frozenset())
        found = session.fetch("SELECT profile_id FROM sync_touched ORDER BY profile_id")
    return list(found.column("profile_id").to_pylist())


@pytest.fixture
def three(world: World) -> World:
    for n in ("1", "2", "3"):
        world.person(f"p{n}", user_id=f"u{n}", email=f"{n}@x")
    world.members["buyers"] = {"p1", "p2", "p3"}
    world.sync(QUIET)
    return world


def test_nobody_after_a_sync(three: World) -> None:
    assert touched(three) == []


def test_those_who_came_went_or_have_a_new_identifier(three: World) -> None:
    three.person("p4", user_id="u4")
    three.person("p1", email="more@x")
    three.members["buyers"] = {"p1", "p3", "p4"}
    assert touched(three) == ["p1", "p2", "p4"]


def test_a_changed_value(world: World) -> None:
    world.person("p1", user_id="u1")
    world.person("p2", user_id="u2")
    world.traits["computed_trait", "spend"] = {"p1": 1, "p2": 1}
    world.sync(spend())
    world.traits["computed_trait", "spend"] = {"p1": 1, "p2": 2}
    assert touched(world, spend()) == ["p2"]
    world.sync(spend())
    world.traits["computed_trait", "spend"] = {"p1": 1, "p2": 1}  # back to what it was
    assert touched(world, spend()) == ["p2"]


def test_those_who_ended(three: World) -> None:
    three.members["buyers"] = {"p3"}
    three.sync(QUIET, allow={"c": "a test"})
    assert touched(three) == []
    three.members["buyers"] = {"p1", "p3"}
    assert touched(three) == ["p1"]


def test_all_when_the_choice_of_email_changes(three: World) -> None:
    assert touched(three, buyers(email="first")) == ["p1", "p2", "p3"]


def test_all_when_the_tool_knows_people_by_more(three: World) -> None:
    more = Abilities(kind="event", matches_on=("user_id", "email", "phone"))
    assert touched(three, QUIET, more) == ["p1", "p2", "p3"]


def test_rows_that_did_not_end_well(world: World) -> None:
    for n in ("1", "2"):
        world.person(f"p{n}", user_id=f"u{n}")
    world.members["buyers"] = {"p1", "p2"}
    tool = Tool()
    tool.faults = refuse("u1", error=Unavailable("busy"))
    world.sync(QUIET, tool=tool)
    assert touched(world) == ["p1"]


def test_one_row_kept_quiet_does_not_hide_one_that_failed(world: World) -> None:
    """p1 is told under u1; the e-mail that is kept quiet arrives with a user id that is not."""
    world.person("p1", user_id="u1")
    world.members["buyers"] = {"p1"}
    world.sync(buyers(resend_new_identifiers=False))
    world.person("p1", email="a@x")
    world.sync(buyers(resend_new_identifiers=False))
    world.tool.faults = first(99, Unavailable("down"))
    world.members["buyers"] = set()
    world.sync(buyers(resend_new_identifiers=False), allow={"c": "a test"})
    assert touched(world, buyers()) == ["p1"]
    world.tool.faults = refuse()
    world.tool.taken.clear()
    world.sync(buyers(resend_new_identifiers=False), allow={"c": "a test"})
    assert world.tool.told == [("u1", False)]


def test_moved_with_nothing_due_is_noted_once(
    three: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    three.person("p1", ios__idfa="device")  # the tool knows p1 by a user id
    assert three.sync(QUIET).requests == 0
    assert touched(three) == ["p1"]
    monkeypatch.setattr(engine, "NOTE_FROM", 1)
    assert three.sync(QUIET).requests == 0
    assert touched(three) == []
    assert [row for row in three.ledger("profile_id", "outcome", "recipient")][-1] == (
        "p1", "noted", None,
    )  # fmt: skip
    three.members["buyers"] = {"p2", "p3"}
    three.sync(QUIET)
    assert [m.value for m in three.tool.taken if m.recipient["user_id"] == "u1"] == [True, False]


def test_recipient_that_another_took_over_ends_when_both_have_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "NOTE_FROM", 1)
    for n in ("1", "2"):
        world.person(f"p{n}", user_id=f"u{n}")
    world.person("p1", user_id="shared")
    world.members["buyers"] = {"p1", "p2"}
    world.sync(QUIET)
    world.people["p1"]["user_id"].remove("shared")
    world.people["p2"]["user_id"].append("shared")
    world.sync(QUIET)
    world.members["buyers"] = {"p2"}
    world.tool.taken.clear()
    world.sync(QUIET)
    assert world.tool.told == [("u1", False)]
    world.members["buyers"] = set()
    world.sync(QUIET, allow={"c": "a test"})
    assert world.tool.told == [("shared", False), ("u2", False)]
    world.sync(QUIET, allow={"c": "a test"})
    assert touched(world) == []


def test_the_ledger_stays_few_files(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_MOST_FILES", 4)
    world.person("p1", user_id="u1")
    for n in range(12):
        world.traits["computed_trait", "spend"] = {"p1": n}
        assert world.sync(spend()).confirmed == 1
        assert len(world.lake.files("ledger")) <= 4
    assert [row for (row,) in world.ledger("value")] == [str(n) for n in range(12)]
    assert world.sync(spend()).requests == 0
