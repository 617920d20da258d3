"""The registry: a key is one definition's for ever."""

import datetime as dt
from collections.abc import Mapping
from typing import Any

import pytest
import sqlalchemy as sa

from personas_dagster.errors import PersonasError
from personas_dagster.state import State
from personas_dagster.state.registry import created, register
from personas_dagster.state.schema import registry

Definitions = Mapping[str, tuple[str, Mapping[str, Any]]]
DAY = dt.timedelta(days=1)
FIRST = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def big(query: str = "event('Order').count()\n  >= 1", kind: str = "audience") -> Definitions:
    return {"big": (kind, {"query": query, "collection": "users"})}


def row(state: State) -> dict[str, Any]:
    return state.rows(sa.select(registry))[0]


def test_kept_with_its_time(state: State) -> None:
    register(state, big(), now=FIRST)
    register(state, big(), now=FIRST + DAY)
    assert (row(state)["created_at"], row(state)["deleted_at"]) == (FIRST, None)


def test_changed_while_it_lives(state: State) -> None:
    register(state, big(), now=FIRST)
    register(state, big("event('Order').count() >= 2"), now=FIRST + DAY)
    assert row(state)["definition"]["query"].endswith(">= 2")
    assert row(state)["created_at"] == FIRST


def test_deleted_and_put_back(state: State) -> None:
    register(state, big(), now=FIRST)
    register(state, {}, now=FIRST + DAY)
    register(state, {}, now=FIRST + 2 * DAY)
    assert row(state)["deleted_at"] == FIRST + DAY
    register(state, big(), now=FIRST + 3 * DAY)
    assert (row(state)["deleted_at"], row(state)["created_at"]) == (None, FIRST)


def test_another_under_a_used_key(state: State) -> None:
    register(state, big(), now=FIRST)
    register(state, {}, now=FIRST + DAY)
    with pytest.raises(PersonasError) as caught:
        register(state, big("event('Order').count() >= 2"), now=FIRST + 2 * DAY)
    assert str(caught.value) == (
        "key `big` was used by the audience «event('Order').count() >= 1» from 2026-01-01 until "
        "2026-01-02, and a key is never used again; choose another key, or put the same "
        "definition back"
    )
    assert row(state)["deleted_at"] == FIRST + DAY


def test_another_kind_under_a_used_key(state: State) -> None:
    register(state, big(), now=FIRST)
    with pytest.raises(PersonasError, match="was used by the audience .* from 2026-01-01, and"):
        register(state, big("event('Order').count()", "computed trait"), now=FIRST + DAY)


def test_since_when(state: State) -> None:
    register(state, big(), now=FIRST)
    assert created(state) == {"big": FIRST}
