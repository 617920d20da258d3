"""Memberships: who enters, who exits, and what a merge does to them."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.place import NOW, Place
from tests.traits.people import DAY, START, People

BUYERS = {"audiences/buyers": "event('Order').within(30 days).count() >= 1"}


@pytest.fixture
def people(place: Place) -> People:
    place.define(BUYERS)
    return People(place)


def entered_at(people: People, audience: str = "buyers") -> list[dt.datetime]:
    with people.place.space.session() as session:
        rows = session.fetch("SELECT entered_at FROM members WHERE audience = $1", [audience])
    return [row["entered_at"] for row in rows.to_pylist()]


def state(people: People, key: str = "buyers") -> str | None:
    """The membership as queries see it: true, false or absent."""
    from personas_dagster.traits.world import prepare_world

    with people.place.space.session() as session:
        prepare_world(session)
        rows = session.fetch(
            "SELECT t.value FROM traits t JOIN graph_identifiers i USING (profile_id) "
            "WHERE i.type = 'user_id' AND i.value = 'u1' AND t.key = $1",
            [key],
        ).to_pylist()
    return rows[0]["value"] if rows else None


def test_enter_and_exit(people: People) -> None:
    people.track("Order")
    people.track("Other", user="u2")
    people.refresh(START - DAY)
    assert (people.members("buyers"), state(people)) == ([], None)
    people.refresh(START + DAY)
    assert (people.members("buyers"), state(people)) == (["u1"], "true")
    people.refresh(START + 29 * DAY)
    people.refresh(START + 31 * DAY)
    assert (people.members("buyers"), state(people)) == ([], "false")
    assert people.changes("buyers") == [
        ("entered", START + DAY),
        ("exited", START + 31 * DAY),
    ]


def test_entered_at_is_kept(people: People) -> None:
    people.track("Order")
    people.refresh(START + DAY)
    people.track("Order", at=5)
    people.refresh(START + 2 * DAY)
    assert entered_at(people) == [START + DAY]


def test_coming_back(people: People) -> None:
    people.track("Order")
    people.refresh(START + DAY)
    people.refresh(START + 40 * DAY)
    people.track("Order", at=41 * 24 * 60)
    people.refresh(START + 42 * DAY)
    assert entered_at(people) == [START + 42 * DAY]
    assert [change for change, _ in people.changes("buyers")] == ["entered", "exited", "entered"]
    assert state(people) == "true"


def test_merge_moves_a_membership(people: People, place: Place) -> None:
    """The person stays: no exit of the child and no entry of the parent."""
    place.define({"audiences/buyers": "query: event('Order').count() >= 1\n"
                                      "include_anonymous: true\n"})  # fmt: skip
    people.track("Other")  # the profile that will be the parent, never in
    people.track("Order", user=None, anonymousId="a1")
    people.refresh(START + 2 * DAY)
    assert people.members("buyers") == [] and len(entered_at(people)) == 1
    people.say("track", event="Login", anonymousId="a1")
    people.refresh(START + 3 * DAY)
    assert people.members("buyers") == ["u1"]
    assert entered_at(people) == [START + 2 * DAY]
    assert people.changes("buyers") == [("entered", START + 2 * DAY)]


def test_merge_of_two_members(people: People, place: Place) -> None:
    place.define({"audiences/buyers": "query: event('Order').count() >= 1\n"
                                      "include_anonymous: true\n"})  # fmt: skip
    people.track("Order", user=None, anonymousId="a1")
    people.refresh(START + 2 * DAY)
    people.track("Order")
    people.refresh(START + 3 * DAY)
    assert len(entered_at(people)) == 2
    people.say("track", event="Login", anonymousId="a1")
    people.refresh(START + 4 * DAY)
    assert entered_at(people) == [START + 2 * DAY]  # the earlier of the two
    assert len(people.changes("buyers")) == 2


def test_anonymous_only_if_asked_for(people: People, place: Place) -> None:
    place.define({"audiences/all": "query: event('Order').count() >= 1\ninclude_anonymous: true\n"})
    people.track("Order", user=None, anonymousId="a1")
    people.refresh()
    assert (len(entered_at(people)), len(entered_at(people, "all"))) == (0, 1)


def test_reference_in_the_same_refresh(people: People, place: Place) -> None:
    place.define({
        "audiences/lapsed": "trait('buyers') = false",
        "audiences/again": "trait('lapsed') = true AND trait('orders') >= 1",
        "computed_traits/orders": "event('Order').count()",
    })  # fmt: skip
    people.track("Order")
    people.refresh(START + DAY)
    assert (people.members("lapsed"), people.members("again")) == ([], [])
    people.refresh(START + 31 * DAY)
    assert (people.members("lapsed"), people.members("again")) == (["u1"], ["u1"])


def test_deleted_audience_stays_as_it_was(people: People, place: Place) -> None:
    people.track("Order")
    people.refresh(START + DAY)
    (place.root / "assets/audiences/buyers.yaml").unlink()
    people.refresh(NOW)
    assert people.changes("buyers") == [("entered", START + DAY)]
    assert state(people) == "true"
    place.define(BUYERS)
    people.refresh(NOW)
    assert people.members("buyers") == []


def test_nobody_moves(people: People, place: Place) -> None:
    people.track("Order")
    people.refresh(START + DAY)
    before = place.space.lake.versions()
    people.refresh(START + DAY)
    after = place.space.lake.versions()
    assert after["audience_changes"] == before["audience_changes"]
    assert after["audience_memberships"] == before["audience_memberships"]


def test_changed_query(people: People, place: Place) -> None:
    people.track("Order")
    people.refresh(START + DAY)
    place.define({"audiences/buyers": "event('Order').count() >= 2"})
    people.refresh(START + 2 * DAY)
    assert people.members("buyers") == []
    assert people.changes("buyers")[-1] == ("exited", START + 2 * DAY)
