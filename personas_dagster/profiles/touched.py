"""Whom a refresh changed, as far as a profile store shows it.

What belongs here: the profiles whose names or values are written anew. What does not: the rows
that are written (`rows`), and when (`keeping`).
"""

from __future__ import annotations

import pyarrow as pa

from personas_dagster.interfaces import Session
from personas_dagster.profiles import rows
from personas_dagster.profiles.store import Held, Published

LOGS = ("custom_traits", "computed_traits", "sql_traits")
_TOUCHED = (
    # Profiles that others were merged into, with every child that they have by now.
    """
    CREATE OR REPLACE TEMP TABLE merged AS
    SELECT DISTINCT p.parent_id AS profile_id
    FROM merges m JOIN graph_parents p ON p.child_id = m.child_id WHERE m.load_id > $1
    """,
    """
    CREATE OR REPLACE TEMP TABLE new_identifiers AS
    SELECT i.*, coalesce(p.parent_id, i.profile_id) AS root_id
    FROM identifiers i LEFT JOIN graph_parents p ON p.child_id = i.profile_id
    WHERE i.load_id > $1
    """,
)
# Keys of custom traits that were said, and are those of definitions that are gone: what is shown
# under them is not in the new rows alone.
_GONE = """
CREATE OR REPLACE TEMP TABLE gone AS
SELECT key FROM (SELECT DISTINCT key FROM custom_traits WHERE refresh_id > $1) SEMI JOIN (
    SELECT key FROM computed_traits
    UNION ALL
    SELECT audience FROM audience_changes
) USING (key) ANTI JOIN defined USING (key)
"""
# Whose traits are made anew, and not of what the store has and what changed.
_WHOLE = """
CREATE OR REPLACE TEMP TABLE whole AS
SELECT profile_id FROM merged
UNION
SELECT coalesce(p.parent_id, t.profile_id)
FROM (
    SELECT profile_id FROM custom_traits SEMI JOIN gone USING (key) WHERE refresh_id > $1
    UNION ALL
    SELECT profile_id FROM computed_traits ANTI JOIN defined USING (key) WHERE refresh_id > $1
    UNION ALL
    SELECT profile_id FROM audience_changes
    WHERE refresh_id > $1 AND audience NOT IN (FROM defined)
    {others}
) t LEFT JOIN graph_parents p ON p.child_id = t.profile_id
"""
# Of keys that were defined since, or are no more: everybody's.
_OTHERS = """
    UNION ALL
    SELECT profile_id FROM custom_traits SEMI JOIN other_keys USING (key)
    UNION ALL
    SELECT profile_id FROM computed_traits SEMI JOIN other_keys USING (key)
    UNION ALL
    SELECT profile_id FROM audience_changes SEMI JOIN other_keys ON key = audience
"""
_FAMILY = """
CREATE OR REPLACE TEMP TABLE family AS
SELECT profile_id, profile_id AS root_id, true AS is_root FROM whole
UNION ALL
SELECT child_id, parent_id, false FROM graph_parents SEMI JOIN whole ON whole.profile_id = parent_id
"""
# One in so many of those whose traits changed: theirs become one row again.
OFTEN = 24
_FOLDED = """
CREATE OR REPLACE TEMP TABLE folded AS
SELECT DISTINCT profile_id FROM changed_traits
WHERE hash(profile_id, $1::BIGINT) % $2 = 0
"""


def find_touched(session: Session, held: Held) -> None:
    """Profiles that others were `merged` into, and `new_identifiers`."""
    for statement in _TOUCHED:
        session.run(statement, [held.graph_load])


def find_whole(session: Session, held: Held, published: Published) -> None:
    """The profiles whose values are written `whole`, and their `family`; of all others
    `changed_traits`, and whose traits are `folded`.
    """
    session.view("audience_changes")
    for table in LOGS:
        session.view(table)
    other = {
        *(set(held.computed) ^ set(published.computed)),
        *(set(held.audiences) ^ set(published.audiences)),
    }
    keys = pa.table({"key": pa.array(sorted(other), pa.string())})
    session.register("other_keys", keys)
    session.register(
        "defined",
        pa.table({"key": pa.array([*published.computed, *published.audiences], pa.string())}),
    )
    session.run(_GONE, [held.refresh_id])
    session.run(_WHOLE.format(others=_OTHERS if other else ""), [held.refresh_id])
    session.run(_FAMILY)
    session.run(rows.CHANGED_TRAITS, [held.refresh_id])
    session.run(_FOLDED, [published.refresh_id, OFTEN])
