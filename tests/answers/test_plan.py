"""What changed definitions would do: who enters and leaves, what values change, who is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from personas_dagster import deliver
from personas_dagster.answers import planning
from personas_dagster.digests import digests
from personas_dagster.project.loader import load_project
from tests.place import NOW, Place

CONNECTION = "audience: buyers\ndestination: hook\n"


def order(user: str, number: int, revenue: float = 10) -> dict[str, Any]:
    return {"type": "track", "event": "Order", "userId": user, "messageId": f"{user}{number}",
            "timestamp": "2026-02-01T00:00:00Z", "properties": {"revenue": revenue}}  # fmt: skip


@pytest.fixture
def shop(place: Place) -> Place:
    place.define(
        {
            "audiences/buyers": "event('Order').count() >= 1",
            "audiences/loyal": "trait('buyers') = true AND event('Order').count() >= 2",
            "computed_traits/revenue": "event('Order').sum(property('revenue'))",
        }
    )
    place.write(
        "resources/destinations/hook.yaml", "type: webhook\nsettings: {url: https://x.test}\n"
    )
    place.write("sensors/connections/buyers_to_hook.yaml", CONNECTION)
    place.refresh(*(order("ann", n) for n in range(3)), order("bob", 0), order("cy", 0, 99))
    return place


def moved(found: list[planning.Planned]) -> dict[str, tuple[str, int, int, int, int, int]]:
    return {
        one.key: (one.status, one.before, one.after, one.entering, one.leaving, one.changed)
        for one in found
    }


def test_nothing_changed(shop: Place) -> None:
    found = planning.plan(shop.space)
    assert moved(found) == {
        "buyers": ("kept", 3, 3, 0, 0, 0),
        "loyal": ("kept", 1, 1, 0, 0, 0),
        "revenue": ("kept", 3, 3, 0, 0, 0),
    }
    assert "Nobody enters or leaves" in planning.as_markdown(found, NOW)


def change(shop: Place) -> None:
    shop.define(
        {
            "audiences/buyers": "trait('revenue') > 20",
            "audiences/thrifty": "event('Order').sum(property('revenue')) < 20",
            "computed_traits/revenue": "event('Order').max(property('revenue'))",
        }
    )
    (shop.root / "assets/audiences/loyal.yaml").unlink()


def test_what_a_change_does(shop: Place) -> None:
    before = digests(shop.space)
    change(shop)
    found = planning.plan(shop.space)
    assert moved(found) == {
        "buyers": ("kept", 3, 1, 0, 2, 0),
        "loyal": ("deleted", 1, 1, 0, 0, 0),
        "revenue": ("kept", 3, 3, 0, 0, 1),
        "thrifty": ("new", 0, 1, 1, 0, 0),
    }
    (buyers,) = (one for one in found if one.key == "buyers")
    who = {row["external_ids"]["user_id"][0] for row in buyers.examples["leaving"]}
    assert who == {"ann", "bob"}
    assert [(one.destination, one.changes) for one in buyers.told] == [("hook", 2)]
    assert digests(shop.space) == before


def test_it_tells_what_the_next_refresh_does(shop: Place) -> None:
    change(shop)
    told = moved(planning.plan(shop.space))
    space = shop.refresh()
    with space.session() as session:
        rows = session.fetch("SELECT audience, count(*) AS n FROM members GROUP BY ALL").to_pylist()
    assert {row["audience"]: row["n"] for row in rows} == {
        key: told[key][2] for key in ("buyers", "loyal", "thrifty")
    }
    again = planning.plan(space)
    assert {one.key for one in again} == {"buyers", "revenue", "thrifty"}
    assert all(one.moves == 0 for one in again)


def test_against_another_folder(shop: Place, new_place: Callable[[], Place]) -> None:
    other = new_place()
    other.define({"audiences/buyers": "event('Order').count() >= 3"})
    base = planning.on_data_of(shop.space, load_project(other.root))
    found = moved(planning.plan(shop.space, against=base))
    assert found["buyers"] == ("kept", 1, 3, 2, 0, 0)
    assert found["loyal"] == ("new", 0, 1, 1, 0, 0)


def test_markdown(shop: Place) -> None:
    change(shop)
    text = planning.as_markdown(planning.plan(shop.space), NOW)
    assert "| `buyers` | changed | 3 | 1 | 0 | 2 | 0 |" in text
    assert "| `thrifty` | new | 0 | 1 | 1 | 0 | 0 |" in text
    assert "`thrifty` entering, for example: user_id:bob" in text
    assert "| hook | buyers_to_hook | 2 |" in text


def test_the_time_at_the_tools_rate(shop: Place) -> None:
    hook = "type: webhook\nsettings: {url: https://x.test, requests_per_second: 0.5}\n"
    shop.write("resources/destinations/hook.yaml", hook)
    abilities = deliver.opened(shop.space, "hook").abilities
    assert abilities.requests_per_second == 0.5
    change(shop)
    (buyers,) = (one for one in planning.plan(shop.space) if one.key == "buyers")
    (told,) = buyers.told
    assert told.seconds == 2 / abilities.batch_size / 0.5
