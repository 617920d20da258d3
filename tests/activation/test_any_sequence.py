"""Whatever the order of desired states and faults, the tool ends with what is desired."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world import Tool, World, buyers, spend

from personas_dagster.activation.destination import DELIVERED, Abilities, Message, Outcome
from personas_dagster.errors import Throttled, Unavailable

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
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
@given(st.lists(state, min_size=1, max_size=5))
def test_the_tool_ends_with_what_is_desired(steps: list[dict]) -> None:  # type: ignore[type-arg]
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
                    who = "+".join(message.recipient.values())
                    told[who, message.key] = message.value
            assert not tool.calls  # the third finds nothing to do
            check(world, told)
        world.state.close()


def check(world: World, told: dict[tuple[str, str], object]) -> None:
    """Everyone who is in was told so under each pair; nobody else is believed to be in."""
    owner = {
        value: person
        for person, ids in world.people.items()
        for values in ids.values()
        for value in values
    }
    for (who, key), value in told.items():
        parts = [owner[part] for part in who.split("+") if part in owner]
        if key == "buyers" and parts:
            assert value is (parts[0] in world.members["buyers"]), (who, value)
    for person in world.members["buyers"]:
        ids = world.people[person]
        for email in ids.get("email", []):
            pairs = [f"{u}+{email}" for u in ids.get("user_id", [])] or [email]
            assert all(told[pair, "buyers"] is True for pair in pairs)
        for user in ids.get("user_id", []) if not ids.get("email") else []:
            assert told[user, "buyers"] is True
    for person, value in world.traits["computed_trait", "spend"].items():
        ids = world.people[person]
        users = ids.get("user_id", [])
        pairs = [f"{u}+{e}" for u in users for e in ids.get("email", [])] or users
        assert all(told[pair, "spend"] == value for pair in pairs)
