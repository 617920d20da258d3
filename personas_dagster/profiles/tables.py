"""The tables of a profile store, and how a change is applied to them: SQL for both databases.

What belongs here: constant text that SQLite and PostgreSQL read alike. Instants are whole
microseconds since 1970 (UTC), bodies are JSON text as `rows` makes it. Tables of a change are
staged beside them under the names in `STAGED`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

FORMAT = 4
"""Raised when the tables or bodies change: a store of another format is made again."""

TABLES: Mapping[str, str] = {
    "profiles": "profile_id TEXT NOT NULL PRIMARY KEY, collection TEXT NOT NULL, "
    "created_at BIGINT, first_message_id TEXT, first_source_id TEXT, "
    "updated_at BIGINT, last_message_id TEXT, last_source_id TEXT, external_ids TEXT NOT NULL",
    "traits": "profile_id TEXT NOT NULL PRIMARY KEY, body TEXT NOT NULL",
    # What refreshes changed since: few rows beside all, so that a change stays among few pages.
    "trait_changes": "profile_id TEXT NOT NULL, refresh_id BIGINT NOT NULL, body TEXT NOT NULL, "
    "PRIMARY KEY (profile_id, refresh_id)",
    # Under the profile that each was first of: `parents` leads on from one that was merged.
    "identifiers": "type TEXT NOT NULL, value TEXT NOT NULL, collection TEXT NOT NULL, "
    "profile_id TEXT NOT NULL, PRIMARY KEY (type, value, collection)",
    "parents": "child_id TEXT NOT NULL PRIMARY KEY, profile_id TEXT NOT NULL",
    "links": "profile_id TEXT NOT NULL, to_profile_id TEXT NOT NULL, "
    "to_collection TEXT NOT NULL, PRIMARY KEY (profile_id, to_profile_id)",
    # By whole days since 1970 first: what comes in goes to the pages of a day or two.
    "events": "day BIGINT NOT NULL, profile_id TEXT NOT NULL, at BIGINT NOT NULL, "
    "message_id TEXT NOT NULL, event TEXT, body TEXT NOT NULL, "
    "PRIMARY KEY (day, profile_id, at, message_id)",
    "event_days": "day BIGINT NOT NULL PRIMARY KEY",
    # Older events than `events_since` are not shown, and taken out when their day is over.
    "held": "facts TEXT NOT NULL, events_since BIGINT NOT NULL",
}
CLUSTERED = frozenset({"profiles", "trait_changes", "identifiers", "parents", "links", "events"})
"""Tables that SQLite keeps in their key's tree: one page for a row that is looked up."""
DAY = 86_400_000_000
"""Microseconds in a day of `events`."""
LATER = 9_999_999
"""The day of events that lie in the future."""
OF_ANY_DAY = "day IN (SELECT day FROM event_days)"
"""With it, the key of `events` finds a profile's rows."""

STAGED: Mapping[str, str] = {
    "new_profiles": "profile_id TEXT, collection TEXT, created_at BIGINT, first_message_id TEXT, "
    "first_source_id TEXT, updated_at BIGINT, last_message_id TEXT, last_source_id TEXT, "
    "external_ids TEXT",
    # Without a key, so that SQLite goes from these rows to the large tables' keys.
    "new_parents": "child_id TEXT, profile_id TEXT",
    "new_identifiers": "type TEXT, value TEXT, collection TEXT, profile_id TEXT",
    "whole": "profile_id TEXT",
    "new_traits": "profile_id TEXT, body TEXT",
    "new_trait_changes": "profile_id TEXT, refresh_id BIGINT, body TEXT",
    "new_links": "profile_id TEXT, to_profile_id TEXT, to_collection TEXT",
    "new_events": "day BIGINT, profile_id TEXT, at BIGINT, message_id TEXT, event TEXT, body TEXT",
    "new_event_days": "day BIGINT",
}


def _joined(first: str, second: str) -> str:
    """A body of the items of both."""
    return (
        f"CASE WHEN {first} = '[]' THEN {second} WHEN {second} = '[]' THEN {first} "
        f"ELSE substr({first}, 1, length({first}) - 1) || ',' || substr({second}, 2) END"
    )


def _later(row: str) -> str:
    """What a profile's last message is: the one that stands there, or that of a row."""
    newer = (
        f"profiles.updated_at IS NULL OR ({row}.updated_at, {row}.last_message_id) > "
        "(profiles.updated_at, profiles.last_message_id)"
    )
    return ", ".join(
        f"{column} = CASE WHEN {newer} THEN {row}.{column} ELSE profiles.{column} END"
        for column in ("updated_at", "last_message_id", "last_source_id")
    )


TAKEN: Mapping[str, tuple[str, str]] = {
    "new_events": ("events", "ON CONFLICT DO NOTHING"),
    "new_event_days": ("event_days", "ON CONFLICT DO NOTHING"),
    "new_identifiers": ("identifiers", "ON CONFLICT DO NOTHING"),
    "new_profiles": (
        "profiles",
        f"ON CONFLICT (profile_id) DO UPDATE SET {_later('excluded')}, "
        f"external_ids = {_joined('profiles.external_ids', 'excluded.external_ids')}",
    ),
    "new_traits": ("traits", ""),
    "new_trait_changes": ("trait_changes", ""),
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

MESSAGES: Step = (
    ("new_events", "new_event_days"),
    (_take("new_events"), _take("new_event_days")),
)
"""The first step of a change: which profiles are touched need not be known for it."""

_CHILDREN = "(SELECT child_id FROM new_parents)"
GRAPH: Sequence[Step] = (
    (("new_profiles",), (_take("new_profiles"),)),
    (
        ("new_parents",),
        (
            f"UPDATE profiles SET {_later('n')} "
            "FROM (SELECT * FROM (SELECT n.profile_id, p.updated_at, p.last_message_id, "
            "p.last_source_id, row_number() OVER (PARTITION BY n.profile_id "
            "ORDER BY p.updated_at DESC, p.last_message_id DESC) AS place "
            "FROM new_parents n JOIN profiles p ON p.profile_id = n.child_id "
            "WHERE p.updated_at IS NOT NULL) AS ranked WHERE place = 1) AS n "
            "WHERE profiles.profile_id = n.profile_id",
            f"UPDATE profiles SET external_ids = {_joined('profiles.external_ids', 'n.ids')} "
            "FROM (SELECT n.profile_id, '[' || string_agg("
            "substr(p.external_ids, 2, length(p.external_ids) - 2), ',') || ']' AS ids "
            "FROM new_parents n JOIN profiles p ON p.profile_id = n.child_id "
            "WHERE p.external_ids <> '[]' GROUP BY n.profile_id) AS n "
            "WHERE profiles.profile_id = n.profile_id",
            "INSERT INTO events SELECT e.day, n.profile_id, e.at, e.message_id, e.event, e.body "
            "FROM new_parents n CROSS JOIN events e WHERE e.profile_id = n.child_id "
            f"AND e.{OF_ANY_DAY} ON CONFLICT DO NOTHING",
            f"DELETE FROM events WHERE profile_id IN {_CHILDREN} AND {OF_ANY_DAY}",
            "DELETE FROM links WHERE profile_id IN (SELECT to_profile_id FROM links "
            f"WHERE profile_id IN {_CHILDREN}) AND to_profile_id IN {_CHILDREN}",
            *(
                f"DELETE FROM {table} WHERE profile_id IN {_CHILDREN}"
                for table in ("links", "profiles", "traits", "trait_changes")
            ),
            "INSERT INTO parents SELECT child_id, profile_id FROM new_parents WHERE true "
            "ON CONFLICT (child_id) DO UPDATE SET profile_id = excluded.profile_id",
        ),
    ),
    (("new_identifiers",), (_take("new_identifiers"),)),
    (("new_links",), (_take("new_links"),)),
)
"""The steps after it: profiles that were touched."""
CHANGED: Step = (("new_trait_changes",), (_take("new_trait_changes"),))
"""Then values: whose changed need not be known before."""
WHOLE: Sequence[Step] = (
    (
        ("whole",),
        tuple(
            f"DELETE FROM {table} WHERE profile_id IN (SELECT profile_id FROM whole)"
            for table in ("traits", "trait_changes")
        ),
    ),
    (("new_traits",), (_take("new_traits"),)),
)
"""The last steps, of other profiles: the engine takes longest for what is written whole."""
PRUNE = tuple(f"DELETE FROM {table} WHERE day < :day" for table in ("events", "event_days"))
COUNTED = ("profiles", "identifiers")
"""Tables whose rows are as many as the graph's."""
