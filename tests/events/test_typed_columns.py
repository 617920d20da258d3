"""Properties that definitions read are kept as typed columns of `events`."""

from __future__ import annotations

import datetime as dt
import json
import subprocess

import pytest

from personas_dagster import upkeep
from personas_dagster.digests import digests
from personas_dagster.lake import DeltaLake
from personas_dagster.query import Typed, typed_columns
from tests.place import COMMAND, NOW, Place

TOTAL, STORE = Typed("property", "total", "number"), Typed("property", "o.Shop", "text")
SPENT = "event('Order').sum(property('total'))"
BERLIN = "event('Order').where(property('o.Shop') = 'Berlin').count()"
BEYOND = {"total": "7.5", "o": {"Shop": None}}


def order(place: Place, number: int, days: int = 0, **properties: object) -> None:
    """One order, in a load of its own."""
    stamp = (NOW - dt.timedelta(days=days, hours=1)).isoformat()
    row = {"type": "track", "event": "Order", "userId": "u1", "messageId": f"m{number}"}
    row |= {"timestamp": stamp, "receivedAt": stamp, "properties": properties}
    place.take(place.messages(row))


def held(place: Place) -> list[tuple[int, frozenset[str]]]:
    """The layers of `events`: how many messages, and which columns."""
    space = place.space
    names = [one.name for one in typed_columns(space.definitions)]
    with space.engine.session(space.lake) as session:
        return sorted(
            (session.fetch(f"SELECT count(*) FROM {name}").column(0)[0].as_py(), columns)
            for name, columns in session.layers("events", names)
        )


def values(place: Place) -> dict[str, str]:
    with place.space.session() as session:
        rows = session.fetch("SELECT key, value FROM trait_values").to_pylist()
    return {row["key"]: row["value"] for row in rows}


@pytest.fixture
def place_of_orders(place: Place) -> Place:
    """One month without typed columns, another with those of one trait."""
    order(place, 1, days=40, total=1.5, o={"Shop": "Berlin"})
    place.define({"computed_traits/spent": SPENT})
    order(place, 2, total=2, o={"Shop": "Bonn"})
    order(place, 3, **BEYOND)
    return place


def test_what_definitions_read(place_of_orders: Place) -> None:
    place_of_orders.define({"computed_traits/berlin": BERLIN})
    assert typed_columns(place_of_orders.space.definitions) == (STORE, TOTAL)
    assert held(place_of_orders) == [(1, frozenset()), (2, frozenset({TOTAL.name}))]


def test_new_definition_works_at_once(place_of_orders: Place) -> None:
    place_of_orders.define({"computed_traits/berlin": BERLIN})
    place_of_orders.refresh()
    assert values(place_of_orders) == {"spent": "11", "berlin": "1"}


def test_filled_later(place_of_orders: Place) -> None:
    """In bounds by a refresh, all by the command; values and digests stay."""
    place_of_orders.define({"computed_traits/berlin": BERLIN})
    place_of_orders.refresh()
    space = place_of_orders.space
    before = values(place_of_orders), digests(space)
    assert upkeep.tend(space, now=NOW, at_most=1).filled == [f"{NOW - dt.timedelta(days=40):%Y-%m}"]
    assert upkeep.tend(space, now=NOW, at_most=1).filled == []
    command = [COMMAND, "events", "fill", "--project", str(place_of_orders.root)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    assert json.loads(done.stdout) == {"months_filled": [f"{NOW:%Y-%m}"], "months_compacted": []}
    assert held(place_of_orders) == [(3, frozenset({TOTAL.name, STORE.name}))]
    assert (values(place_of_orders), digests(space)) == before
    place_of_orders.refresh()
    assert values(place_of_orders) == before[0]


def test_crowded_month_is_filled(place: Place) -> None:
    for number in range(12):
        order(place, number, total=number)
        if number == 5:
            place.define({"computed_traits/spent": SPENT})
    assert len(upkeep.tend(place.space, now=NOW).compacted) == 1
    assert held(place) == [(12, frozenset({TOTAL.name}))]
    place.refresh()
    assert values(place) == {"spent": "66"}


def test_writer_that_knows_no_typed_columns(place_of_orders: Place) -> None:
    """Its rows have empty columns and no mark: they are read from the JSON."""
    space = place_of_orders.space
    with space.engine.session(space.lake) as session:
        session.view("events")
        rows = session.fetch("SELECT * FROM events")
    space.lake.replace("events", rows)
    assert held(place_of_orders) == [(3, frozenset())]
    place_of_orders.refresh()
    assert values(place_of_orders) == {"spent": "11"}


def test_old_files_go_once_a_day(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not those that went since the refresh that readers see began, however long ago that was."""
    asked: list[int] = []
    monkeypatch.setattr(DeltaLake, "sweep", lambda lake, hours: asked.append(hours) or 7)
    order(place, 1, total=1)
    assert upkeep.tend(place.space, now=NOW).swept == 0  # nothing was published yet
    place.refresh()
    last = place.space.last_refresh()
    assert last is not None
    began, ended = last["started_at"], last["finished_at"]
    assert upkeep.tend(place.space, now=ended).swept == 0
    later = upkeep.tend(place.space, now=began + dt.timedelta(days=20))
    assert later.swept == 7 and asked == [20 * 24]
