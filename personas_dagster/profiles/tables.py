"""The tables of a profile store, and how a change is applied to them: SQL for both databases.

What belongs here: constant text that SQLite and PostgreSQL read alike. Instants are whole
microseconds since 1970 (UTC), bodies are JSON text as `rows` makes it. Tables of a change are
staged beside them under the names in `STAGED`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

FORMAT = 2
"""Raised when the tables or bodies change: a store of another format is made again."""

TABLES: Mapping[str, str] = {
    "profiles": "profile_id TEXT NOT NULL PRIMARY KEY, collection TEXT NOT NULL, "
    "created_at BIGINT, first_message_id TEXT, first_source_id TEXT, "
    "updated_at BIGINT, last_message_id TEXT, last_source_id TEXT",
    # A profile's first row is whole; each later one says what a refresh changed.
    "traits": "profile_id TEXT NOT NULL, refresh_id BIGINT NOT NULL, body TEXT NOT NULL, "
    "PRIMARY KEY (profile_id, refresh_id)",
    "external_ids": "profile_id TEXT NOT NULL PRIMARY KEY, body TEXT NOT NULL",
    "identifiers": "type TEXT NOT NULL, value TEXT NOT NULL, collection TEXT NOT NULL, "
    "profile_id TEXT NOT NULL, PRIMARY KEY (type, value, collection)",
    "parents": "child_id TEXT NOT NULL PRIMARY KEY, profile_id TEXT NOT NULL",
    "links": "profile_id TEXT NOT NULL, to_profile_id TEXT NOT NULL, "
    "to_collection TEXT NOT NULL, PRIMARY KEY (profile_id, to_profile_id)",
    "events": "profile_id TEXT NOT NULL, at BIGINT NOT NULL, message_id TEXT NOT NULL, "
    "event TEXT, body TEXT NOT NULL, PRIMARY KEY (profile_id, at, message_id)",
    "held": "facts TEXT NOT NULL",
}
NARROW = frozenset({"profiles", "identifiers", "parents", "links"})
"""Tables whose rows are short: SQLite keeps them in their key's tree."""
INDEXES = ("CREATE INDEX events_by_time ON events (at)",)

STAGED: Mapping[str, str] = {
    "new_profiles": "profile_id TEXT, collection TEXT, created_at BIGINT, first_message_id TEXT, "
    "first_source_id TEXT",
    "new_last": "profile_id TEXT, updated_at BIGINT, last_message_id TEXT, last_source_id TEXT",
    # Without a key, so that SQLite goes from these rows to the large tables' keys.
    "new_parents": "child_id TEXT, profile_id TEXT",
    "new_identifiers": "type TEXT, value TEXT, collection TEXT, profile_id TEXT",
    "new_external_ids": "profile_id TEXT, body TEXT",
    "whole": "profile_id TEXT",
    "new_traits": "profile_id TEXT, refresh_id BIGINT, body TEXT",
    "new_links": "profile_id TEXT, to_profile_id TEXT, to_collection TEXT",
    "new_events": "profile_id TEXT, at BIGINT, message_id TEXT, event TEXT, body TEXT",
}

TAKEN: Mapping[str, tuple[str, str]] = {
    "new_events": ("events", "ON CONFLICT DO NOTHING"),
    "new_identifiers": (
        "identifiers",
        "ON CONFLICT (type, value, collection) DO UPDATE SET profile_id = excluded.profile_id",
    ),
    "new_external_ids": (
        "external_ids",
        "ON CONFLICT (profile_id) DO UPDATE SET body = excluded.body",
    ),
    "new_traits": ("traits", ""),
    "new_links": ("links", "ON CONFLICT DO NOTHING"),
}
"""Staged tables of which nothing but rows of one table is made: it, and what holds there. A store
may put such rows into the table itself and stage none."""


def staged_columns(staged: str) -> str:
    return ", ".join(column.split()[0] for column in STAGED[staged].split(", "))


def _take(staged: str) -> str:
    table, conflict = TAKEN[staged]
    columns = staged_columns(staged)
    return (
        f"INSERT INTO {table} ({columns}) SELECT {columns} FROM {staged} WHERE true {conflict}"
    ).rstrip()


Step = tuple[Sequence[str], Sequence[str]]
"""Tables of `STAGED`, and what is run when these and those of earlier steps are filled."""

MESSAGES: Step = (("new_events",), (_take("new_events"),))
"""The first step of a change: which profiles are touched need not be known for it."""

GRAPH: Sequence[Step] = (
    (
        ("new_profiles", "new_last", "new_parents"),
        (
            "INSERT INTO new_last SELECT n.profile_id, p.updated_at, p.last_message_id, "
            "p.last_source_id FROM new_parents n JOIN profiles p ON p.profile_id = n.child_id",
            "INSERT INTO profiles (profile_id, collection, created_at, first_message_id, "
            "first_source_id) SELECT profile_id, collection, created_at, first_message_id, "
            "first_source_id FROM new_profiles WHERE true ON CONFLICT DO NOTHING",
            "UPDATE profiles SET updated_at = n.updated_at, last_message_id = n.last_message_id, "
            "last_source_id = n.last_source_id "
            "FROM (SELECT * FROM (SELECT *, row_number() OVER (PARTITION BY profile_id "
            "ORDER BY updated_at DESC, last_message_id DESC) AS place FROM new_last "
            "WHERE updated_at IS NOT NULL) AS ranked WHERE place = 1) AS n "
            "WHERE profiles.profile_id = n.profile_id AND (profiles.updated_at IS NULL "
            "OR (n.updated_at, n.last_message_id) > "
            "(profiles.updated_at, profiles.last_message_id))",
            "INSERT INTO events SELECT n.profile_id, e.at, e.message_id, e.event, e.body "
            "FROM new_parents n JOIN events e ON e.profile_id = n.child_id "
            "WHERE true ON CONFLICT DO NOTHING",
            "DELETE FROM events WHERE profile_id IN (SELECT child_id FROM new_parents)",
            "DELETE FROM links WHERE profile_id IN (SELECT to_profile_id FROM links "
            "WHERE profile_id IN (SELECT child_id FROM new_parents)) "
            "AND to_profile_id IN (SELECT child_id FROM new_parents)",
            "DELETE FROM links WHERE profile_id IN (SELECT child_id FROM new_parents)",
            "DELETE FROM profiles WHERE profile_id IN (SELECT child_id FROM new_parents)",
            "DELETE FROM traits WHERE profile_id IN (SELECT child_id FROM new_parents)",
            "DELETE FROM external_ids WHERE profile_id IN (SELECT child_id FROM new_parents)",
            "INSERT INTO parents SELECT child_id, profile_id FROM new_parents WHERE true "
            "ON CONFLICT (child_id) DO UPDATE SET profile_id = excluded.profile_id",
        ),
    ),
    (("new_identifiers",), (_take("new_identifiers"),)),
    (("new_external_ids",), (_take("new_external_ids"),)),
    (("new_links",), (_take("new_links"),)),
)
"""The steps after it: profiles that were touched."""
VALUES: Sequence[Step] = (
    (("whole",), ("DELETE FROM traits WHERE profile_id IN (SELECT profile_id FROM whole)",)),
    (("new_traits",), (_take("new_traits"),)),
)
"""The last steps: whose values changed need not be known before."""
PRUNE = "DELETE FROM events WHERE at < :before"
COUNTS = (
    "SELECT (SELECT count(*) FROM profiles) AS profiles, "
    "(SELECT count(*) FROM identifiers) AS identifiers"
)
FORGET = (
    "DELETE FROM links WHERE profile_id IN (SELECT to_profile_id FROM links "
    "WHERE profile_id IN (SELECT profile_id FROM touched)) "
    "AND to_profile_id IN (SELECT profile_id FROM touched)",
    *(
        f"DELETE FROM {table} WHERE profile_id IN (SELECT profile_id FROM touched)"
        for table in ("links", "events", "traits", "external_ids", "identifiers", "profiles")
    ),
    "DELETE FROM parents WHERE profile_id IN (SELECT profile_id FROM touched)",
)
"""Every row of the profiles in `touched`, which are no children of others."""
