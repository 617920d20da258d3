"""Custom traits: what messages say about a person, the newest value first."""

from __future__ import annotations

from typing import Any

from personas_dagster.lake import TABLES
from tests.place import NOW, Place
from tests.traits.people import DAY, MINUTE, START, People


def test_newest_wins(people: People) -> None:
    people.say(traits={"plan": "new", "city": "Rome"}, at=5)
    people.say(traits={"plan": "old"}, at=1)  # came later, happened before
    people.refresh()
    assert people.values() == {"plan": "new", "city": "Rome"}


def test_tie_by_arrival(people: People) -> None:
    people.say(traits={"plan": "first"}, at=1)
    people.say(traits={"plan": "second"}, at=1)
    people.refresh()
    assert people.values() == {"plan": "second"}


def test_tie_by_message_id(people: People) -> None:
    same = {"receivedAt": (START + DAY).isoformat()}
    people.say(traits={"plan": "b"}, at=1, **same, messageId="b")
    people.say(traits={"plan": "a"}, at=1, **same, messageId="a")
    people.refresh()
    assert people.values() == {"plan": "b"}


def test_null_removes(people: People) -> None:
    people.say(traits={"plan": "pro", "city": "Rome"})
    people.refresh(NOW)
    people.say(traits={"plan": None}, at=1)
    people.refresh(NOW)
    assert people.values() == {"city": "Rome"}
    people.say(traits={"plan": "free"}, at=2)
    people.refresh(NOW)
    assert people.values() == {"plan": "free", "city": "Rome"}


def test_types_are_kept(people: People) -> None:
    values: dict[str, Any] = {
        "number": 1.5,
        "whole": 9007199254740993,
        "text": "15",
        "empty": "",
        "yes": True,
        "no": False,
        "list": [1, "a", None],
        "object": {"a": {"b": 1}},
        "instant": "2026-01-01T00:00:00Z",
        "null text": "null",
        "quote": 'a "b" \\ é 𝒳',
        "dotted.key": 1,
    }
    people.say(traits=values)
    people.refresh()
    assert people.values() == values


def test_context_traits_of_any_message(people: People) -> None:
    people.track("Order", at=1, context={"traits": {"plan": "pro"}})
    people.say("page", at=2, name="Home", context={"traits": {"city": "Rome"}})
    people.refresh()
    assert people.values() == {"plan": "pro", "city": "Rome"}


def test_own_traits_before_context(people: People) -> None:
    people.say(traits={"plan": "own"}, context={"traits": {"plan": "context", "city": "Rome"}})
    people.refresh()
    assert people.values() == {"plan": "own", "city": "Rome"}


def test_track_has_no_traits_of_its_own(people: People) -> None:
    people.track("Order", traits={"plan": "pro"}, properties={"plan": "pro"})
    people.refresh()
    assert people.values() == {}


def test_accounts(people: People) -> None:
    people.say("group", groupId="acme", traits={"plan": "business", "email": "x@acme.example"})
    people.refresh()
    assert people.values(of="group_id:acme") == {"plan": "business", "email": "x@acme.example"}
    assert people.values() == {}


def test_promoted_property(people: People, place: Place) -> None:
    path = "resources/spaces/main.yaml"
    place.write(path, (place.root / path).read_text() + "promote:\n"
                "  - {event: Order, property: shop.city, as: last_city}\n"
                "  - {event: Order, property: total, as: total}\n")  # fmt: skip
    people.track("Order", at=1, properties={"shop": {"city": "Rome"}, "total": 5})
    people.track("Order", at=2, properties={"total": 7})
    people.track("Other", at=3, properties={"total": 9})
    people.refresh()
    assert people.values() == {"last_city": "Rome", "total": 7}


def test_only_up_to_as_of(people: People) -> None:
    people.say(traits={"plan": "first"}, at=0)
    people.say(traits={"plan": "second"}, at=10)
    people.refresh(START + 5 * MINUTE)
    assert people.values() == {"plan": "first"}
    people.refresh(START + 10 * MINUTE)
    assert people.values() == {"plan": "second"}


def test_merged_profiles(people: People) -> None:
    people.say(user=None, anonymousId="a1", traits={"plan": "new", "theme": "dark"}, at=9)
    people.say(traits={"plan": "old", "city": "Rome"}, at=1)
    people.refresh()
    assert people.values() == {"plan": "old", "city": "Rome"}
    people.say("track", event="Login", anonymousId="a1")
    people.refresh()
    assert people.values() == {"plan": "new", "theme": "dark", "city": "Rome"}
    assert people.values(of="anonymous_id:a1") == people.values()


def test_nothing_new_writes_nothing(people: People, place: Place) -> None:
    people.say(traits={"plan": "pro"})
    people.refresh()
    before = place.space.lake.version("custom_traits")
    people.say(traits={"plan": "pro"}, at=5)
    people.refresh()
    assert place.space.lake.version("custom_traits") == before


def test_source_and_time(people: People, place: Place) -> None:
    people.say(traits={"plan": "pro"}, at=3)
    people.refresh()
    with place.space.session() as session:
        (row,) = session.fetch("SELECT updated_at, source_id FROM trait_values").to_pylist()
    assert row == {"updated_at": START + 3 * MINUTE, "source_id": "files"}
    assert "updated_at" in TABLES["custom_traits"].schema.names
