"""Which profiles stand as the ledger left them, so that nothing else is done about them.

Each row of the ledger carries a mark: a hash of the profile's value and of the identifiers that
the destination knows people by, as they were when the row was written. A profile whose newest mark
is the one that it has now was told all there is to tell. One scan of the members, of their
identifiers and of the ledger finds the others; recipients are built for those alone.

What belongs here: finding profiles that may have something due. It may find too many, never too
few. What is due to them is `difference.py`'s to say.

A mark is 0 where the end was told to all of a profile's recipients, and empty where the row says
nothing about the others. Rows that did not end well (`failed`, `unknown`, `rejected`) make a
profile moved whatever their mark. Of what a profile's rows of one sync say, the worst holds: all
that was due to it was written by the same sync.
"""

from __future__ import annotations

import datetime as dt

import pyarrow as pa

from personas_dagster.interfaces import Session

# Fewer moved profiles than this, with nothing due, cost less than a commit to note them.
NOTE_FROM = 1_000

# connection, profile, value: members and values now. Accounts stand for themselves in the group
# form, and for their linked users in the others; of several accounts' traits the first counts.
_ALL = """
CREATE OR REPLACE TEMP TABLE sync_all AS
WITH found AS (
  SELECT c.connection, m.profile_id, 'true' AS value
  FROM sync_connections c
  JOIN members m ON m.audience = c.key AND m.collection = c.collection
  WHERE c.kind = 'audience'
  UNION ALL
  SELECT c.connection, t.profile_id, t.value
  FROM sync_connections c
  JOIN trait_values t ON t.class = c.kind AND t.key = c.key AND t.collection = c.collection
  WHERE c.kind <> 'audience' AND t.value IS NOT NULL AND t.value <> 'null'
)
SELECT f.connection, f.profile_id, f.value, c.collection, CAST(NULL AS VARCHAR) AS account_id
FROM found f JOIN sync_connections c ON c.connection = f.connection
WHERE c.collection = 'users' OR c.to_accounts
UNION ALL
SELECT f.connection, l.user_profile_id, arg_min(f.value, f.profile_id), 'users',
       min(f.profile_id)
FROM found f
JOIN sync_connections c ON c.connection = f.connection
JOIN graph_links l ON l.account_profile_id = f.profile_id
WHERE c.collection = 'accounts' AND c.to_users
GROUP BY f.connection, l.user_profile_id
"""

# What is known of a profile's identifiers, in one number. Two profiles of one hash share theirs,
# and move together. When an e-mail was seen first matters where one is chosen by that.
_PRINTS = """
CREATE OR REPLACE TEMP TABLE sync_prints AS
SELECT hash(profile_id) AS h, bit_xor(hash(type, value)) AS print
FROM graph_identifiers
WHERE (type = 'email' OR type IN (SELECT type FROM sync_matches))
GROUP BY 1
"""
_PRINTS_DATED = _PRINTS.replace(
    "hash(type, value)", "hash(type, value, CASE WHEN type = 'email' THEN first_seen_at END)"
)
_FEW = "\n  AND hash(profile_id) IN (SELECT hash(profile_id) FROM sync_all)\nGROUP BY 1"
# Picking the members' identifiers pays where most profiles are none of them.
_MOST = """
SELECT 5 * (SELECT count(*) FROM sync_all) > (SELECT count(*) FROM graph_roots) AS most
"""

_MARKED = """
CREATE OR REPLACE TEMP VIEW sync_marked AS
SELECT v.*,
       greatest(CAST(hash(c.seed, v.profile_id, v.value, coalesce(p.print, 0)) >> 1 AS BIGINT), 1)
         AS mark
FROM sync_all v
JOIN sync_connections c ON c.connection = v.connection
LEFT JOIN sync_prints p ON p.h = hash(v.profile_id)
"""

# The newest mark of each profile; -1 where something is still to be looked at.
_LAST = """
CREATE OR REPLACE TEMP TABLE sync_last AS
SELECT l.connection, l.profile_id,
       arg_max(CASE WHEN c.resync_from > 0 OR l.outcome IN ('failed', 'unknown', 'rejected') THEN -1
                    ELSE coalesce(l.mark, -1) END,
               l.sync_id * 4 + CASE WHEN l.outcome IN ('failed', 'unknown', 'rejected') THEN 2
                                    WHEN l.mark IS NULL THEN 0 ELSE 1 END) AS mark
FROM ledger l
JOIN sync_connections c
  ON c.destination = l.destination AND c.connection = l.connection AND c.key = l.key
GROUP BY l.connection, l.profile_id
"""

# Profiles with a value that they were not told, and profiles of the ledger that have none.
_APART = """
CREATE OR REPLACE TEMP TABLE sync_apart AS
SELECT coalesce(v.connection, l.connection) AS connection,
       coalesce(v.profile_id, l.profile_id) AS profile_id, v.mark, v.profile_id IS NULL AS is_past
FROM sync_marked v
FULL JOIN sync_last l
  ON l.connection = v.connection AND l.profile_id = v.profile_id AND l.mark = v.mark
WHERE (v.profile_id IS NULL AND l.mark <> 0) OR l.profile_id IS NULL
"""

_ROOTS = """
CREATE OR REPLACE TEMP TABLE sync_merged_away AS
SELECT profile_id, root_id FROM graph_roots WHERE profile_id <> root_id
"""

_TOUCHED = """
CREATE OR REPLACE TEMP TABLE sync_touched AS
SELECT DISTINCT a.connection, coalesce(m.root_id, a.profile_id) AS profile_id
FROM sync_apart a LEFT JOIN sync_merged_away m ON m.profile_id = a.profile_id
"""

# Recipients that these profiles, or those merged into them, were ever told by.
_TOLD = """
CREATE OR REPLACE TEMP TABLE sync_told AS
WITH names AS (
  SELECT connection, profile_id, profile_id AS root_id FROM sync_touched
  UNION ALL
  SELECT t.connection, m.profile_id, m.root_id
  FROM sync_touched t JOIN sync_merged_away m ON m.root_id = t.profile_id
)
SELECT DISTINCT l.connection, l.recipient, n.root_id
FROM ledger l
JOIN sync_connections c
  ON c.destination = l.destination AND c.connection = l.connection AND c.key = l.key
JOIN names n ON n.connection = l.connection AND n.profile_id = l.profile_id
WHERE l.recipient IS NOT NULL
"""

# Profiles that stay and hold an identifier now that a profile which goes was told by.
_HOLDERS = """
INSERT INTO sync_touched
WITH gone AS (
  SELECT t.connection, t.recipient, json_keys(t.recipient)[1] AS type
  FROM sync_told t
  ANTI JOIN sync_all v ON v.connection = t.connection AND v.profile_id = t.root_id
)
SELECT DISTINCT v.connection, v.profile_id
FROM gone g
JOIN graph_identifiers i
  ON i.type = g.type AND i.value = json_extract_string(g.recipient, '$."' || g.type || '"')
JOIN sync_all v ON v.connection = g.connection AND v.profile_id = i.profile_id
ANTI JOIN sync_touched t ON t.connection = v.connection AND t.profile_id = v.profile_id
"""

_VALUES = """
CREATE OR REPLACE TEMP TABLE sync_values AS
SELECT v.connection, v.profile_id, v.value, v.collection, v.account_id, v.mark, c.email
FROM sync_marked v
JOIN sync_touched t ON t.connection = v.connection AND t.profile_id = v.profile_id
JOIN sync_connections c ON c.connection = v.connection
"""

_STANDING = """
SELECT c.connection, coalesce(v.n, 0) AS members, coalesce(v.n, 0) - coalesce(t.n, 0) AS standing
FROM sync_connections c
LEFT JOIN (SELECT connection, count(*) AS n FROM sync_all GROUP BY 1) v
  ON v.connection = c.connection
LEFT JOIN (SELECT connection, count(*) AS n FROM sync_values GROUP BY 1) t
  ON t.connection = c.connection
"""

# Moved, and nothing is due: they are noted, so that the next sync passes over them.
_NOTES = """
CREATE OR REPLACE TEMP TABLE sync_notes AS
SELECT v.connection, v.profile_id, v.mark
FROM sync_values v
JOIN sync_apart a ON a.connection = v.connection AND a.profile_id = v.profile_id AND NOT a.is_past
ANTI JOIN sync_changes s ON s.connection = v.connection AND s.profile_id = v.profile_id
SEMI JOIN (
  SELECT l.connection, l.root_id FROM sync_ledger l
  JOIN sync_connections c ON c.connection = l.connection
  WHERE l.value <> c.exit_value AND l.outcome <> 'rejected'
) l ON l.connection = v.connection AND l.root_id = v.profile_id
UNION ALL
SELECT a.connection, a.profile_id, 0
FROM sync_apart a
LEFT JOIN sync_merged_away m ON m.profile_id = a.profile_id
ANTI JOIN sync_gone g
  ON g.connection = a.connection AND g.root_id = coalesce(m.root_id, a.profile_id)
ANTI JOIN sync_all v ON v.connection = a.connection AND v.profile_id = a.profile_id
WHERE a.is_past
"""

_NOTED = """
SELECT c.destination, n.connection, c.key, n.profile_id, 'noted' AS outcome,
       CAST(? AS BIGINT) AS refresh_id, CAST(? AS BIGINT) AS sync_id,
       CAST(? AS TIMESTAMPTZ) AS confirmed_at, n.mark
FROM sync_notes n JOIN sync_connections c ON c.connection = n.connection
WHERE n.connection NOT IN (SELECT connection FROM sync_held)
"""


class Standing:
    """Leaves `sync_values`: the members and values of profiles that may have something due, and
    `sync_marked`, the same of all.

    `members` counts all of a connection, `standing` those that are passed over. The session has
    `sync_connections` and `sync_matches`.
    """

    def __init__(self, session: Session, *, dated: bool) -> None:
        self._session = session
        session.run(_ALL)
        prints = _PRINTS_DATED if dated else _PRINTS
        if not session.fetch(_MOST).column("most")[0].as_py():
            prints = prints.replace("\nGROUP BY 1", _FEW)
        session.run(prints)
        for statement in (_MARKED, _LAST, _APART, _ROOTS, _TOUCHED, _TOLD, _HOLDERS, _VALUES):
            session.run(statement)
        session.run("DROP TABLE sync_last")
        rows = session.fetch(_STANDING).to_pylist()
        self.members: dict[str, int] = {row["connection"]: row["members"] for row in rows}
        self.standing: dict[str, int] = {row["connection"]: row["standing"] for row in rows}

    def note(self) -> int:
        """Find what is to be noted, once `difference.py` said what is due; returns how much."""
        self._session.run(_NOTES)
        table = self._session.fetch("SELECT count(*) AS n FROM sync_notes")
        count: int = table.column("n")[0].as_py()
        return count

    def notes(self, *, refresh_id: int, sync_id: int, at: dt.datetime) -> pa.RecordBatchReader:
        """Rows for the ledger."""
        return self._session.stream(_NOTED, [refresh_id, sync_id, at])
