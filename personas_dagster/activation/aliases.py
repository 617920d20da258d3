"""Merges that a tool is told of: an alias for each merged profile of a connection, once.

The ledger remembers an alias under a recipient of its own, which starts with `previous_id`; its
value is the connection's exit value, so that it is never taken for something to end.
"""

from __future__ import annotations

from personas_dagster.interfaces import Session

# A profile's first user id or anonymous id, as it was before it was merged.
_FIRST = """
CREATE OR REPLACE TEMP TABLE sync_first_ids AS
SELECT profile_id, type, arg_min(value, (first_seen_at, value)) AS value
FROM sync_stored_identifiers
WHERE collection = 'users' AND type IN ('user_id', 'anonymous_id')
  AND profile_id IN (SELECT profile_id FROM sync_merged_away
                     UNION ALL SELECT root_id FROM sync_merged_away)
GROUP BY profile_id, type
"""

# A parent without a user id of its own goes by the first that came to it.
_PARENTS = """
CREATE OR REPLACE TEMP TABLE sync_parents AS
SELECT i.profile_id, coalesce(min(f.value), arg_min(i.value, (i.first_seen_at, i.value))) AS user_id
FROM graph_identifiers i
LEFT JOIN sync_first_ids f ON f.profile_id = i.profile_id AND f.type = 'user_id'
WHERE i.type = 'user_id' AND i.profile_id IN (SELECT root_id FROM sync_merged_away)
GROUP BY i.profile_id
"""

_TOLD = """
CREATE OR REPLACE TEMP TABLE sync_told_aliases AS
SELECT l.connection, json_extract_string(l.recipient, '$.previous_id') AS previous_id,
       arg_max(struct_pack(outcome := l.outcome, recipient := l.recipient, reason := l.reason,
                           message_id := l.message_id), l.sync_id) AS row
FROM ledger l
JOIN sync_connections c
  ON c.destination = l.destination AND c.connection = l.connection AND c.key = l.key
WHERE c.alias AND starts_with(l.recipient, '{"previous_id":')
GROUP BY ALL
"""

_ALIASES = """
INSERT INTO sync_changes
WITH found AS (
  SELECT v.connection, v.profile_id, v.mark, c.exit_value,
         c.is_first AND NOT c.backfill AS is_silent,
         coalesce(u.value, a.value) AS previous_id, p.user_id
  FROM sync_connections c
  JOIN sync_marked v ON v.connection = c.connection
  JOIN sync_merged_away m ON m.root_id = v.profile_id
  JOIN sync_parents p ON p.profile_id = v.profile_id
  LEFT JOIN sync_first_ids u ON u.profile_id = m.profile_id AND u.type = 'user_id'
  LEFT JOIN sync_first_ids a ON a.profile_id = m.profile_id AND a.type = 'anonymous_id'
  WHERE c.alias AND v.collection = 'users'
),
written AS (
  SELECT DISTINCT f.*,
         CAST('{"previous_id":' || to_json(f.previous_id) || ',"user_id":' || to_json(f.user_id)
              || '}' AS VARCHAR) AS recipient
  FROM found f WHERE f.previous_id IS NOT NULL AND f.previous_id <> f.user_id
)
SELECT w.connection, w.profile_id, 'users', w.recipient, w.exit_value, w.exit_value, 'merge',
       CASE WHEN t.row.recipient = w.recipient THEN t.row.message_id END, w.mark, w.is_silent
FROM written w
LEFT JOIN sync_told_aliases t ON t.connection = w.connection AND t.previous_id = w.previous_id
WHERE t.row IS NULL OR t.row.outcome IN ('unknown', 'failed')
"""


def find(session: Session) -> None:
    """Add the aliases that are due to `sync_changes`."""
    session.view("sync_stored_identifiers", "identifiers")
    for statement in (_FIRST, _PARENTS, _TOLD, _ALIASES):
        session.run(statement)
