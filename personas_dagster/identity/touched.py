"""The part of the graph that a load touches, read without the rest of it.

From the identifiers that a load names to the profiles they were first attached to, from there
along the merges to whole components, and to all identifiers of those. Each step reads only the
columns it needs, of rows that it has a reason to look for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from personas_dagster.interfaces import Session

_HELD = """
CREATE OR REPLACE TEMP TABLE held AS
SELECT n.id, i.profile_id, epoch_us(i.first_seen_at) AS seen
FROM identifiers i JOIN load_names n ON n.value = i.value AND n.type = i.type
WHERE i.collection = $1
"""
_START = "CREATE OR REPLACE TEMP TABLE met AS SELECT DISTINCT profile_id FROM held"
_NO_EDGES = (
    "CREATE OR REPLACE TEMP TABLE edges(child_id VARCHAR, parent_id VARCHAR)",
    "CREATE OR REPLACE TEMP TABLE frontier AS FROM met",
)
_UP_AND_DOWN = """
CREATE OR REPLACE TEMP TABLE found AS
SELECT child_id, parent_id FROM merges SEMI JOIN frontier ON profile_id = child_id
UNION
SELECT child_id, parent_id FROM merges SEMI JOIN frontier ON profile_id = parent_id
"""
_NEXT = (
    "INSERT INTO edges SELECT * FROM found ANTI JOIN edges USING (child_id)",
    """
    CREATE OR REPLACE TEMP TABLE frontier AS
    SELECT profile_id FROM (SELECT child_id AS profile_id FROM found
                            UNION SELECT parent_id FROM found) ANTI JOIN met USING (profile_id)
    """,
    "INSERT INTO met FROM frontier",
)
_JUMP = """
CREATE OR REPLACE TEMP TABLE climbed AS
SELECT c.profile_id, coalesce(e.parent_id, c.root_id) AS root_id, e.parent_id IS NOT NULL AS moved
FROM climbed c LEFT JOIN climbing e ON e.child_id = c.root_id
"""
_PROFILES = """
SELECT p.profile_id, k.members - 1 AS merges
FROM profiles p JOIN (SELECT root_id, count(*) AS members FROM climbed GROUP BY root_id) k
ON k.root_id = p.profile_id
ORDER BY p.load_id, p.created_at, p.first_message_id, p.profile_id
"""
_IDENTIFIERS = """
SELECT coalesce(h.id, -1) AS id, i.type, epoch_us(i.first_seen_at) AS seen, n.number
FROM identifiers i
JOIN climbed c USING (profile_id)
JOIN touched_numbers n USING (root_id)
LEFT JOIN load_names h ON h.value = i.value AND h.type = i.type
WHERE i.collection = $1
"""


@dataclass
class Touched:
    """Root profiles in order of creation, and every identifier that they hold."""

    profile_ids: list[str] = field(default_factory=list)
    merges: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    # Rows of (number of the load's identifier or -1, type, first seen, number of the profile).
    identifiers: pa.Table | None = None
    # The load's identifiers that are there: number and the profile first attached to.
    held: pa.Table | None = None


def read_touched(session: Session, names: pa.Table, collection: str) -> Touched:
    """The state under the load's identifiers (`names`: id, type, value)."""
    session.register("load_names", names)
    session.run(_HELD, [collection])
    held = session.fetch("SELECT id, profile_id FROM held")
    if held.num_rows == 0:
        return Touched()
    session.run(_START)
    climb_all(session)
    roots = session.fetch(_PROFILES)
    ids = roots.column("profile_id").to_pylist()
    session.register(
        "touched_numbers",
        pa.table({"root_id": pa.array(ids, pa.string()), "number": pa.array(range(len(ids)))}),
    )
    merges = roots.column("merges").to_numpy().astype(np.int32)
    return Touched(ids, merges, session.fetch(_IDENTIFIERS, [collection]), held)


def climb_all(session: Session) -> None:
    """From the profiles `met(profile_id)`, make `climbed(profile_id, root_id)`: every profile of
    their components beside its root. Needs `merges`.
    """
    for statement in _NO_EDGES:
        session.run(statement)
    while _count(session, "frontier"):
        session.run(_UP_AND_DOWN)
        for statement in _NEXT:
            session.run(statement)
    climb(session)


def climb(session: Session) -> None:
    """From `met` and `edges`, make `climbed`: each profile beside its root.

    Pointer jumping: what is left to climb halves with each round.
    """
    session.run("CREATE OR REPLACE TEMP TABLE climbing AS FROM edges")
    session.run(
        "CREATE OR REPLACE TEMP TABLE climbed AS "
        "SELECT profile_id, profile_id AS root_id, true AS moved FROM met"
    )
    while True:
        session.run(_JUMP)
        if not session.fetch("SELECT count(*) FROM climbed WHERE moved").column(0)[0].as_py():
            return
        session.run(
            "CREATE OR REPLACE TEMP TABLE climbing AS "
            "SELECT a.child_id, coalesce(b.parent_id, a.parent_id) AS parent_id "
            "FROM climbing a LEFT JOIN climbing b ON b.child_id = a.parent_id"
        )


def _count(session: Session, relation: str) -> int:
    return int(session.fetch(f"SELECT count(*) FROM {relation}").column(0)[0].as_py())
