"""`events`: messages resolved to profiles, in the sorted layout that the compute reads.

Each load appends one file a month, sorted by event, profile and time; a month that has gathered
many files is rewritten as one.
"""

from __future__ import annotations

from collections import Counter

from personas_dagster.interfaces import Lake, Session

_MANY_FILES = 12

_RESOLVED = """
SELECT r.event, m.profile_id, r.timestamp, r.received_at, r.message_id, r.type, m.account_id,
       r.source_id, r.properties, r.traits, r.context, $1::BIGINT AS load_id,
       strftime(r.timestamp, '%Y-%m') AS month
FROM raw_events r JOIN candidate_message_profiles m USING (message_id)
WHERE r.load_id > $2 AND r.load_id <= $3
ORDER BY month, r.event, m.profile_id, r.timestamp, r.message_id
"""
_MONTH = """
SELECT * FROM events WHERE month = $1 ORDER BY event, profile_id, timestamp, message_id
"""


def append_resolved(
    session: Session, lake: Lake, *, load_id: int, after_load: int, through_load: int
) -> int:
    """Append the messages of the raw loads in (after_load, through_load], once per load id."""
    session.view("raw_events")
    session.view("candidate_message_profiles")
    reader = session.stream(_RESOLVED, [load_id, after_load, through_load])
    return lake.append("events", reader, once=("identity", load_id))


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
