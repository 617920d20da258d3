"""A project whose source `web` takes messages over HTTP, and what arrived in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from personas_dagster import intake
from personas_dagster.events import LoadReport
from tests.place import NOW, Place

KEY, OTHER_KEY = "key-of-web", "key-of-web-elsewhere"
ENV = {"WEB_KEY": KEY, "WEB_KEY_ELSEWHERE": OTHER_KEY}
METRICS_TOKEN = "let-me-see"
ELSEWHERE = """\
lake: {location: .personas/elsewhere/lake}
state: {url: "sqlite:///.personas/elsewhere/state.db"}
landing: .personas/elsewhere/landing
"""


def web_place(new_place: Callable[[], Place]) -> Place:
    """A place with the spaces `main` and `elsewhere`, and the source `web` in both."""
    place = new_place()
    place.write("resources/spaces/elsewhere.yaml", ELSEWHERE)
    place.write(
        "assets/sources/web.yaml",
        "name: Web\nwrite_keys: {main: {env: WEB_KEY}, elsewhere: {env: WEB_KEY_ELSEWHERE}}\n",
    )
    return place


def take_in(place: Place) -> LoadReport:
    """Load what landed."""
    return intake.take_in(place.space, now=NOW)


def stored(place: Place, table: str = "raw_events") -> list[dict[str, Any]]:
    """The rows of a table of messages, in the order of files and lines."""
    with place.space.engine.session(place.space.lake) as session:
        session.view(table)
        found = session.fetch(f"SELECT * FROM {table} ORDER BY load_id, file_id, line")
        return list(found.to_pylist())
