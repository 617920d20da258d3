"""Desired state minus ledger: which recipients are due, with which value, and why.

Everything here is SQL over relations, connections included, so that the cost is that of a scan
and only changed rows reach Python. What does not belong here: messages, sending, the ledger's
writing.

The session has the graph's relations, `trait_values`, `members` and `ledger`; `Difference`
leaves `sync_changes` (rows to send, and silent rows that only the ledger learns of).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence

import pyarrow as pa

from personas_dagster.activation import aliases, recipients, relations
from personas_dagster.activation.breaker import Size
from personas_dagster.activation.connection import Connection
from personas_dagster.activation.destination import Abilities
from personas_dagster.activation.standing import Standing
from personas_dagster.interfaces import Session

# The last row of each recipient. `is_open`: the tool was told, or may have been, of a value that
# it was not told the end of; only these get an exit.
_LEDGER = """
CREATE OR REPLACE TEMP TABLE sync_ledger AS
WITH last AS (
  SELECT l.connection, l.recipient, max(l.sync_id) AS sync_id,
         arg_max(struct_pack(profile_id := l.profile_id, value := l.value, reason := l.reason,
                             outcome := l.outcome, message_id := l.message_id), l.sync_id) AS row,
         max(l.sync_id) FILTER (
           WHERE l.outcome IN ('unknown', 'failed')
           OR (l.value <> c.exit_value AND l.outcome IN ('confirmed', 'partial'))) AS told_at,
         max(l.sync_id) FILTER (
           WHERE l.value = c.exit_value AND l.outcome IN ('confirmed', 'partial')) AS ended_at
  FROM ledger l
  JOIN sync_connections c
    ON c.destination = l.destination AND c.connection = l.connection AND c.key = l.key
  WHERE l.recipient IN (
    SELECT recipient FROM sync_recipients UNION ALL SELECT recipient FROM sync_told)
  GROUP BY l.connection, l.recipient
)
SELECT l.connection, l.recipient, l.row.profile_id AS profile_id, l.row.value AS value,
       l.row.reason AS reason, l.row.outcome AS outcome, l.row.message_id AS message_id,
       coalesce(r.root_id, l.row.profile_id) AS root_id,
       l.sync_id, coalesce(l.told_at > coalesce(l.ended_at, -1), false) AS is_open
FROM last l LEFT JOIN graph_roots r ON r.profile_id = l.row.profile_id
"""

_DUE = """
CREATE OR REPLACE TEMP TABLE sync_due AS
SELECT v.connection, v.profile_id, v.collection, v.account_id, v.value, v.mark,
       r.recipient, r.newest_type, r.newest_value,
       l.recipient IS NOT NULL AS is_recorded, coalesce(l.value = v.value, false) AS is_again,
       coalesce(l.outcome NOT IN ('unknown', 'failed'), false) AS is_settled,
       l.profile_id AS ledger_profile_id, l.reason AS ledger_reason, l.message_id
FROM sync_values v
JOIN sync_connections c ON c.connection = v.connection
JOIN sync_recipients r ON r.profile_id = v.profile_id AND r.emails = v.email
LEFT JOIN sync_ledger l ON l.connection = v.connection AND l.recipient = r.recipient
WHERE l.recipient IS NULL OR l.value <> v.value OR l.outcome IN ('unknown', 'failed')
   OR l.sync_id < c.resync_from
"""

# Values that some recipient of the profile already has: then the recipient is what is new.
_KNOWN = """
CREATE OR REPLACE TEMP TABLE sync_known AS
SELECT l.connection, l.root_id, l.value, bool_or(l.outcome <> 'baseline') AS is_sent
FROM sync_ledger l
SEMI JOIN sync_due d ON d.connection = l.connection AND d.profile_id = l.root_id
GROUP BY l.connection, l.root_id, l.value
"""

_LINKED = """
CREATE OR REPLACE TEMP TABLE sync_known_accounts AS
WITH told AS (
  SELECT l.connection, l.root_id FROM sync_ledger l
  JOIN sync_connections c ON c.connection = l.connection
  WHERE c.collection = 'accounts' AND l.value <> c.exit_value
  UNION
  SELECT v.connection, v.profile_id FROM sync_all v
  JOIN sync_connections c ON c.connection = v.connection
  ANTI JOIN sync_touched t ON t.connection = v.connection AND t.profile_id = v.profile_id
  WHERE c.collection = 'accounts'
)
SELECT connection, root_id AS account_id FROM told
UNION
SELECT t.connection, g.account_profile_id
FROM told t JOIN graph_links g ON g.user_profile_id = t.root_id
"""

_JOINED = """
SELECT count(*) AS n FROM sync_due d
SEMI JOIN sync_known k
  ON k.connection = d.connection AND k.root_id = d.profile_id AND k.value = d.value
WHERE NOT d.is_recorded
"""

# Identifiers of due recipients that were first attached to a profile that was merged since.
_CAME_BY_MERGE = """
CREATE OR REPLACE TEMP TABLE sync_merged AS
SELECT DISTINCT d.profile_id, d.recipient
FROM sync_due d
JOIN sync_origins o
  ON o.type = d.newest_type AND o.value = d.newest_value AND o.collection = d.collection
WHERE o.profile_id <> d.profile_id
"""

_ENTRIES = """
CREATE OR REPLACE TEMP TABLE sync_changes AS
SELECT d.connection, d.profile_id, d.collection, d.recipient, d.value, c.exit_value,
       CASE
         WHEN d.is_again AND d.is_settled THEN 'resync'
         WHEN d.is_again THEN d.ledger_reason
         WHEN NOT d.is_recorded AND k.root_id IS NOT NULL
           THEN CASE WHEN m.recipient IS NOT NULL THEN 'merge' ELSE 'new_identifier' END
         WHEN k.root_id IS NOT NULL AND d.ledger_profile_id <> d.profile_id THEN 'merge'
         WHEN NOT d.is_recorded AND c.is_first THEN 'backfill'
         WHEN NOT d.is_recorded AND a.account_id IS NOT NULL THEN 'linked'
         WHEN c.kind = 'audience' THEN 'entered'
         ELSE 'changed'
       END AS reason,
       CASE WHEN d.is_again AND NOT d.is_settled THEN d.message_id END AS message_id, d.mark,
       NOT d.is_recorded AND CASE
         WHEN k.root_id IS NULL THEN c.is_first AND NOT c.backfill
         ELSE NOT (k.is_sent AND c.resend AND d.newest_type IN (SELECT type FROM sync_matches))
       END AS is_silent
FROM sync_due d
JOIN sync_connections c ON c.connection = d.connection
LEFT JOIN sync_known k
  ON k.connection = d.connection AND k.root_id = d.profile_id AND k.value = d.value
LEFT JOIN sync_merged m ON m.profile_id = d.profile_id AND m.recipient = d.recipient
LEFT JOIN sync_known_accounts a
  ON a.connection = d.connection AND a.account_id = d.account_id
"""

_GONE = """
CREATE OR REPLACE TEMP TABLE sync_gone AS
SELECT l.*, c.kind, c.exit_value
FROM sync_ledger l
JOIN sync_connections c ON c.connection = l.connection
ANTI JOIN sync_all v ON v.connection = l.connection AND v.profile_id = l.root_id
WHERE CASE WHEN l.is_open
           THEN NOT (l.value = c.exit_value AND l.outcome IN ('confirmed', 'partial', 'rejected'))
           ELSE l.outcome = 'baseline' AND l.value <> c.exit_value END
"""

# A recipient whose identifiers another profile that stays holds now is not told of an exit; then
# the profile has not ended for good, and is looked at again.
_EXITS = """
INSERT INTO sync_changes
WITH held AS (
  SELECT g.connection, g.recipient, g.root_id
  FROM sync_gone g
  SEMI JOIN (
    SELECT v.connection, r.recipient
    FROM (SELECT * FROM sync_recipients SEMI JOIN sync_gone USING (recipient)) r
    JOIN sync_values v ON v.profile_id = r.profile_id AND v.email = r.emails
  ) w ON w.connection = g.connection AND w.recipient = g.recipient
)
SELECT g.connection, g.root_id,
       CASE WHEN starts_with(g.recipient, '{"group_id":') THEN 'accounts' ELSE 'users' END,
       g.recipient, g.exit_value, g.exit_value,
       CASE WHEN g.value = g.exit_value THEN g.reason
            WHEN g.kind = 'audience' THEN 'exited' ELSE 'changed' END,
       CASE WHEN g.value = g.exit_value THEN g.message_id END,
       CASE WHEN (g.connection, g.root_id) NOT IN (SELECT (connection, root_id) FROM held) THEN 0
            END,
       NOT g.is_open
FROM sync_gone g
ANTI JOIN held w ON w.connection = g.connection AND w.recipient = g.recipient
"""

_DUE_COUNTS = """
SELECT connection, reason, count(*) AS n FROM sync_changes WHERE NOT is_silent
GROUP BY connection, reason ORDER BY connection, reason
"""

_NOT_SENDABLE = """
SELECT v.connection, count(*) AS n,
       CASE WHEN v.collection = 'accounts' THEN 'no_group_id'
            WHEN a.is_anonymous THEN 'only_anonymous'
            ELSE 'no_identifier' END AS reason
FROM sync_values v
ANTI JOIN sync_recipients r ON r.profile_id = v.profile_id AND r.emails = v.email
LEFT JOIN (
  SELECT profile_id, bool_and(type = 'anonymous_id') AS is_anonymous FROM graph_identifiers
  WHERE profile_id IN (SELECT profile_id FROM sync_values)
  GROUP BY profile_id
) a ON a.profile_id = v.profile_id
GROUP BY ALL ORDER BY ALL
"""

# Of the profiles that were looked at: those that were told before, and those that change.
_SIZES = """
WITH before AS (
  SELECT DISTINCT l.connection, l.root_id AS profile_id
  FROM sync_ledger l
  JOIN sync_connections c ON c.connection = l.connection
  SEMI JOIN sync_touched t ON t.connection = l.connection AND t.profile_id = l.root_id
  WHERE l.value <> c.exit_value AND l.outcome <> 'rejected'
),
moved AS (
  SELECT DISTINCT connection, profile_id, value = exit_value AS is_exit FROM sync_changes
  WHERE NOT starts_with(recipient, '{"previous_id":')
)
SELECT c.connection,
       (SELECT count(*) FROM before b WHERE b.connection = c.connection) AS before,
       (SELECT count(*) FROM moved m
        LEFT JOIN before b ON b.connection = m.connection AND b.profile_id = m.profile_id
        WHERE m.connection = c.connection AND m.is_exit = (b.profile_id IS NOT NULL)) AS changed
FROM sync_connections c ORDER BY c.connection
"""

_ENRICHED = """
CREATE OR REPLACE TEMP TABLE sync_enriched AS
WITH wanted AS (
  SELECT DISTINCT s.connection, s.profile_id, e.key
  FROM sync_changes s JOIN sync_enrich e ON e.connection = s.connection
  WHERE NOT s.is_silent
),
found AS (
  SELECT w.connection, w.profile_id, w.key,
         min(struct_pack(class := t.class, value := t.value)).value AS value
  FROM wanted w JOIN trait_values t ON t.profile_id = w.profile_id AND t.key = w.key
  WHERE t.value IS NOT NULL
  GROUP BY w.connection, w.profile_id, w.key
)
SELECT connection, profile_id,
       CAST('{' || string_agg(to_json(key) || ':' || value, ',' ORDER BY key) || '}' AS VARCHAR)
         AS traits
FROM found GROUP BY connection, profile_id
"""

_CHANGES = """
WITH sponsors AS (
  SELECT l.account_profile_id AS profile_id, min(i.value) AS user_id
  FROM graph_links l
  JOIN graph_identifiers i ON i.profile_id = l.user_profile_id AND i.type = 'user_id'
  WHERE EXISTS (SELECT 1 FROM sync_connections WHERE collection = 'accounts')
  GROUP BY l.account_profile_id
)
SELECT s.connection, s.profile_id, s.collection, s.recipient, s.value, s.reason, s.message_id,
       s.mark, e.traits, u.user_id
FROM sync_changes s
LEFT JOIN sync_enriched e ON e.connection = s.connection AND e.profile_id = s.profile_id
LEFT JOIN sponsors u ON u.profile_id = s.profile_id AND s.collection = 'accounts'
WHERE NOT s.is_silent AND s.connection NOT IN (SELECT connection FROM sync_held)
ORDER BY s.connection, s.profile_id, s.recipient
"""

# What goes along with rows that are sent says nothing of those.
_SILENT = """
SELECT c.destination, s.connection, c.key, s.profile_id, s.recipient, s.value, s.reason,
       'baseline' AS outcome, CAST(NULL AS VARCHAR) AS detail, CAST(NULL AS VARCHAR) AS message_id,
       CAST(? AS BIGINT) AS refresh_id, CAST(? AS BIGINT) AS sync_id,
       CAST(? AS TIMESTAMPTZ) AS confirmed_at,
       CASE WHEN o.profile_id IS NULL THEN s.mark END AS mark
FROM sync_changes s JOIN sync_connections c ON c.connection = s.connection
LEFT JOIN (SELECT DISTINCT connection, profile_id FROM sync_changes WHERE NOT is_silent) o
  ON o.connection = s.connection AND o.profile_id = s.profile_id
WHERE s.is_silent AND s.connection NOT IN (SELECT connection FROM sync_held)
"""

_SILENT_COUNT = """
SELECT count(*) AS n FROM sync_changes s
WHERE s.is_silent AND s.connection NOT IN (SELECT connection FROM sync_held)
"""


# They are as large as what is due; sending takes long, and needs none of them.
_DONE_WITH = (
    "sync_prints",
    "sync_all",
    "sync_values",
    "sync_recipients",
    "sync_ledger",
    "sync_told",
    "sync_known",
    "sync_known_accounts",
    "sync_merged",
    "sync_gone",
)


class Difference:
    """The changes that are due, found when it is made; they stay in the session's tables."""

    def __init__(
        self,
        session: Session,
        connections: Sequence[Connection],
        abilities: Abilities,
        *,
        first: frozenset[str],
        resync: Mapping[str, int] | None = None,
    ) -> None:
        self._session = session
        relations.register(session, connections, abilities, first=first, resync=resync or {})
        self._standing = standing = Standing(
            session, dated=any(c.email != "all" for c in connections)
        )
        recipients.find(session)
        for statement in (_LEDGER, _DUE, _KNOWN, _LINKED):
            session.run(statement)
        if session.fetch(_JOINED).column("n")[0].as_py():
            session.view("sync_origins", "identifiers")
        else:
            session.register("sync_origins", _ORIGINS.empty_table())
        for statement in (_CAME_BY_MERGE, _ENTRIES, "DROP TABLE sync_due", _GONE, _EXITS):
            session.run(statement)
        if any(c.alias for c in connections):
            aliases.find(session)
        session.run(_ENRICHED)
        self.due: dict[str, dict[str, int]] = {c.name: {} for c in connections}
        for row in session.fetch(_DUE_COUNTS).to_pylist():
            self.due[row["connection"]][row["reason"]] = row["n"]
        self.not_sendable: dict[str, dict[str, int]] = {c.name: {} for c in connections}
        for row in session.fetch(_NOT_SENDABLE).to_pylist():
            self.not_sendable[row["connection"]][row["reason"]] = row["n"]
        self.sizes = {
            row["connection"]: Size(
                standing.standing[row["connection"]] + row["before"],
                standing.members[row["connection"]],
                row["changed"],
            )
            for row in session.fetch(_SIZES).to_pylist()
        }
        self.notes = standing.note()
        session.run("DROP VIEW sync_marked")
        for name in _DONE_WITH:
            session.run(f"DROP TABLE {name}")

    def hold(self, connections: Sequence[str]) -> None:
        """Leave these connections out of what `changes` and `silent` return."""
        self._session.register(
            "sync_held", pa.table({"connection": pa.array(list(connections), pa.string())})
        )

    def changes(self) -> pa.RecordBatchReader:
        """Rows to send, one per recipient; those of one profile stand together."""
        return self._session.stream(_CHANGES)

    @property
    def silent_rows(self) -> int:
        """How many rows `silent` has."""
        count: int = self._session.fetch(_SILENT_COUNT).column("n")[0].as_py()
        return count

    def silent(self, *, refresh_id: int, sync_id: int, at: dt.datetime) -> pa.RecordBatchReader:
        """Rows for the ledger that are not sent, such as values older than the connection."""
        return self._session.stream(_SILENT, [refresh_id, sync_id, at])

    def noted(self, *, refresh_id: int, sync_id: int, at: dt.datetime) -> pa.RecordBatchReader:
        """Rows for the ledger about profiles that moved, with nothing due to them."""
        return self._standing.notes(refresh_id=refresh_id, sync_id=sync_id, at=at)


_ORIGINS = pa.schema(
    [(name, pa.string()) for name in ("collection", "type", "value", "profile_id")]
)
