"""Computed traits through refreshes: values, what counts as a change, what stays."""

from __future__ import annotations

from personas_dagster import refresh
from personas_dagster.state.schema import refreshes
from tests.place import NOW, Place
from tests.traits.people import DAY, START, People

COUNT = "event('Order').count()"
SUM = "event('Order').sum(property('total'))"


def test_kinds_of_values(people: People, place: Place) -> None:
    place.define(
        {
            "computed_traits/orders": COUNT,
            "computed_traits/spent": SUM,
            "computed_traits/last": "event('Order').last(property('coupon'))",
            "computed_traits/coupons": "event('Order').unique(property('coupon'))",
            "computed_traits/gift": "event('Order').last(property('gift'))",
        }
    )
    people.track("Order", at=1, properties={"total": 1.1, "coupon": "A", "gift": True})
    people.track("Order", at=2, properties={"total": 2.2, "coupon": "B"})
    people.refresh()
    assert people.values("computed_trait") == {
        "orders": 2,
        "spent": 3.3,
        "last": "B",
        "coupons": ["A", "B"],
        "gift": True,
    }


def test_zero_and_absent(people: People, place: Place) -> None:
    """A count is 0 once there was an event; other reducers are absent when nothing is left."""
    place.define({
        "computed_traits/orders": "event('Order').within(30 days).count()",
        "computed_traits/spent": "event('Order').within(30 days).sum(property('total'))",
    })  # fmt: skip
    people.track("Order", properties={"total": 5})
    people.track("Other", user="u2")
    people.refresh(START + 20 * DAY)
    assert people.values("computed_trait") == {"orders": 1, "spent": 5}
    people.refresh(NOW)
    assert people.values("computed_trait") == {"orders": 0}
    assert people.values("computed_trait", of="user_id:u2") == {}


def test_accounts(people: People, place: Place) -> None:
    place.define({"computed_traits/spent": f"collection: accounts\nquery: {SUM}\n"})
    for user, total in (("u1", 5), ("u2", 7)):
        people.say("group", user, groupId="acme")
        people.track("Order", user, properties={"total": total})
    people.refresh()
    assert people.values("computed_trait", of="group_id:acme") == {"spent": 12}
    assert people.values("computed_trait") == {}


def test_merge_adds_up(people: People, place: Place) -> None:
    place.define({"computed_traits/orders": COUNT})
    people.track("Order", user=None, anonymousId="a1")
    people.track("Order")
    people.refresh()
    people.say("track", event="Login", anonymousId="a1")
    people.refresh()
    assert people.values("computed_trait") == {"orders": 2}


def test_definition_that_is_gone(people: People, place: Place) -> None:
    """Its last values stay, as custom traits; what messages say goes before them."""
    place.define({"computed_traits/orders": COUNT, "computed_traits/spent": SUM})
    people.track("Order", properties={"total": 5})
    people.say(traits={"spent": "said"})
    people.refresh()
    for key in ("orders", "spent"):
        (place.root / f"assets/computed_traits/{key}.yaml").unlink()
    people.track("Order", properties={"total": 5})
    people.refresh()
    assert people.values() == {"orders": 1, "spent": "said"}
    assert people.values("computed_trait") == {}


def test_only_changes_are_written(people: People, place: Place) -> None:
    place.define({"computed_traits/orders": COUNT})
    people.track("Order")
    people.track("Order", user="u2")
    people.refresh()
    people.track("Order", user="u2")
    people.refresh()
    space = place.space
    with space.engine.session(space.lake) as session:
        session.view("computed_traits")
        rows = session.fetch("SELECT value, refresh_id FROM computed_traits ORDER BY ALL")
    assert [(row["value"], row["refresh_id"]) for row in rows.to_pylist()] == [
        ("1", 1),
        ("1", 1),
        ("2", 2),
    ]


def test_without_history(people: People, place: Place) -> None:
    """Only what was received after the definition was created counts."""
    place.define({
        "computed_traits/since": f"query: {COUNT}\ninclude_historical: false\n",
        "computed_traits/ever": COUNT,
        "audiences/since_then": f"query: {COUNT} >= 1\ninclude_historical: false\n",
    })  # fmt: skip
    people.track("Order")
    people.refresh(NOW)
    assert people.values("computed_trait") == {"ever": 1}
    late = (NOW + DAY).isoformat()
    people.track("Order", receivedAt=late)
    people.refresh(NOW + 2 * DAY)
    assert people.values("computed_trait") == {"since": 1, "ever": 2}
    assert people.members("since_then") == ["u1"]


def test_unfinished_refresh_is_discarded(people: People, place: Place) -> None:
    """What a refresh wrote that was never finished: unseen, then taken back."""
    place.define({"computed_traits/orders": COUNT, "audiences/buyers": f"{COUNT} >= 1"})
    people.track("Order")
    people.refresh(NOW)
    path = place.messages(
        {"type": "track", "event": "Order", "userId": "u2", "receivedAt": NOW.isoformat()}
    )
    space = place.space
    this = refresh.begin(space, run_id="dies", now=NOW, as_of=NOW + DAY)
    place.take(path, space=space)
    refresh.custom_traits(space, this)
    refresh.compute_definitions(space, this)
    assert people.members("buyers") == ["u1"]  # readers see the last that finished
    people.refresh(NOW + 2 * DAY)
    assert people.members("buyers") == ["u1", "u2"]
    assert people.changes("buyers") == [("entered", NOW), ("entered", NOW + 2 * DAY)]
    status = [row["status"] for row in space.state.rows(refreshes.select())]
    assert status == ["finished", "discarded", "finished"]


def test_discarded_refresh_is_not_published(people: People, place: Place) -> None:
    """One that lost its lease while it worked must not come back from the dead."""
    space = place.space
    slow = refresh.begin(space, run_id="slow", now=NOW)
    people.refresh()
    try:
        refresh.finish(space, slow, now=NOW)
    except refresh.Busy as error:
        assert "nothing of it was published" in str(error)
    else:
        raise AssertionError("it was published")
