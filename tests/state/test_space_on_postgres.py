"""A space whose state is on PostgreSQL gives what one on SQLite gives."""

import datetime as dt
from collections.abc import Callable

import pytest
import sqlalchemy as sa

from personas_dagster.digests import digests
from personas_dagster.state import State
from tests.place import NOW, SPACE, Place


@pytest.mark.postgres
def test_same_digests(
    new_place: Callable[[], Place], postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONAS_STATE_URL", postgres_url)
    opened: list[State] = []  # a place opens its space anew each time; the server minds

    def open_it(url: sa.URL) -> State:
        opened.append(State(url))
        return opened[-1]

    monkeypatch.setattr("personas_dagster.spaces.State", open_it)
    here, there = new_place(), new_place()
    there.write(
        "resources/spaces/main.yaml",
        SPACE.replace('"sqlite:///.personas/state.db"', "{env: PERSONAS_STATE_URL}"),
    )
    order = {"type": "track", "event": "Order", "receivedAt": "2026-01-01T00:00:00Z"}
    for place in (here, there):
        place.define({"audiences/buyers": "event('Order').within(3 days).count() >= 1"})
        place.refresh({**order, "userId": "u1"}, as_of=dt.datetime(2026, 1, 2, tzinfo=dt.UTC))
        place.refresh({**order, "userId": "u2"}, "nonsense", as_of=NOW)  # type: ignore[arg-type]
    assert digests(there.space) == digests(here.space)
    for state in opened:
        state.close()
