"""A digest of every table of a space, to show that the same input gave the same content.

What belongs here: which relation and which columns of a table count. Rows count as readers see
them: led through the graph's parents, of a log of traits the values that hold. What says who
wrote a row and when (`Table.bookkeeping`) does not count, and of a trait only its value does:
`updated_at` says when a refresh first met it. `entered_at` counts; it is a refresh's `as_of`.
"""

from __future__ import annotations

from personas_dagster.identity.digests import digest
from personas_dagster.identity.loads import GRAPH_TABLES, graph_digests
from personas_dagster.lake import DeltaLake
from personas_dagster.lake.tables import TABLES
from personas_dagster.spaces import Space

TRAITS = ("custom_traits", "computed_traits", "sql_traits")
_AS_THEY_ARE = (
    "raw_events",
    "rejected_events",
    "audience_changes",
    "trait_history",
    "audience_history",
    "history_sizes",
    "ledger",
)
_VALUE = ("collection", "profile_id", "key", "value")
_MEMBER = ("audience", "collection", "profile_id", "entered_at")
# A message keeps the profile it was resolved to; how far that is from the root is a matter of
# how the input was divided into loads.
_EVENTS = """
CREATE OR REPLACE TEMP VIEW events_of_roots AS
SELECT e.* REPLACE (coalesce(u.parent_id, e.profile_id) AS profile_id,
                    coalesce(a.parent_id, e.account_id) AS account_id)
FROM events e
LEFT JOIN graph_parents u ON u.child_id = e.profile_id
LEFT JOIN graph_parents a ON a.child_id = e.account_id
"""


def digests(space: Space, lake: DeltaLake | None = None) -> dict[str, str]:
    """Table name to digest, of the lake as it stands (or of a snapshot of it).

    Candidates are left out: they are one load's, and gone with the next.
    """
    with space.session(space.lake if lake is None else lake) as session:
        found = graph_digests(session)
        for name in (*_AS_THEY_ARE, "events"):
            session.view(name)
        session.run(_EVENTS)
        found["events"] = digest(session, "events_of_roots", _content("events"))
        for name in _AS_THEY_ARE:
            found[name] = digest(session, name, _content(name))
        for name in TRAITS:
            found[name] = digest(session, f"current_{name}", _VALUE)
        found["audience_memberships"] = digest(session, "members", _MEMBER)
    return {name: found[name] for name in TABLES if name in found}


def covered() -> set[str]:
    """The tables that have a digest."""
    return {name for name in TABLES if not name.startswith("candidate_")} | set(GRAPH_TABLES)


def _content(table: str) -> tuple[str, ...]:
    spec = TABLES[table]
    return tuple(name for name in spec.schema.names if name not in spec.bookkeeping)
