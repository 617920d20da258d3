"""Merges that a tool is told of."""

import pytest
from world import NOW, World, buyers

from personas_dagster.activation.destination import Abilities
from personas_dagster.errors import PersonasError, Unavailable
from personas_dagster.lake.tables import TABLES

KNOWS = Abilities(
    kind="event",
    matches_on=("user_id", "email"),
    forms=("identify", "alias"),
    knows_alias=True,
    batch_size=10,
)
SCHEMA = TABLES["identifiers"].schema


@pytest.fixture
def pair(world: World) -> World:
    """p1 stays, a member and known to the tool; p2 will be merged into it."""
    world.tool.abilities = KNOWS
    join(world, "p1", user_id="u1")
    world.members["buyers"] = {"p1"}
    return world


def join(world: World, profile: str, **ids: str) -> None:
    """A person whose identifiers are in the lake too, as they were first attached."""
    world.person(profile, **ids)
    rows = [
        {"collection": "users", "type": kind, "value": value, "profile_id": profile,
         "first_seen_at": NOW}
        for kind, value in ids.items()
    ]  # fmt: skip
    world.lake.append("identifiers", SCHEMA.empty_table().from_pylist(rows, schema=SCHEMA))


def aliases(world: World) -> list[tuple[str, str]]:
    return [(b["userId"], b["previousId"]) for b in world.tool.bodies if b["type"] == "alias"]


@pytest.mark.parametrize(
    ("child", "expected"),
    [
        ({"user_id": "u2", "anonymous_id": "anon"}, [("u1", "u2")]),
        ({"anonymous_id": "anon"}, [("u1", "anon")]),
        ({"email": "a@x"}, []),
    ],
)
def test_once_each(pair: World, child: dict[str, str], expected: list[tuple[str, str]]) -> None:
    pair.sync(buyers(alias=True))
    join(pair, "p2", **child)
    pair.merge("p2", "p1")
    pair.tool.taken.clear()
    report = pair.sync(buyers(alias=True))
    assert aliases(pair) == expected
    assert set(report.connections["c"].sent) <= {"merge"}
    assert pair.sync(buyers(alias=True)).requests == 0


def test_only_where_it_is_turned_on(pair: World) -> None:
    pair.sync()
    join(pair, "p2", anonymous_id="anon")
    pair.merge("p2", "p1")
    pair.sync()
    assert aliases(pair) == []


def test_a_tool_that_does_not_know_it(world: World) -> None:
    with pytest.raises(PersonasError, match="does not know alias"):
        world.sync(buyers(alias=True))


def test_again_when_it_failed_and_never_as_an_exit(pair: World) -> None:
    join(pair, "p3", user_id="u3")
    pair.members["buyers"].add("p3")
    pair.sync(buyers(alias=True))
    join(pair, "p2", anonymous_id="anon")
    pair.merge("p2", "p1")
    taken: list[str] = []

    def fault(batch):  # type: ignore[no-untyped-def]
        taken.extend(m.message_id for m in batch)
        raise Unavailable("down")

    pair.tool.faults = fault
    assert pair.sync(buyers(alias=True)).failed
    pair.tool.faults = lambda batch: None
    pair.tool.taken.clear()
    pair.sync(buyers(alias=True))
    assert {m.message_id for m in pair.tool.taken if m.form == "alias"} == set(taken)
    assert aliases(pair) == [("u1", "anon")]
    pair.members["buyers"] = {"p3"}
    pair.sync(buyers(alias=True))
    assert [(b["type"], b["userId"]) for b in pair.tool.bodies] == [("identify", "u1")]


def test_a_chain_of_merges(pair: World) -> None:
    join(pair, "p2", user_id="u2")
    join(pair, "p3", user_id="u3")
    pair.merge("p2", "p1")
    pair.sync(buyers(alias=True))
    assert aliases(pair) == [("u1", "u2")]
    pair.merge("p1", "p3")
    pair.merged["p2"] = "p3"
    pair.members["buyers"] = {"p3"}
    pair.sync(buyers(alias=True))
    assert aliases(pair) == [("u3", "u1")]


def test_message(pair: World) -> None:
    join(pair, "p2", anonymous_id="anon")
    pair.merge("p2", "p1")
    pair.sync(buyers(alias=True))
    (alias,) = [b for b in pair.tool.bodies if b["type"] == "alias"]
    assert alias["integrations"] == {"All": False, "tool": True}
    assert alias["context"]["personas"]["computation_key"] == "buyers"
    assert alias["messageId"].endswith("-alias")
