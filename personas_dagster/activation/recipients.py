"""Whom a profile is sent to: a user id with an e-mail, or each value of the best type it has.

What belongs here: recipients as they are now. What does not: those that were told before, which
the ledger has, and what is due to them (`difference.py`).
"""

from __future__ import annotations

from personas_dagster.interfaces import Session

_IDENTIFIERS = """
CREATE OR REPLACE TEMP TABLE sync_identifiers AS
WITH people AS (SELECT DISTINCT profile_id, collection, email FROM sync_values),
found AS (
  SELECT p.profile_id, p.collection, p.email AS emails, i.type, i.value, i.first_seen_at
  FROM people p
  JOIN graph_identifiers i ON i.profile_id = p.profile_id AND i.collection = p.collection
  WHERE i.type = 'email' OR i.type IN (SELECT type FROM sync_matches)
)
SELECT * FROM found WHERE type <> 'email' OR emails = 'all'
UNION ALL
SELECT profile_id, collection, emails, 'email',
       CASE WHEN emails = 'first'
            THEN min(struct_pack(at := first_seen_at, value := value)).value
            ELSE max(struct_pack(at := first_seen_at, value := value)).value END,
       CASE WHEN emails = 'first' THEN min(first_seen_at) ELSE max(first_seen_at) END
FROM found
WHERE type = 'email' AND emails <> 'all'
GROUP BY profile_id, collection, emails
"""

# A recipient is a user id with an e-mail, or each value of the best type that the profile has.
# `newest` is the identifier that came last, by which a recipient is new.
_RECIPIENTS = """
CREATE OR REPLACE TEMP TABLE sync_recipients AS
WITH known AS (
  SELECT i.profile_id, i.emails, i.type, i.value, i.first_seen_at, m.rank
  FROM sync_identifiers i
  JOIN sync_matches m ON m.type = i.type AND m.collection = i.collection
),
others AS (
  SELECT k.* FROM known k
  ANTI JOIN (SELECT * FROM known WHERE rank = 0) f
    ON f.profile_id = k.profile_id AND f.emails = k.emails
),
best AS (SELECT profile_id, emails, min(rank) AS rank FROM others GROUP BY profile_id, emails),
chosen AS (
  SELECT * FROM known WHERE rank = 0
  UNION ALL
  SELECT k.* FROM others k
  JOIN best b ON b.profile_id = k.profile_id AND b.emails = k.emails AND b.rank = k.rank
)
SELECT c.profile_id, c.emails,
       CAST('{' || to_json(c.type) || ':' || to_json(c.value)
            || coalesce(',"email":' || to_json(e.value), '') || '}' AS VARCHAR) AS recipient,
       CASE WHEN e.first_seen_at >= c.first_seen_at THEN 'email' ELSE c.type END AS newest_type,
       CASE WHEN e.first_seen_at >= c.first_seen_at THEN e.value ELSE c.value END AS newest_value
FROM chosen c
LEFT JOIN (SELECT * FROM sync_identifiers WHERE type = 'email') e
  ON c.type = 'user_id' AND e.profile_id = c.profile_id AND e.emails = c.emails
"""


def find(session: Session) -> None:
    """Leaves `sync_recipients`, of the profiles in `sync_values`."""
    for statement in (_IDENTIFIERS, _RECIPIENTS, "DROP TABLE sync_identifiers"):
        session.run(statement)
