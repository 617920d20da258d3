"""`events`: messages resolved to profiles, in the sorted layout that the compute reads.

Each load appends one file a month, sorted by event, profile and time; a month that has gathered
many files is rewritten as one.
"""

from __future__ import annotations

from collections import Counter

from personas_dagster.interfaces import Lake, Session

_MANY_FILES = 12

_RESOLVED = """
SELECT event, profile_id, timestamp, received_at, message_id, type, account_id, source_id,
       properties, traits, context, $1::BIGINT AS load_id, strftime(timestamp, '%Y-%m') AS month
FROM resolved_messages
ORDER BY month, event, profile_id, timestamp, message_id
"""
_MONTH = """
SELECT * FROM events WHERE month = $1 ORDER BY event, profile_id, timestamp, message_id
"""


def append_resolved(session: Session, lake: Lake, *, load_id: int, once: bool = True) -> int:
    """Append the session's `resolved_messages` (identity/assignment.py), once per load id.

    With `once=False` also those of a load that was written before: when all is written anew.
    """
    reader = session.stream(_RESOLVED, [load_id])
    return lake.append("events", reader, once=("identity", load_id) if once else None)


def crowded_months(lake: Lake) -> list[str]:
    """The months whose events lie in many files."""
    months = Counter(uri.split("month=")[1].split("/")[0] for uri in lake.files("events"))
    return sorted(month for month, files in months.items() if files >= _MANY_FILES)


def compact(session: Session, lake: Lake) -> list[str]:
    """Rewrite each crowded month as one sorted file; returns the months. No row changes."""
    months = crowded_months(lake)
    for month in months:
        session.view("events")
        reader = session.stream(_MONTH, [month])
        lake.replace("events", reader, where=f"month = '{month}'")
    return months
