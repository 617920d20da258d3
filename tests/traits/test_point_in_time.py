"""Questions about the past: everything that a query reads is as it was then."""

from __future__ import annotations

import datetime as dt

import pytest

from personas_dagster import asking
from personas_dagster.digests import digests
from tests.place import NOW, Place
from tests.traits.people import DAY, START, People


@pytest.fixture
def people(place: Place) -> People:
    place.define({
        "computed_traits/orders": "event('Order').count()",
        "audiences/regulars": "trait('orders') >= 2",
        "audiences/lapsed": "trait('regulars') = true AND NOT event('Order').within(5 days)"
                            ".count() >= 1",
    })  # fmt: skip
    one = People(place)
    one.say(traits={"plan": "free"})
    one.track("Order", at=1)
    one.track("Order", at=10 * 24 * 60)
    one.say(traits={"plan": "pro"}, at=20 * 24 * 60)
    one.refresh(NOW)
    return one


def count(people: People, query: str, as_of: dt.datetime) -> int:
    space = people.place.space
    asked = asking.ask([query])
    with asking.answers(space, asked, as_of=as_of) as session:
        (row,) = asking.counts(session, asked)
        assert len(list(asking.rows(session, asked))) == row["count"]
    return int(row["count"])


@pytest.mark.parametrize(
    ("query", "day", "wanted"),
    [
        ("trait('plan') = 'free'", 5, 1),
        ("trait('plan') = 'pro'", 5, 0),
        ("trait('plan') = 'pro'", 25, 1),
        ("trait('plan') = 'pro'", 60, 1),
        ("trait('orders') = 1", 5, 1),
        ("trait('orders') = 2", 5, 0),
        ("trait('orders') = 2", 60, 1),
        ("trait('regulars') = true", 5, 0),
        ("trait('regulars') = true", 11, 1),
        ("trait('lapsed') = true", 11, 0),
        ("trait('lapsed') = true", 25, 1),
    ],
)
def test_as_it_was(people: People, query: str, day: int, wanted: int) -> None:
    assert count(people, query, START + day * DAY) == wanted


def test_nothing_is_written(people: People) -> None:
    before = digests(people.place.space), people.place.space.lake.versions()
    count(people, "trait('regulars') = true", START + DAY)
    assert (digests(people.place.space), people.place.space.lake.versions()) == before
