"""The part of the graph that a load touches, read without the rest of it.

From the identifiers that a load names to the profiles they were first attached to, from there
along the merges to whole components, and to all identifiers of those. What is looked for is
anywhere in tables as large as the graph, so it is looked up by key (`looking_up.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from personas_dagster.errors import LakeUnavailable
from personas_dagster.identity import keys
from personas_dagster.identity.looking_up import look_up
from personas_dagster.interfaces import Session
from personas_dagster.lake.halves import same

_HELD = f"""
CREATE OR REPLACE TEMP TABLE held AS
SELECT n.id, i.profile_high, i.profile_low
FROM held_rows i JOIN load_names n ON {same("n.key", "i.key")}
"""
_WITHOUT_KEYS = "SELECT 1 FROM unindexed_identifiers WHERE key_low IS NULL LIMIT 1"
_START = "CREATE OR REPLACE TEMP TABLE met AS SELECT DISTINCT profile_high, profile_low FROM held"
# What no index covers is small beside the rest, and is gone through several times.
_MERGES = """
CREATE OR REPLACE TEMP TABLE graph_merges AS
SELECT child_high, child_low, parent_high, parent_low, load_id FROM unindexed_merges
"""
_NO_EDGES = (
    "CREATE OR REPLACE TEMP TABLE edges AS SELECT * EXCLUDE (load_id) FROM graph_merges LIMIT 0",
    "CREATE OR REPLACE TEMP TABLE frontier AS FROM met",
)
_UP_AND_DOWN = f"""
CREATE OR REPLACE TEMP TABLE found AS
SELECT DISTINCT child_high, child_low, parent_high, parent_low FROM (
    SELECT m.* FROM graph_merges m JOIN frontier f ON {same("m.child", "f.profile")}
    UNION ALL
    SELECT m.* FROM graph_merges m JOIN frontier f ON {same("m.parent", "f.profile")}
    UNION ALL BY NAME FROM merges_up UNION ALL BY NAME FROM merges_down
) WHERE $1::BIGINT IS NULL OR load_id < $1
"""
_NEXT = (
    "INSERT INTO edges SELECT * FROM found ANTI JOIN edges USING (child_high, child_low)",
    """
    CREATE OR REPLACE TEMP TABLE frontier AS
    SELECT profile_high, profile_low FROM (
        SELECT child_high AS profile_high, child_low AS profile_low FROM found
        UNION SELECT parent_high, parent_low FROM found
    ) ANTI JOIN met USING (profile_high, profile_low)
    """,
    "INSERT INTO met FROM frontier",
)
_CLIMBING = "CREATE OR REPLACE TEMP TABLE climbing AS FROM edges"
_CLIMBED = """
CREATE OR REPLACE TEMP TABLE climbed AS
SELECT profile_high, profile_low, profile_high AS root_high, profile_low AS root_low,
       true AS moved FROM met
"""
_JUMP = (
    """
    CREATE OR REPLACE TEMP TABLE climbed AS
    SELECT c.profile_high, c.profile_low, coalesce(e.parent_high, c.root_high) AS root_high,
           coalesce(e.parent_low, c.root_low) AS root_low, e.parent_low IS NOT NULL AS moved
    FROM climbed c LEFT JOIN climbing e
    ON e.child_high = c.root_high AND e.child_low = c.root_low
    """,
    """
    CREATE OR REPLACE TEMP TABLE climbing AS
    SELECT a.child_high, a.child_low, coalesce(b.parent_high, a.parent_high) AS parent_high,
           coalesce(b.parent_low, a.parent_low) AS parent_low
    FROM climbing a LEFT JOIN climbing b
    ON b.child_high = a.parent_high AND b.child_low = a.parent_low
    """,
)
_MEMBERS = f"""
CREATE OR REPLACE TEMP TABLE members AS
SELECT i.type, epoch_us(i.first_seen_at) AS seen, i.load_id, i.key_high, i.key_low,
       c.root_high, c.root_low, c.profile_low = c.root_low AND c.profile_high = c.root_high AS own
FROM member_rows i JOIN climbed c ON {same("c.profile", "i.profile")}
"""
# The message that made a profile attached an identifier to it, at that instant, in that load.
_ROOTS = """
CREATE OR REPLACE TEMP TABLE roots AS
SELECT root_high AS profile_high, root_low AS profile_low,
       min({'load_id': load_id, 'at': seen}) FILTER (own) AS made
FROM members GROUP BY ALL
"""
_TIED = """
CREATE OR REPLACE TEMP TABLE tied AS
SELECT profile_high, profile_low FROM roots QUALIFY count(*) OVER (PARTITION BY made) > 1
"""
_FIRST_MESSAGES = f"""
CREATE OR REPLACE TEMP TABLE first_messages AS
SELECT t.*, p.first_message_id
FROM tied_rows p JOIN tied t ON {same("t.profile", "p.profile")}
"""
_IN_ORDER = """
SELECT r.profile_high, r.profile_low, k.members - 1 AS merges
FROM roots r
JOIN (SELECT root_high AS profile_high, root_low AS profile_low, count(*) AS members
      FROM climbed GROUP BY ALL) k USING (profile_high, profile_low)
LEFT JOIN first_messages m USING (profile_high, profile_low)
ORDER BY r.made, m.first_message_id, r.profile_high, r.profile_low
"""
_IDENTIFIERS = """
SELECT coalesce(n.id, -1) AS id, m.type, m.seen, r.number
FROM members m JOIN touched_roots r USING (root_high, root_low)
LEFT JOIN load_names n USING (key_high, key_low)
"""


@dataclass
class Touched:
    """Root profiles in order of creation, and every identifier that they hold."""

    profile_ids: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))
    merges: npt.NDArray[np.int32] = field(default_factory=lambda: np.empty(0, np.int32))
    # Rows of (number of the load's identifier or -1, type, first seen, number of the profile).
    identifiers: pa.Table | None = None
    # The load's identifiers that are there: number and the profile first attached to.
    held: pa.Table | None = None


def read_touched(session: Session, names: pa.Table) -> Touched:
    """The state under the load's identifiers (`names`: id, key_high, key_low).

    Raises LakeUnavailable where an earlier version wrote the graph: nothing would be found in it.
    """
    if not names.num_rows or session.is_empty("identifiers"):
        return Touched()
    session.unindexed("unindexed_identifiers", "identifiers")
    if session.fetch(_WITHOUT_KEYS).num_rows:
        raise LakeUnavailable(
            "the identity tables were written by an earlier version, without the columns that "
            "loads look by; run `personas identity rebuild`"
        )
    session.register("load_names", names)
    look_up(session, "held_rows", "identifiers", "key", "load_names",
            more=["profile_high", "profile_low"])  # fmt: skip
    session.run(_HELD)
    held = session.fetch("SELECT * FROM held")
    if not held.num_rows:
        return Touched()
    session.run(_START)
    climb_all(session)
    look_up(session, "member_rows", "identifiers", "profile", "climbed",
            more=["type", "first_seen_at", "load_id", "key_high", "key_low"])  # fmt: skip
    for statement in (_MEMBERS, _ROOTS, _TIED):
        session.run(statement)
    look_up(session, "tied_rows", "profiles", "profile", "tied", more=["first_message_id"])
    session.run(_FIRST_MESSAGES)
    roots = session.fetch(_IN_ORDER)
    high, low = (roots.column(name) for name in ("profile_high", "profile_low"))
    numbers = pa.array(np.arange(roots.num_rows))
    session.register(
        "touched_roots", pa.table({"root_high": high, "root_low": low, "number": numbers})
    )
    merges = roots.column("merges").to_numpy().astype(np.int32)
    return Touched(
        keys.texts(high.to_numpy(), low.to_numpy()),
        merges,
        session.fetch(_IDENTIFIERS),
        pa.table({"id": held.column("id"), "profile_id": keys.texts(
            held.column("profile_high").to_numpy(), held.column("profile_low").to_numpy())}),
    )  # fmt: skip


def climb_all(session: Session, *, before_load: int | None = None) -> None:
    """From the profiles `met(profile_high, profile_low)`, make `climbed`: every profile of their
    components, and its root (`root_high`, `root_low`). Leaves their merges as `edges`, of loads
    before `before_load` if that is given.
    """
    session.unindexed("unindexed_merges", "merges")
    session.run(_MERGES)
    for statement in _NO_EDGES:
        session.run(statement)
    while _count(session, "frontier"):
        wanted = session.fetch("SELECT profile_high AS high, profile_low AS low FROM frontier")
        session.indexed("merges_up", "merges", "child", wanted)
        session.indexed("merges_down", "merges", "parent", wanted)
        session.run(_UP_AND_DOWN, [before_load])
        for statement in _NEXT:
            session.run(statement)
    _climb(session)


def _climb(session: Session) -> None:
    """From `met` and `edges`, make `climbed`.

    Pointer jumping: what is left to climb halves with each round.
    """
    session.run(_CLIMBING)
    session.run(_CLIMBED)
    climb, jump = _JUMP
    while True:
        session.run(climb)
        if not _count(session, "climbed WHERE moved"):
            return
        session.run(jump)


def _count(session: Session, relation: str) -> int:
    return int(session.fetch(f"SELECT count(*) FROM {relation}").column(0)[0].as_py())
