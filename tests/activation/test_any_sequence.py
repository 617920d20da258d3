"""Whatever the order of desired states and faults, the tool ends with what is desired."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from world import Tool, World, buyers, spend

from personas_dagster.activation import sync as engine
from personas_dagster.activation.connection import Connection
from personas_dagster.activation.destination import DELIVERED, Abilities, Message, Outcome
from personas_dagster.activation.difference import Difference
from personas_dagster.errors import Throttled, Unavailable
from tests.examples import examples

ABILITIES = Abilities(kind="event", matches_on=("user_id", "email"), batch_size=3, concurrency=2)
PEOPLE = [f"p{n}" for n in range(6)]
FAULTS = (None, Unavailable("500"), Throttled("429"), "taken, and no answer", "every other row")
ONCE = ("identify",)

state = st.fixed_dictionaries(
    {
        "members": st.sets(st.sampled_from(PEOPLE)),
        "spend": st.dictionaries(st.sampled_from(PEOPLE), st.integers(0, 2)),
        "emails": st.lists(st.sampled_from(PEOPLE), max_size=2),
        "merge": st.none() | st.tuples(st.sampled_from(PEOPLE), st.sampled_from(PEOPLE)),
        "faults": st.lists(st.sampled_from(FAULTS), max_size=12),
    }
)


class Faulty(Tool):
    """Meets one fault per call, as listed; then none."""

    def __init__(self, faults: Sequence[object]) -> None:
        super().__init__(ABILITIES)
        self.left = list(faults)
        self.faults = self.fault

    def fault(self, batch: Sequence[Message]) -> Sequence[Outcome] | None:
        fault = self.left.pop(0) if self.left else None
        if isinstance(fault, Exception):
            raise fault
        if fault == "taken, and no answer":
            self.taken += batch
            raise Unavailable("timeout")
        if fault == "every other row":
            later = Outcome(Unavailable("busy"))
            return [later if n % 2 else DELIVERED for n in range(len(batch))]
        return None


def advance(world: World, wanted: dict) -> None:  # type: ignore[type-arg]
    child, parent = wanted["merge"] or (None, None)
    if child in world.people and parent in world.people and child != parent:
        world.people[child].pop("user_id", None)
        world.merge(child, parent)
    for person in wanted["emails"]:
        if person in world.people:
            world.person(person, email=f"{len(world.seen)}@x")
    world.members["buyers"] = wanted["members"] & world.people.keys()
    world.traits["computed_trait", "spend"] = {
        p: v for p, v in wanted["spend"].items() if p in world.people
    }


@settings(
    max_examples=examples(6),
    suppress_health_check=[HealthCheck.too_slow],
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
)
@given(steps=st.lists(state, min_size=1, max_size=4), note_from=st.sampled_from((1, 1_000)))
def test_the_tool_ends_with_what_is_desired(
    steps: list[dict],  # type: ignore[type-arg]
    note_from: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "NOTE_FROM", note_from)
        deliver_all(steps)


def deliver_all(steps: list[dict]) -> None:  # type: ignore[type-arg]
    told: dict[tuple[str, str], object] = {}
    connections = [buyers(forms=ONCE), spend(forms=ONCE)]
    allow = {"c": "a test"}
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        for n, person in enumerate(PEOPLE):
            world.person(person, user_id=f"u{n}")
        for wanted in steps:
            advance(world, wanted)
            for tool in (Faulty(wanted["faults"]), Faulty([]), Faulty([])):
                world.sync(*connections, tool=tool, allow=allow)
                for message in tool.taken:
                    for identifier in message.recipient.values():
                        told[identifier, message.key] = message.value
            assert not tool.calls  # the third finds nothing to do
            assert not (engine.NOTE_FROM == 1 and told_before_and_moved(world, connections))
            check(world, told)
        world.state.close()


def told_before_and_moved(world: World, connections: list[Connection]) -> set[str]:
    """Members that would be looked at again although they were told, and nothing is due."""
    with world.engine.session(world.lake) as session:
        world.prepare(session)
        session.view("ledger")
        Difference(session, connections, ABILITIES, first=frozenset())
        query = """
        SELECT DISTINCT t.profile_id FROM sync_touched t
        JOIN ledger l ON l.connection = t.connection AND l.profile_id = t.profile_id
        SEMI JOIN graph_profiles p ON p.profile_id = t.profile_id
        """
        return set(session.fetch(query).column("profile_id").to_pylist())


def check(world: World, told: dict[tuple[str, str], object]) -> None:
    """Each identifier that may be told of was told what holds for its owner, and no other."""
    members, values = world.members["buyers"], world.traits["computed_trait", "spend"]
    for person, ids in world.people.items():
        for identifier in [one for some in ids.values() for one in some]:
            in_audience = told.get((identifier, "buyers"), "never")
            assert in_audience in ([True] if person in members else [False, "never"]), identifier
            spent = told.get((identifier, "spend"), "never")
            assert spent in ([values[person]] if person in values else [None, "never"]), identifier
