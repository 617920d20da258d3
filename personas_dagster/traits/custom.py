"""Custom traits: what messages say about a person or an account, newest value first."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlglot import exp

from personas_dagster.identity import views
from personas_dagster.interfaces import Lake, Session
from personas_dagster.query import sql
from personas_dagster.query.paths import json_path
from personas_dagster.query.tree import segments
from personas_dagster.traits.changes import current, record
from personas_dagster.traits.conflicts import settle
from personas_dagster.traits.standing import (
    MOST,
    SAMPLE,
    Base,
    Check,
    grew,
    months_between,
    seen,
)

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


_MEANING = 1  # raised when the same messages make other custom traits
_SPEAKS = """type IN ('identify', 'group') OR context LIKE '%"traits"%'"""
_SAID_OF = """
CREATE OR REPLACE TEMP TABLE said_of AS
SELECT DISTINCT coalesce(m.parent_id, t.profile_id) AS profile_id
FROM (
    SELECT unnest([profile_id, account_id]) AS profile_id FROM events
    WHERE load_id > {load} AND ({speaks})
    UNION ALL
    SELECT unnest([profile_id, account_id]) FROM events
    WHERE {months} AND timestamp BETWEEN $1 AND $2 AND ({speaks})
    UNION ALL
    SELECT unnest([parent_id, child_id]) FROM merges WHERE load_id > {load}
) t LEFT JOIN graph_parents m ON m.child_id = t.profile_id
WHERE t.profile_id IS NOT NULL
"""
_SAID_IDS = """
CREATE OR REPLACE TEMP TABLE said_ids AS
FROM said_of UNION ALL
SELECT m.child_id FROM graph_parents m SEMI JOIN said_of s ON s.profile_id = m.parent_id
"""
# What a message says of an account comes from any of its users.
_OF_TOUCHED = """
(SELECT * FROM events
 WHERE profile_id IN (FROM said_ids) OR account_id IN (FROM said_ids))
"""
_ONLY_TOUCHED = """
CREATE OR REPLACE TEMP TABLE custom_now AS FROM custom_now SEMI JOIN said_of USING (profile_id)
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
    _gather(session, events, until=until, promote=promote)


def _gather(
    session: Session, events: str, *, until: dt.datetime, promote: Sequence[Promotion]
) -> None:
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


# Profiles that nothing touched, to show that their values stand; with those merged into them.
_SAMPLED = """
CREATE OR REPLACE TEMP TABLE said_sample AS
SELECT profile_id FROM graph_profiles ANTI JOIN said_of USING (profile_id)
WHERE hash(profile_id, {seed:d}) % {every:d} = 0
"""
_WITH_SAMPLE = "INSERT INTO said_of FROM said_sample"
_NO_SAMPLE = "CREATE OR REPLACE TEMP TABLE said_sample AS FROM said_of WHERE false"
_WRONG = """
SELECT key, profile_id FROM trait_changes SEMI JOIN said_sample USING (profile_id) ORDER BY ALL
"""


@dataclass(frozen=True)
class Refreshed:
    """Profiles that changed, per key; how many were looked at, None for all; how the sample of
    the others compares; and what the refresh keeps, so that the next one can build on it: nothing
    when stored values were wrong.
    """

    changed: Mapping[str, int]
    touched: int | None
    check: Check | None
    record: Mapping[str, Any] | None


def refresh_custom_traits(
    session: Session,
    lake: Lake,
    *,
    as_of: dt.datetime,
    refresh_id: int,
    promote: Sequence[Promotion] = (),
    conflicts: Mapping[str, str] | None = None,
    base: Base | None = None,
    sample: int = SAMPLE,
) -> Refreshed:
    """Bring `custom_traits` up to `as_of`.

    On top of `base`, only of profiles that messages said something of since, or that were merged;
    and of `sample` others, to show that theirs stand. The session must have the graph's relations.
    """
    session.view("events")
    rules = _fingerprint(promote, conflicts)
    touched = None
    if base and base.rules == rules and grew(session, lake, base):
        touched = _touch(session, base, as_of=as_of, promote=promote)
        if touched is not None:
            _take_sample(session, sample, seed=refresh_id)
    if touched is None:
        custom_values(session, as_of=as_of, promote=promote, conflicts=conflicts)
        current(session, "custom_traits")
    else:
        _gather(session, _OF_TOUCHED, until=as_of, promote=promote)
        newest(session, conflicts=conflicts)
        session.run(_ONLY_TOUCHED)
        current(session, "custom_traits", of="said_ids")
    changed = record(
        session,
        lake,
        "custom_traits",
        now_values="custom_now",
        before="current_custom_traits",
        at=as_of,
        refresh_id=refresh_id,
    )
    check = None if touched is None else _check(session)
    record_of = {**seen(session), "rules": rules}
    return Refreshed(changed, touched, check, None if check and check.wrong else record_of)


def _take_sample(session: Session, sample: int, *, seed: int) -> None:
    """Add `said_sample` to the profiles that are looked at."""
    every = max(1, views.profiles(session) // sample) if sample else None
    session.run(_SAMPLED.format(seed=seed, every=every) if every else _NO_SAMPLE)
    session.run(_WITH_SAMPLE)
    session.run(_SAID_IDS)


def _check(session: Session) -> Check:
    wrong = [(row["key"], row["profile_id"]) for row in session.fetch(_WRONG).to_pylist()]
    profiles = session.fetch("SELECT count(*) FROM said_sample").column(0)[0].as_py()
    return Check(int(profiles), wrong)


def _touch(
    session: Session, base: Base, *, as_of: dt.datetime, promote: Sequence[Promotion]
) -> int | None:
    """Leave `said_of`, the profiles to look at, and `said_ids`, these and those merged into them.

    None when they are too many to be worth it.
    """
    promoted = sql.one_of("event", [one.event for one in promote]).sql(dialect="duckdb")
    crossed = sql.one_of("month", sorted(months_between(base.as_of, as_of)))
    session.run(
        _SAID_OF.format(
            load=int(base.load_id),
            speaks=f"{_SPEAKS} OR {promoted}",
            months=crossed.sql(dialect="duckdb"),
        ),
        [base.as_of, as_of],
    )
    touched = int(session.fetch("SELECT count(*) FROM said_of").column(0)[0].as_py())
    return touched if touched <= max(MOST * views.profiles(session), 1_000) else None


def _fingerprint(promote: Sequence[Promotion], conflicts: Mapping[str, str] | None) -> str:
    text = repr((_MEANING, list(promote), sorted((conflicts or {}).items())))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
