"""Touched profiles' traits beside what is stored of them: by numbers, which are cheap to compare.

What belongs here: what is stored of the profiles in `touched_ids`, and where `results` differ
from it. A value's place is its profile's number and its key's in one: ids and keys are put back
only where something changed.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import pyarrow as pa

from personas_dagster.interfaces import Session
from personas_dagster.traits import changes

_NUMBERED = """
CREATE OR REPLACE TEMP TABLE compared AS
SELECT p.collection, i.profile_id, i.number * {keys} AS first_place
FROM touched_ids i LEFT JOIN profiles p ON p.profile_id = i.number WHERE i.profile_id = i.root_id
"""
# What is stored of the touched profiles: read once, then led to their roots of now and of then.
_LOG = """
CREATE OR REPLACE TEMP TABLE touched_log AS
SELECT i.number * {keys} + k.number AS place, i.rowid AS stored, l.value,
       2 * l.refresh_id + (i.root_id = l.profile_id)::BIGINT AS newer
FROM computed_traits l JOIN touched_ids i USING (profile_id) JOIN compared_keys k USING (key)
"""
_NOW = """
CREATE OR REPLACE TEMP TABLE trait_now AS
SELECT r.profile_id * {keys} + k.number AS place, r.key, r.value
FROM results r JOIN compared_keys k USING (key)
"""
# Most places have one row in the log, and it says what is so now: only of the others' rows is the
# newest sought.
_DIFFERING = """
CREATE OR REPLACE TEMP TABLE differing AS
SELECT DISTINCT place FROM trait_now n FULL JOIN touched_log l USING (place)
WHERE n.value IS DISTINCT FROM l.value OR l.value = 'null'
"""
_BEFORE = """
CREATE OR REPLACE TEMP TABLE differed AS
SELECT place, arg_max(value, newer) AS value
FROM touched_log SEMI JOIN differing USING (place)
GROUP BY place HAVING arg_max(value, newer) <> 'null'
"""
_CHANGED = """
INSERT INTO trait_changes
SELECT c.collection, c.profile_id, k.key, d.value, $1::TIMESTAMPTZ, NULL, $2::BIGINT
FROM (
    SELECT place, coalesce(n.value, 'null') AS value
    FROM (FROM trait_now SEMI JOIN differing USING (place)) n FULL JOIN differed b USING (place)
    WHERE n.value IS DISTINCT FROM b.value
) d
JOIN compared c ON c.first_place = d.place - d.place % {keys}
JOIN compared_keys k ON k.number = d.place % {keys}
"""
_MOVED_LOG = """
CREATE OR REPLACE TEMP VIEW moved_log AS
SELECT NULL::VARCHAR AS collection, i.profile_id, k.key, l.value, l.newer // 2 AS refresh_id,
       NULL::TIMESTAMPTZ AS updated_at, NULL::VARCHAR AS source_id
FROM touched_log l JOIN touched_ids i ON i.rowid = l.stored
JOIN compared_keys k ON k.number = l.place % {keys}
WHERE l.place // {keys} IN (SELECT number FROM moved)
"""
_HELD_THEN = """
SELECT key, count(*) AS n FROM (
    SELECT k.key FROM (
        SELECT place FROM trait_now ANTI JOIN differing USING (place)
        UNION ALL SELECT place FROM differed
    ) b JOIN compared_keys k ON k.number = b.place % {keys}
    WHERE b.place // {keys} NOT IN (SELECT number FROM moved)
    UNION ALL
    SELECT key FROM traits_then
) GROUP BY key
"""
_HELD = "SELECT key, count(*) AS n FROM trait_now GROUP BY key"


def compare_touched(
    session: Session, keys: Sequence[str], *, at: dt.datetime, refresh_id: int
) -> tuple[dict[str, int], dict[str, int]]:
    """Add to `trait_changes` where `results` of touched profiles differ from `computed_traits`.

    Leaves `trait_now(place, key, value)`. Returns how many touched profiles had a
    value of each key as the graph was at the base, and how many have one now. The session must
    have what `standing.touch` leaves, and `profiles`.
    """
    numbers = {"key": pa.array(keys, pa.string()), "number": pa.array(range(len(keys)), pa.int64())}
    session.register("compared_keys", pa.table(numbers))
    session.view("computed_traits")
    for query in (_NUMBERED, _LOG, _NOW, _DIFFERING, _BEFORE):
        session.run(query.format(keys=len(keys)))
    session.run(_CHANGED.format(keys=len(keys)), [at, refresh_id])
    session.run(_MOVED_LOG.format(keys=len(keys)))
    then = {"name": "traits_then", "log": "moved_log", "roots": "roots_then"}
    changes.current(session, "computed_traits", keys=keys, **then)
    before, now = (
        {row["key"]: row["n"] for row in session.fetch(query.format(keys=len(keys))).to_pylist()}
        for query in (_HELD_THEN, _HELD)
    )
    return before, now
