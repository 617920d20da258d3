"""How much the graph holds, carried forward by a load: profiles and identifiers.

A child counts no more once it was merged, and each merge takes one child away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from personas_dagster.interfaces import Session

# By what is counted ("profiles" or "identifiers"), then by collection or by type.
Totals = Mapping[str, Mapping[str, int]]
_COUNT = """
SELECT 'profiles' AS what, collection AS name, count(*) AS n FROM {0}profiles GROUP BY collection
UNION ALL
SELECT 'profiles', collection, -count(*) FROM {0}merges GROUP BY collection
UNION ALL
SELECT 'identifiers', type, count(*) FROM {0}identifiers GROUP BY type
"""
_CANDIDATES = "candidate_"


def whole(session: Session) -> Totals:
    """Root profiles by collection, and identifiers by type, in the graph as the lake holds it."""
    return _counted(session, "")


def carried(session: Session, before: Totals) -> Totals:
    """The totals after a load, from those before it and its candidates."""
    added = _counted(session, _CANDIDATES)
    return {what: dict(Counter(before.get(what, {})) + Counter(added[what])) for what in added}


def _counted(session: Session, prefix: str) -> dict[str, dict[str, int]]:
    for table in ("profiles", "merges", "identifiers"):
        session.view(f"{prefix}{table}")
    found: dict[str, Counter[str]] = {"profiles": Counter(), "identifiers": Counter()}
    for row in session.fetch(_COUNT.format(prefix)).to_pylist():
        found[row["what"]][row["name"]] += row["n"]
    return {what: dict(counts) for what, counts in found.items()}
