"""Merged profiles whose custom traits differ: the newest value, or as the space's policy says."""

from __future__ import annotations

from typing import Any

import pytest

from personas_dagster.errors import DefinitionError
from tests.place import Place
from tests.traits.people import People

POLICIES = "conflicts: {{plan: {0}, city: {0}}}\n"


def device(people: People, anonymous_id: str, at: int, /, **traits: Any) -> None:
    people.say(user=None, anonymousId=anonymous_id, traits=traits, at=at)


def join(people: People, name: str) -> None:
    """The parent is the profile that was there first: that of the user."""
    people.track("Login", anonymousId=name)


@pytest.fixture
def merged(people: People, place: Place) -> Any:
    """The user said `mine` at minute `own`, a device `theirs` at minute `other`; then joined."""

    def make(policy: str, *, own: int, other: int) -> dict[str, Any]:
        place.write("assets/identity.yaml", POLICIES.format(policy))
        people.say(traits={"plan": "mine", "name": "Ann"}, at=own)
        device(people, "d1", other, plan="theirs", city="Rome", name="Bob")
        join(people, "d1")
        people.refresh()
        return people.values()

    return make


@pytest.mark.parametrize(
    ("policy", "own", "other", "plan"),
    [
        ("newest", 1, 2, "theirs"),
        ("newest", 2, 1, "mine"),
        ("oldest", 1, 2, "mine"),
        ("oldest", 2, 1, "theirs"),
        ("parent", 1, 2, "mine"),
        ("parent", 2, 1, "mine"),
    ],
)
def test_a_policy_for_a_key(merged: Any, policy: str, own: int, other: int, plan: str) -> None:
    found = merged(policy, own=own, other=other)
    assert found["plan"] == plan
    # What only one of them has is kept; a key without a policy has the newest.
    assert found["city"] == "Rome" and found["name"] == ("Bob" if other > own else "Ann")


@pytest.mark.parametrize("policy", ["newest", "oldest", "parent"])
def test_alone_the_newest_value_holds(people: People, place: Place, policy: str) -> None:
    place.write("assets/identity.yaml", POLICIES.format(policy))
    people.say(traits={"plan": "first"}, at=1)
    people.say(traits={"plan": "second"}, at=2)
    people.refresh()
    assert people.values() == {"plan": "second"}


@pytest.mark.parametrize("policy", ["oldest", "parent"])
@pytest.mark.parametrize("by", ["user", "device"])
def test_what_is_said_after_the_merge_is_news(
    people: People, merged: Any, policy: str, by: str
) -> None:
    merged(policy, own=1, other=2)
    if by == "user":
        people.say(traits={"plan": "later"}, at=5)
    else:
        device(people, "d1", 5, plan="later")
    people.refresh()
    assert people.values()["plan"] == "later"


def test_a_second_merge_is_settled_against_what_held_then(people: People, merged: Any) -> None:
    assert merged("oldest", own=2, other=3)["plan"] == "mine"
    people.say(traits={"plan": "news"}, at=5)
    device(people, "d2", 4, plan="second device")
    people.refresh()
    assert people.values()["plan"] == "news"
    join(people, "d2")
    people.refresh()
    assert people.values()["plan"] == "second device"


def test_a_chain_of_merges(people: People, place: Place) -> None:
    """d2 came under d1 first, then both under the user."""
    place.write("assets/identity.yaml", "conflicts: {plan: parent, city: oldest}\n")
    people.say(traits={"plan": "mine"}, at=9)
    device(people, "d1", 5, plan="one", city="Rome")
    device(people, "d2", 3, plan="two", city="Oslo")
    people.say(user=None, anonymousId="d1", traits={"email": "e@x.com"})
    people.say(user=None, anonymousId="d2", traits={"email": "e@x.com"})
    join(people, "d2")
    people.refresh()
    found = people.values()
    assert (found["plan"], found["city"]) == ("mine", "Oslo")


def test_a_policy_that_is_none(place: Place) -> None:
    place.write("assets/identity.yaml", "conflicts: {plan: loudest}\n")
    with pytest.raises(DefinitionError, match=r"identity\.yaml:1:.*`loudest`"):
        place.space  # noqa: B018
