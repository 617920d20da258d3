"""The tables of a profile store, and how a change is applied to them: SQL for both databases.

What belongs here: constant text that SQLite and PostgreSQL read alike. Instants are whole
microseconds since 1970 (UTC), bodies are JSON text as `rows` makes it. Tables of a change are
staged beside them under the names in `STAGED`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

FORMAT = 5
"""Raised when the tables or bodies change: a store of another format is made again."""

LANES = 12
"""What refreshes change of traits goes to so many places in turn: rows of one lie together there,
and a change stays among few pages. Who reads a profile looks at each of them."""
EVENT_LANES = 4
"""The same of a day's events: who reads them looks at those of each day."""

TABLES: Mapping[str, str] = {
    "profiles": "profile_id TEXT NOT NULL PRIMARY KEY, collection TEXT NOT NULL, "
    "created_at BIGINT, first_message_id TEXT, first_source_id TEXT, "
    "updated_at BIGINT, last_message_id TEXT, last_source_id TEXT, external_ids TEXT NOT NULL",
    # All that refreshes changed up to `through`.
    "traits": "profile_id TEXT NOT NULL PRIMARY KEY, body TEXT NOT NULL, through BIGINT NOT NULL",
    # What refreshes changed since; older rows are shown no more.
    "trait_changes": "lane BIGINT NOT NULL, profile_id TEXT NOT NULL, refresh_id BIGINT NOT NULL, "
    "body TEXT NOT NULL, PRIMARY KEY (lane, profile_id, refresh_id)",
    # Whose older rows are there still: they are taken out lane by lane, when it is written.
    "folded": "profile_id TEXT NOT NULL, through BIGINT NOT NULL, "
    "PRIMARY KEY (profile_id, through)",
    # Under the profile that each was first of: `parents` leads on from one that was merged.
    "identifiers": "type TEXT NOT NULL, value TEXT NOT NULL, collection TEXT NOT NULL, "
    "profile_id TEXT NOT NULL, PRIMARY KEY (type, value, collection)",
    "parents": "child_id TEXT NOT NULL PRIMARY KEY, profile_id TEXT NOT NULL",
    "links": "profile_id TEXT NOT NULL, to_profile_id TEXT NOT NULL, "
    "to_collection TEXT NOT NULL, PRIMARY KEY (profile_id, to_profile_id)",
    # By whole days since 1970 first (`part_of`): what comes in goes to few pages.
    "events": "part BIGINT NOT NULL, profile_id TEXT NOT NULL, at BIGINT NOT NULL, "
    "message_id TEXT NOT NULL, event TEXT, body TEXT NOT NULL, "
    "PRIMARY KEY (part, profile_id, at, message_id)",
    "event_parts": "part BIGINT NOT NULL PRIMARY KEY",
    # Older events than `events_since` are not shown, and taken out when their day is over.
    "held": "facts TEXT NOT NULL, events_since BIGINT NOT NULL",
}
CLUSTERED = frozenset(
    {"profiles", "trait_changes", "folded", "identifiers", "parents", "links", "events"}
)
"""Tables that SQLite keeps in their key's tree: one page for a row that is looked up."""
DAY = 86_400_000_000
"""Microseconds in a day of `events`."""
LATER = 9_999_999
"""The day of events that lie in the future."""
OF_ANY_PART = "part IN (SELECT part FROM event_parts)"
"""With it, the key of `events` finds a profile's rows."""
OF_ANY_LANE = f"lane IN ({', '.join(map(str, range(LANES)))})"
"""With it, the key of `trait_changes` does."""

STAGED: Mapping[str, str] = {
    "new_profiles": "profile_id TEXT, collection TEXT, created_at BIGINT, first_message_id TEXT, "
    "first_source_id TEXT, updated_at BIGINT, last_message_id TEXT, last_source_id TEXT, "
    "external_ids TEXT",
    # Without a key, so that SQLite goes from these rows to the large tables' keys.
    "new_parents": "child_id TEXT, profile_id TEXT",
    "new_identifiers": "type TEXT, value TEXT, collection TEXT, profile_id TEXT",
    "whole": "profile_id TEXT",
    "new_folded": "profile_id TEXT, through BIGINT",
    "new_traits": "profile_id TEXT, body TEXT, through BIGINT",
    "new_trait_changes": "lane BIGINT, profile_id TEXT, refresh_id BIGINT, body TEXT",
    "new_links": "profile_id TEXT, to_profile_id TEXT, to_collection TEXT",
    "new_events": "part BIGINT, profile_id TEXT, at BIGINT, message_id TEXT, event TEXT, body TEXT",
    "new_event_parts": "part BIGINT",
}


def lane_of(refresh_id: int) -> int:
    """Where a refresh's rows go."""
    return refresh_id % LANES


def part_of(day: str, refresh_id: int) -> str:
    """SQL for where a refresh's events of a day since 1970 go."""
    return f"(({day}) * {EVENT_LANES} + {int(refresh_id) % EVENT_LANES})"


def first_part(micros: int) -> int:
    """The first part of the day in which an instant lies."""
    return micros // DAY * EVENT_LANES


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
    "new_event_parts": ("event_parts", "ON CONFLICT DO NOTHING"),
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
    ("new_events", "new_event_parts"),
    (_take("new_events"), _take("new_event_parts")),
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
            "INSERT INTO events SELECT e.part, n.profile_id, e.at, e.message_id, e.event, e.body "
            "FROM new_parents n CROSS JOIN events e WHERE e.profile_id = n.child_id "
            f"AND e.{OF_ANY_PART} ON CONFLICT DO NOTHING",
            f"DELETE FROM events WHERE profile_id IN {_CHILDREN} AND {OF_ANY_PART}",
            f"DELETE FROM trait_changes WHERE profile_id IN {_CHILDREN} AND {OF_ANY_LANE}",
            "DELETE FROM links WHERE profile_id IN (SELECT to_profile_id FROM links "
            f"WHERE profile_id IN {_CHILDREN}) AND to_profile_id IN {_CHILDREN}",
            *(
                f"DELETE FROM {table} WHERE profile_id IN {_CHILDREN}"
                for table in ("links", "profiles", "traits")
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
        ("whole", "new_folded"),
        (
            "DELETE FROM traits WHERE profile_id IN (SELECT profile_id FROM whole "
            "UNION ALL SELECT profile_id FROM new_folded)",
            "DELETE FROM trait_changes WHERE profile_id IN (SELECT profile_id FROM whole) "
            f"AND {OF_ANY_LANE}",
            "INSERT INTO folded SELECT profile_id, through FROM new_folded WHERE true "
            "ON CONFLICT DO NOTHING",
        ),
    ),
    (("new_traits",), (_take("new_traits"),)),
)
"""The last steps, of other profiles: the engine takes longest for what is written whole."""
PRUNE = tuple(f"DELETE FROM {table} WHERE part < :part" for table in ("events", "event_parts"))
CLEAN = (
    "DELETE FROM trait_changes WHERE lane = :lane AND profile_id IN (SELECT profile_id FROM folded)"
    " AND refresh_id <= (SELECT max(f.through) FROM folded f "
    "WHERE f.profile_id = trait_changes.profile_id)"
)
"""Of a lane that was written: its rows that are shown no more."""
CLEANED = "DELETE FROM folded WHERE through <= :through"
"""When that was done with every lane since."""
COUNTED = ("profiles", "identifiers")
"""Tables whose rows are as many as the graph's."""
