"""Custom traits of merged profiles, for keys whose policy is another than `newest`.

What the parent says, and what anybody said once merged into it, is the parent's own. A child's
value is the newest that it had before it was merged.
- `parent`: the parent's own value if it has one, else the newest of the children's
- `oldest`: of the parent's own value and those that children brought, the oldest. What is said
  after a merge is news about one person, and replaces what was settled by it.
"""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from personas_dagster.interfaces import Session

# Each child beside its root, and when the profile that held it then came under the root.
_HOPS = """
CREATE OR REPLACE TEMP TABLE conflict_hops AS
SELECT child_id AS profile_id, parent_id AS root_id, merged_at AS joined_at FROM merges
"""
_OPEN = "SELECT count(*) FROM conflict_hops h JOIN conflict_hops u ON u.profile_id = h.root_id"
_JUMP = """
CREATE OR REPLACE TEMP TABLE conflict_hops AS
SELECT h.profile_id, coalesce(u.root_id, h.root_id) AS root_id,
       coalesce(u.joined_at, h.joined_at) AS joined_at
FROM conflict_hops h LEFT JOIN conflict_hops u ON u.profile_id = h.root_id
"""
_SAID = """
CREATE OR REPLACE TEMP TABLE conflict_said AS
SELECT s.collection, coalesce(h.root_id, s.profile_id) AS root_id, s.key, p.policy,
       CASE WHEN s.received_at < h.joined_at THEN s.profile_id END AS child_id,
       any_value(h.joined_at) AS joined_at, max(s.received_at) AS last,
       arg_max(struct_pack(value := s.value, timestamp := s.timestamp, source_id := s.source_id),
               (s.timestamp, s.received_at, s.message_id, s.place)) AS newest,
       max((s.timestamp, s.received_at, s.message_id, s.place)) AS at
FROM said s JOIN conflict_policies p ON p.key = s.key
LEFT JOIN conflict_hops h ON h.profile_id = s.profile_id
WHERE s.profile_id IN (SELECT profile_id FROM conflict_hops)
   OR s.profile_id IN (SELECT root_id FROM conflict_hops)
GROUP BY ALL
"""
_SETTLED = """
CREATE OR REPLACE TEMP TABLE conflict_settled AS
WITH said AS (
    SELECT * FROM conflict_said WHERE newest.value IS NOT NULL AND newest.value <> 'null'
),
own AS (SELECT * FROM conflict_said WHERE child_id IS NULL)
SELECT s.collection, s.root_id AS profile_id, s.key,
       CASE WHEN s.policy = 'oldest' THEN arg_min(s.newest, s.at)
            ELSE coalesce(any_value(s.newest) FILTER (s.child_id IS NULL),
                          arg_max(s.newest, s.at)) END AS settled
FROM said s
LEFT JOIN own o ON o.collection = s.collection AND o.root_id = s.root_id AND o.key = s.key
WHERE s.policy = 'parent' OR s.child_id IS NULL OR o.last IS NULL OR o.last < s.joined_at
GROUP BY s.collection, s.root_id, s.key, s.policy
"""
_PUT = (
    """
    DELETE FROM custom_now c USING conflict_said s
    WHERE s.collection = c.collection AND s.root_id = c.profile_id AND s.key = c.key
    """,
    """
    INSERT INTO custom_now (collection, profile_id, key, value, updated_at, source_id)
    SELECT collection, profile_id, key, settled.value, settled.timestamp, settled.source_id
    FROM conflict_settled
    """,
)


def settle(session: Session, policies: Mapping[str, str]) -> None:
    """Put into `custom_now` what these keys' policies say, for profiles that were merged.

    The session has `said`, `custom_now` and the graph's relations.
    """
    chosen = {key: policy for key, policy in policies.items() if policy != "newest"}
    if not chosen:
        return
    columns = [pa.array(list(chosen), pa.string()), pa.array(list(chosen.values()), pa.string())]
    session.register("conflict_policies", pa.table(columns, names=["key", "policy"]))
    session.run(_HOPS)
    while session.fetch(_OPEN).column(0)[0].as_py():
        session.run(_JUMP)
    for statement in (_SAID, _SETTLED, *_PUT):
        session.run(statement)
