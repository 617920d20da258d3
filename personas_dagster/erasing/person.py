"""Who is to be deleted, and how their identifiers are recognised in text."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from personas_dagster.errors import NotFound
from personas_dagster.identity import views
from personas_dagster.interfaces import Session

_ROOT = """
SELECT profile_id FROM graph_identifiers WHERE collection = 'users' AND type = $1 AND value = $2
"""
_PROFILES = "SELECT profile_id FROM graph_roots WHERE root_id = $1 ORDER BY ALL"
_IDENTIFIERS = """
SELECT type, value FROM graph_identifiers
WHERE collection = 'users' AND profile_id = $1 ORDER BY ALL
"""
_TELLING = 6  # characters from which a value says by itself whose it is
_PART = "[A-Za-z0-9_.@-]"


@dataclass(frozen=True)
class Person:
    """All merged profiles of a person, and all identifiers (type, value) of these."""

    profile_ids: tuple[str, ...]
    identifiers: tuple[tuple[str, str], ...]

    @property
    def types(self) -> dict[str, int]:
        """How many identifiers of each type."""
        return dict(sorted(Counter(kind for kind, _ in self.identifiers).items()))

    @property
    def pattern(self) -> str:
        """A regular expression that finds an identifier in text, for Python and for engines.

        A short value counts only where it stands in quotes: `7` alone would be everywhere.
        """
        values = [value for _, value in self.identifiers]
        parts = [f'"{re.escape(value)}"' for value in values]
        parts += [
            f"(?:^|[^{_PART[1:-1]}]){re.escape(value)}(?:[^{_PART[1:-1]}]|$)"
            for value in values
            if len(value) >= _TELLING
        ]
        return "(?i:" + "|".join(parts) + ")"

    @property
    def telling(self) -> list[str]:
        """The values that are looked for anywhere, whatever stands beside them."""
        return [value for _, value in self.identifiers if len(value) >= _TELLING]


def find(session: Session, identifier: Sequence[str]) -> Person:
    """The person whose profile holds this identifier (collection, type, value).

    NotFound when no profile does.
    """
    views.prepare(session)
    roots = session.fetch(_ROOT, list(identifier[1:])).column(0).to_pylist()
    if not roots:
        raise NotFound(
            f"{identifier[1]}:{identifier[2]} is on no user's profile; there is nothing to delete"
        )
    profiles = session.fetch(_PROFILES, roots).column(0).to_pylist()
    names = session.fetch(_IDENTIFIERS, roots).to_pylist()
    return Person(tuple(profiles), tuple((row["type"], row["value"]) for row in names))
