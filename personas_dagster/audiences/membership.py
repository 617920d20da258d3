"""Memberships: who is in, since when, and who entered and exited at a refresh."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from personas_dagster.interfaces import Lake, Session

_CHANGES = """
CREATE OR REPLACE TEMP TABLE member_changes AS
SELECT coalesce(n.audience, b.audience) AS audience,
       coalesce(n.collection, b.collection) AS collection,
       coalesce(n.profile_id, b.profile_id) AS profile_id,
       CASE WHEN b.profile_id IS NULL THEN 'entered' ELSE 'exited' END AS change,
       $1::TIMESTAMPTZ AS at, $1::TIMESTAMPTZ AS as_of, $2 AS run_id, $3::BIGINT AS refresh_id
FROM members_now n FULL JOIN members_before b USING (audience, profile_id)
WHERE n.profile_id IS NULL OR b.profile_id IS NULL
"""
_BEFORE = """
CREATE OR REPLACE TEMP TABLE members_before AS
SELECT m.* FROM members m SEMI JOIN evaluated_audiences USING (audience)
"""
_NOW = """
CREATE OR REPLACE TEMP TABLE members_now AS
SELECT key AS audience, collection, profile_id FROM results WHERE kind = 'audience'
"""
# Audiences that were not evaluated (not due, or their definition is gone) stay as they were.
_TABLE = """
SELECT n.audience, n.collection, n.profile_id, coalesce(b.entered_at, $1::TIMESTAMPTZ) AS entered_at
FROM members_now n LEFT JOIN members_before b USING (audience, profile_id)
UNION ALL
SELECT m.audience, m.collection, m.profile_id, m.entered_at
FROM members m ANTI JOIN evaluated_audiences USING (audience)
ORDER BY audience, profile_id
"""
_MERGED = """
SELECT count(*) FROM audience_memberships a JOIN graph_parents m ON m.child_id = a.profile_id
"""


@dataclass(frozen=True)
class Movement:
    """One audience at one refresh: its size, and how many came and went."""

    size: int
    entered: int
    exited: int


def record_members(
    session: Session,
    lake: Lake,
    audiences: Mapping[str, str],
    *,
    as_of: dt.datetime,
    refresh_id: int,
    run_id: str,
) -> dict[str, Movement]:
    """Compare `results` with `members`, append the changes and rewrite the memberships if any.

    `audiences` maps the keys that were evaluated to their collections. A merge moves a
    membership: `members` is led through the graph's parents already.
    """
    session.register(
        "evaluated_audiences", pa.table({"audience": pa.array(sorted(audiences), pa.string())})
    )
    session.run(_BEFORE)
    session.run(_NOW)
    session.run(_CHANGES, [as_of, run_id, refresh_id])
    counted = session.fetch(
        "SELECT audience, change, count(*) AS n FROM member_changes GROUP BY ALL"
    ).to_pylist()
    sizes = session.fetch("SELECT audience, count(*) AS n FROM members_now GROUP BY ALL")
    size = {row["audience"]: row["n"] for row in sizes.to_pylist()}
    moved = {(row["audience"], row["change"]): row["n"] for row in counted}
    if moved:
        lake.append(
            "audience_changes",
            session.stream("SELECT * FROM member_changes ORDER BY audience, profile_id"),
            once=("refresh", refresh_id),
        )
    if moved or session.fetch(_MERGED).column(0)[0].as_py():
        lake.replace("audience_memberships", session.fetch(_TABLE, [as_of]))
    return {
        key: Movement(
            size.get(key, 0), moved.get((key, "entered"), 0), moved.get((key, "exited"), 0)
        )
        for key in audiences
    }
