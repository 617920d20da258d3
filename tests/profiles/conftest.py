from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from personas_dagster.profiles.store import ProfileStore
from personas_dagster.state import State
from tests.place import SPACE, Place


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def shop(
    request: pytest.FixtureRequest, place: Place, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Place]:
    """A project whose state, and with it the profile store, is on each of the two databases."""
    if request.param == "postgres":
        url = str(request.getfixturevalue("postgres_url"))
        monkeypatch.setenv("PERSONAS_STATE_URL", url)
        place.write(
            "resources/spaces/main.yaml",
            SPACE.replace('"sqlite:///.personas/state.db"', "{env: PERSONAS_STATE_URL}"),
        )
    opened: list[State] = []
    stores: list[object] = []
    for kind, kept in (("State", opened), ("open_store", stores)):
        real = getattr(__import__("personas_dagster.spaces", fromlist=[kind]), kind)

        def remember(url: object, real: Callable[..., object] = real, kept: list = kept) -> object:  # type: ignore[type-arg]
            kept.append(real(url))
            return kept[-1]

        monkeypatch.setattr(f"personas_dagster.spaces.{kind}", remember)
    yield place
    for one in [*stores, *opened]:
        one.close()  # type: ignore[attr-defined]


def dump(store: ProfileStore) -> dict[str, list[tuple[object, ...]]]:
    """Every row of a profile store."""
    columns = {
        "profiles": "*",
        "traits": "*",
        "external_ids": "*",
        "identifiers": "*",
        "parents": "*",
        "links": "*",
        "events": "profile_id, at, message_id, event, body",
    }
    return {
        table: sorted(
            (tuple(row) for row in store.rows(f"SELECT {names} FROM {table}", {})), key=repr
        )
        for table, names in columns.items()
    }
