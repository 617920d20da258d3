"""Custom traits: what messages say about a person or an account, newest value first."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlglot import exp

from personas_dagster.interfaces import Lake, Session
from personas_dagster.query.paths import json_path
from personas_dagster.query.tree import segments
from personas_dagster.traits.changes import current, record
from personas_dagster.traits.conflicts import settle

# `place` settles a key that stands twice in one message: its own traits go before its context's.
_SAID = """
CREATE OR REPLACE TEMP TABLE said AS
SELECT 'users' AS collection, e.profile_id, j.key, j.value::VARCHAR AS value, e.timestamp,
       e.received_at, e.message_id, e.source_id, 2 AS place
FROM {events} e, json_each(e.traits) j
WHERE e.type = 'identify' AND e.profile_id IS NOT NULL AND e.timestamp <= $1
UNION ALL
SELECT 'accounts', e.account_id, j.key, j.value::VARCHAR, e.timestamp, e.received_at,
       e.message_id, e.source_id, 2
FROM {events} e, json_each(e.traits) j
WHERE e.type = 'group' AND e.account_id IS NOT NULL AND e.timestamp <= $1
UNION ALL
SELECT 'users', e.profile_id, j.key, j.value::VARCHAR, e.timestamp, e.received_at,
       e.message_id, e.source_id, 1
FROM {events} e, json_each(e.context -> '$.traits') j
WHERE e.profile_id IS NOT NULL AND e.context LIKE '%"traits"%' AND e.timestamp <= $1
"""
_PROMOTED = """
INSERT INTO said
SELECT 'users', profile_id, $2, (properties -> $4)::VARCHAR, timestamp, received_at, message_id,
       source_id, 0
FROM {events}
WHERE event = $3 AND profile_id IS NOT NULL AND timestamp <= $1
  AND (properties -> $4) IS NOT NULL
"""
_NEWEST = """
CREATE OR REPLACE TEMP TABLE custom_now AS
SELECT collection, root_id AS profile_id, key, newest.value AS value,
       newest.timestamp AS updated_at, newest.source_id AS source_id
FROM (
    SELECT collection, root_id, key,
           arg_max(struct_pack(value := value, timestamp := timestamp, source_id := source_id),
                   (timestamp, received_at, message_id, place)) AS newest
    FROM (SELECT s.*, coalesce(m.parent_id, s.profile_id) AS root_id
          FROM said s LEFT JOIN graph_parents m ON m.child_id = s.profile_id)
    GROUP BY ALL
)
WHERE newest.value IS NOT NULL AND newest.value <> 'null'
"""


@dataclass(frozen=True)
class Promotion:
    """An event property that the space keeps as a custom trait; `property` may be dotted."""

    event: str
    property: str
    key: str


def custom_values(
    session: Session,
    *,
    as_of: dt.datetime,
    promote: Sequence[Promotion] = (),
    of: str | None = None,
    conflicts: Mapping[str, str] | None = None,
) -> None:
    """Leave `custom_now`: the custom traits as they were at `as_of`.

    Of all profiles, or of those in the relation `of(profile_id)`, which holds every child too.
    `conflicts`: of keys, which value a merged profile has; see `conflicts.settle`.
    The session must have the graph's relations.
    """
    gather(session, until=as_of, promote=promote, of=of)
    newest(session, conflicts=conflicts)


def gather(
    session: Session,
    *,
    until: dt.datetime,
    promote: Sequence[Promotion] = (),
    of: str | None = None,
) -> None:
    """Leave `said`: everything that messages said of custom traits up to an instant."""
    session.view("events")
    events = "events"
    if of is not None:
        some = exp.to_identifier(of, quoted=True).sql(dialect="duckdb")
        events = f"(SELECT * FROM events SEMI JOIN {some} USING (profile_id))"
    session.run(_SAID.format(events=events), [until])
    for item in promote:
        path = json_path(segments(item.property))
        session.run(_PROMOTED.format(events=events), [until, item.key, item.event, path])


def newest(session: Session, *, conflicts: Mapping[str, str] | None = None) -> None:
    """Leave `custom_now` out of `said`."""
    session.run(_NEWEST)
    settle(session, conflicts or {})


def show_custom_values(session: Session) -> None:
    """Let `trait_values` have the custom traits of `custom_now` in place of the stored ones."""
    session.run("CREATE OR REPLACE TEMP VIEW current_custom_traits AS SELECT * FROM custom_now")


def refresh_custom_traits(
    session: Session,
    lake: Lake,
    *,
    as_of: dt.datetime,
    refresh_id: int,
    promote: Sequence[Promotion] = (),
    conflicts: Mapping[str, str] | None = None,
) -> dict[str, int]:
    """Bring `custom_traits` up to `as_of`; returns the profiles that changed, per key.

    The session must have the graph's relations.
    """
    custom_values(session, as_of=as_of, promote=promote, conflicts=conflicts)
    current(session, "custom_traits")
    return record(
        session,
        lake,
        "custom_traits",
        now_values="custom_now",
        before="current_custom_traits",
        at=as_of,
        refresh_id=refresh_id,
    )
