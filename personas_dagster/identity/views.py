"""The graph as readers see it: relations over the identity tables, led through the parents.

`prepare` leaves in the session:
- `graph_roots(profile_id, root_id)`: every profile that ever was, and the root it leads to
- `graph_profiles(collection, profile_id, created_at, first_message_id)`: roots only
- `graph_identifiers(collection, type, value, profile_id, first_seen_at, first_message_id,
  source_id)`: `profile_id` is the root
- `graph_links(user_profile_id, account_profile_id, first_at, first_message_id, last_at,
  last_message_id)`: roots
"""

from __future__ import annotations

import datetime as dt

from personas_dagster.interfaces import Session

# Children whose parent has a parent itself, beside that one: few, as a load's merges lead to roots
# of their time.
_OPEN = """
CREATE OR REPLACE TEMP TABLE open_chains AS
SELECT p.child_id, up.parent_id
FROM {some} p JOIN graph_parents up ON up.child_id = p.parent_id
"""
# Not an UPDATE: of many rows, that takes minutes.
_JUMP = (
    "DELETE FROM graph_parents WHERE child_id IN (SELECT child_id FROM open_chains)",
    "INSERT INTO graph_parents FROM open_chains",
)
_ANY_OPEN = "SELECT 1 FROM open_chains LIMIT 1"
_PROFILES = """
SELECT (SELECT count(*) FROM stored_profiles) - (SELECT count(*) FROM graph_parents)
"""
_VIEWS = (
    """
    CREATE OR REPLACE TEMP VIEW graph_roots AS
    SELECT p.profile_id, coalesce(m.parent_id, p.profile_id) AS root_id
    FROM stored_profiles p LEFT JOIN graph_parents m ON m.child_id = p.profile_id
    """,
    """
    CREATE OR REPLACE TEMP VIEW graph_profiles AS
    SELECT p.collection, p.profile_id, p.created_at, p.first_message_id, p.load_id
    FROM stored_profiles p ANTI JOIN graph_parents m ON m.child_id = p.profile_id
    """,
    """
    CREATE OR REPLACE TEMP VIEW graph_identifiers AS
    SELECT i.collection, i.type, i.value, coalesce(m.parent_id, i.profile_id) AS profile_id,
           i.first_seen_at, i.first_message_id, i.source_id
    FROM identifiers i LEFT JOIN graph_parents m ON m.child_id = i.profile_id
    """,
    """
    CREATE OR REPLACE TEMP VIEW graph_links AS
    SELECT coalesce(u.parent_id, l.user_profile_id) AS user_profile_id,
           coalesce(a.parent_id, l.account_profile_id) AS account_profile_id,
           min(l.first_at) AS first_at,
           arg_min(l.first_message_id, (l.first_at, l.first_message_id)) AS first_message_id,
           max(l.last_at) AS last_at,
           arg_max(l.last_message_id, (l.last_at, l.last_message_id)) AS last_message_id
    FROM stored_links l
    LEFT JOIN graph_parents u ON u.child_id = l.user_profile_id
    LEFT JOIN graph_parents a ON a.child_id = l.account_profile_id
    GROUP BY ALL
    """,
)


_KNOWN = {
    "stored_profiles": ("profiles", "created_at"),
    "stored_links": ("account_links", "first_at"),
    "identifiers": ("identifiers", "first_seen_at"),
    "merges": ("merges", "merged_at"),
}


def prepare(session: Session, *, known_at: dt.datetime | None = None) -> None:
    """Create the graph's relations from the lake's identity tables.

    `known_at`: the graph of the messages that had been received by then.
    """
    for name, (table, since) in _KNOWN.items():
        if known_at is None:
            session.view(name, table)
        else:
            session.view(f"all_{name}", table)
            session.run(
                f"CREATE OR REPLACE TEMP TABLE known_{name} AS "
                f"SELECT * FROM all_{name} WHERE {since} <= $1",
                [known_at],
            )
            session.run(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM known_{name}")
    if known_at is not None:
        roots(session)
    elif not session.recall("graph_parents", "merges"):
        roots(session)
        session.keep("graph_parents", "merges")  # each stage of a refresh asks for them
    for statement in _VIEWS:
        session.run(statement)


def roots(session: Session) -> None:
    """Create `graph_parents(child_id, parent_id)`, each child beside its root.

    Pointer jumping: the longest chain halves with each round.
    """
    session.run(
        "CREATE OR REPLACE TEMP TABLE graph_parents AS SELECT child_id, parent_id FROM merges"
    )
    session.run(_OPEN.format(some="graph_parents"))
    while session.fetch(_ANY_OPEN).num_rows:
        for statement in _JUMP:
            session.run(statement)
        session.run(_OPEN.format(some="open_chains"))


def profiles(session: Session) -> int:
    """How many profiles there are: those that were ever made, less those that are others' now."""
    return int(session.fetch(_PROFILES).column(0)[0].as_py())
