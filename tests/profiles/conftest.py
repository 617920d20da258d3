from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import pytest

from personas_dagster import spaces
from personas_dagster.profiles.reading import added_up
from personas_dagster.profiles.store import ProfileStore, open_store
from personas_dagster.profiles.tables import DAY, EVENT_LANES
from personas_dagster.state import State
from tests.conftest import postgres_database
from tests.place import SPACE, Place

KINDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, place: Place) -> Iterator[Place]:
    """A project whose state, and with it the profile store, is on each of the two databases."""
    with on_database(place, request.param):
        yield place


@contextmanager
def on_database(place: Place, kind: str) -> Iterator[None]:
    """The place's state is there; what was opened is closed at the end."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        if kind == "postgres":
            patch.setenv("PERSONAS_STATE_URL", stack.enter_context(postgres_database()))
            place.write(
                "resources/spaces/main.yaml",
                SPACE.replace('"sqlite:///.personas/state.db"', "{env: PERSONAS_STATE_URL}"),
            )

        def closed(real: Callable[[Any], Any]) -> Callable[[Any], Any]:
            def open_it(url: Any) -> Any:
                opened = real(url)
                stack.callback(opened.close)
                return opened

            return open_it

        patch.setattr(spaces, "State", closed(State))
        patch.setattr(spaces, "open_store", closed(open_store))
        yield


def dump(store: ProfileStore) -> dict[str, list[tuple[object, ...]]]:
    """Every row of a profile store."""
    columns = {
        "profiles": "*",
        "identifiers": "*",
        "parents": "*",
        "links": "*",
        "events": "profile_id, at, message_id, event, body",
        "event_parts": "part",
    }
    rows = {
        table: sorted(
            (tuple(row) for row in store.rows(f"SELECT {names} FROM {table}", {})), key=repr
        )
        for table, names in columns.items()
    }
    rows["profiles"] = [
        (*row[:-1], sorted(msgspec.json.decode(row[-1]))) for row in rows["profiles"]
    ]
    # Whole days are taken out: what is shown of the first one, and that there are no others.
    ((since,),) = store.rows("SELECT events_since FROM held", {})
    assert all(row[1] >= since - DAY for row in rows["events"])
    rows["events"] = [row for row in rows["events"] if int(str(row[1])) >= since]
    used = {row[0] for row in store.rows("SELECT DISTINCT part FROM events", {})}
    parts = {row[0] for row in rows.pop("event_parts")}
    assert used <= parts
    days = {part // EVENT_LANES for part in used}
    rows["event_days"] = [(day,) for day in sorted(days)]
    return rows | {"traits": traits(store)}


def traits(store: ProfileStore) -> list[tuple[object, ...]]:
    """What the rows of traits say together, by profile."""
    bodies: dict[str, list[str]] = {}
    query = (
        "SELECT profile_id, 0 AS refresh_id, body FROM traits "
        "UNION ALL SELECT c.profile_id, c.refresh_id, c.body FROM trait_changes c "
        "LEFT JOIN traits t ON t.profile_id = c.profile_id "
        "WHERE c.refresh_id > coalesce(t.through, 0) ORDER BY 1, 2"
    )
    for profile_id, _, body in store.rows(query, {}):
        bodies.setdefault(profile_id, []).append(body)
    said = ((profile_id, added_up(some)) for profile_id, some in bodies.items())
    return [(profile_id, msgspec.json.encode(values)) for profile_id, values in said if values]
