"""The graph as one record per profile."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from personas_dagster.interfaces import Session

_PROFILES = """
SELECT p.profile_id, coalesce(i.ids, []) AS external_ids, coalesce(c.merged, []) AS merged
FROM graph_profiles p
LEFT JOIN (SELECT profile_id, list({'type': type, 'id': value} ORDER BY type, value) AS ids
           FROM graph_identifiers WHERE collection = $1 GROUP BY profile_id) i USING (profile_id)
LEFT JOIN (SELECT parent_id AS profile_id, list(child_id ORDER BY child_id) AS merged
           FROM graph_parents GROUP BY parent_id) c USING (profile_id)
WHERE p.collection = $1
ORDER BY p.profile_id
"""


def export(session: Session, *, collection: str = "users") -> Iterator[dict[str, Any]]:
    """Each profile with its identifiers and every profile that was merged into it, by id.

    The session must be prepared (`views.prepare`).
    """
    for batch in session.stream(_PROFILES, [collection]):
        yield from batch.to_pylist()
