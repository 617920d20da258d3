"""People by what their messages say, and the values that a refresh leaves on them."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from typing import Any

from tests.place import NOW, Place

MINUTE, DAY = dt.timedelta(minutes=1), dt.timedelta(days=1)
START = NOW - 60 * DAY


class People:
    """Messages wait here until the next refresh; `at` counts minutes."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._waiting: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)

    def say(
        self, kind: str = "identify", user: str | None = "u1", at: int = 0, **fields: Any
    ) -> None:
        """One message; it arrives in the order in which it is told."""
        number = next(self._numbers)
        self._waiting.append(
            {
                "type": kind,
                "messageId": f"m{number:04}",
                **({"userId": user} if user else {}),
                "timestamp": (START + at * MINUTE).isoformat(),
                "receivedAt": (START + DAY + number * MINUTE).isoformat(),
                **fields,
            }
        )

    def track(self, event: str, user: str | None = "u1", at: int = 0, **fields: Any) -> None:
        self.say("track", user, at, event=event, **fields)

    def refresh(self, as_of: dt.datetime = NOW) -> None:
        rows, self._waiting = self._waiting, []
        self.place.refresh(*rows, as_of=as_of)

    def values(self, kind: str = "custom_trait", of: str = "user_id:u1") -> dict[str, Any]:
        """The traits of a class on one profile."""
        id_type, value = of.split(":")
        with self.place.space.session() as session:
            rows = session.fetch(
                "SELECT t.key, t.value FROM trait_values t JOIN graph_identifiers i "
                "USING (profile_id) WHERE i.type = $1 AND i.value = $2 AND t.class = $3",
                [id_type, value, kind],
            ).to_pylist()
        assert len(rows) == len({row["key"] for row in rows}), rows
        return {row["key"]: json.loads(row["value"]) for row in rows}

    def members(self, audience: str) -> list[str]:
        """The user ids of an audience's members."""
        with self.place.space.session() as session:
            rows = session.fetch(
                "SELECT i.value FROM members m JOIN graph_identifiers i USING (profile_id) "
                "WHERE m.audience = $1 AND i.type = 'user_id' ORDER BY ALL",
                [audience],
            )
        return [row["value"] for row in rows.to_pylist()]

    def changes(self, audience: str) -> list[tuple[str, dt.datetime]]:
        """Who moved, in order of time: (change, as of)."""
        space = self.place.space
        with space.engine.session(space.lake) as session:
            session.view("audience_changes")
            rows = session.fetch(
                "SELECT change, as_of FROM audience_changes WHERE audience = $1 "
                "ORDER BY as_of, change",
                [audience],
            ).to_pylist()
        return [(row["change"], row["as_of"]) for row in rows]
