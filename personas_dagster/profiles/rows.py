"""What goes into a profile store, made by the engine: one row with a JSON body per profile.

What belongs here: SQL over the graph's relations, `trait_values` and `members`. No row passes
through Python. Bodies are JSON arrays, instants in them whole microseconds since 1970:
traits `[[key, class, value, source_id, updated_at], ...]` (`CLASSES`; where only what changed
stands, null is the value of those that were removed),
external IDs `[[type, id, source_id, created_at, first_message_id], ...]`,
an event `[type, source_id, [[collection, type, id], ...], properties, context]`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection

import pyarrow as pa

from personas_dagster.identity.extract import PLAIN, combinations, prepare_extraction
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.interfaces import Session
from personas_dagster.profiles.tables import DAY, LANES, LATER, part_of

CLASSES = ("audience", "computed_trait", "sql_trait", "custom_trait")
"""By rank: of two values under one key, the first class is shown."""

# Whoever was ever in and is no more: false since the last exit. Where an audience's definition is
# gone, what is said of the profile under its key comes first.
_SHOWN_VALUES = """
CREATE OR REPLACE TEMP VIEW shown_values AS
SELECT CASE class WHEN 'computed_trait' THEN 1 WHEN 'sql_trait' THEN 2 ELSE 3 END AS class,
       profile_id, key, value, source_id, updated_at
FROM trait_values
UNION ALL
SELECT CASE WHEN d.key IS NULL THEN 3 ELSE 0 END, a.profile_id, a.audience, a.value, NULL, a.at
FROM (
    SELECT audience, profile_id, 'true' AS value, entered_at AS at FROM members
    UNION ALL
    SELECT f.audience, f.profile_id, 'false', f.at FROM (
        SELECT audience, profile_id, max("at") AS "at" FROM family_changes GROUP BY ALL
    ) f ANTI JOIN members m ON m.audience = f.audience AND m.profile_id = f.profile_id
) a LEFT JOIN defined_audiences d ON d.key = a.audience
WHERE d.key IS NOT NULL OR NOT EXISTS (
    SELECT 1 FROM trait_values o
    WHERE o.class = 'custom_trait' AND o.profile_id = a.profile_id AND o.key = a.audience)
"""
_BODY = """
'[' || string_agg(
    '[' || to_json(key)::VARCHAR || ',' || class || ',' || value || ','
    || coalesce(to_json(source_id)::VARCHAR, 'null') || ',' || epoch_us(updated_at) || ']',
    ',') || ']' AS body
"""
_TRAITS = f"""
SELECT profile_id, {_BODY}, {{through}}::BIGINT AS through
FROM shown_values GROUP BY profile_id ORDER BY profile_id
"""
# Of profiles that nothing was merged into, and keys that are defined: the logs say what is shown.
CHANGED_TRAITS = f"""
CREATE OR REPLACE TEMP TABLE changed_traits AS
SELECT refresh_id % {LANES} AS lane, profile_id, refresh_id, {_BODY}
FROM (
    SELECT profile_id, refresh_id, key, 3 AS class, value, source_id, updated_at
    FROM custom_traits WHERE refresh_id > $1
    UNION ALL
    SELECT profile_id, refresh_id, key, 1, value, source_id, updated_at
    FROM computed_traits WHERE refresh_id > $1
    UNION ALL
    SELECT profile_id, refresh_id, key, 2, value, source_id, updated_at
    FROM sql_traits WHERE refresh_id > $1
    UNION ALL
    SELECT profile_id, refresh_id, audience, 0, (change = 'entered')::VARCHAR, NULL, "at"
    FROM audience_changes WHERE refresh_id > $1
) ANTI JOIN family USING (profile_id)
GROUP BY profile_id, refresh_id
"""
# A row for each profile that is made, has new identifiers or new messages, to be added to what is
# there. What is new of identifiers holds the first one of each new profile.
_PROFILES = """
SELECT profile_id, coalesce(p.collection, i.collection, l.collection) AS collection,
       epoch_us(p.created_at) AS created_at, p.first_message_id, s.source_id AS first_source_id,
       l.updated_at, l.last_message_id, l.last_source_id,
       coalesce(i.external_ids, '[]') AS external_ids
FROM {profiles} p
{kind} JOIN ({external_ids}) i USING (profile_id)
{kind} JOIN ({last}) l USING (profile_id)
LEFT JOIN (
    SELECT profile_id, first_message_id, min(source_id) AS source_id FROM {identifiers}
    WHERE source_id IS NOT NULL GROUP BY ALL
) s USING (profile_id, first_message_id)
ORDER BY profile_id
"""
_LAST = """
SELECT profile_id, collection, epoch_us(newest.received_at) AS updated_at,
       newest.message_id AS last_message_id, newest.source_id AS last_source_id
FROM (
    SELECT profile_id, collection,
           max({'received_at': received_at, 'message_id': message_id,
                'source_id': source_id}) AS newest
    FROM profile_messages GROUP BY ALL
)
"""
_EXTERNAL_IDS = """
SELECT profile_id, collection, '[' || string_agg(
    '[' || to_json(type)::VARCHAR || ',' || to_json(value)::VARCHAR
    || ',' || coalesce(to_json(source_id)::VARCHAR, 'null') || ',' || epoch_us(first_seen_at)
    || ',' || coalesce(to_json(first_message_id)::VARCHAR, 'null') || ']',
    ',') || ']' AS external_ids
FROM {identifiers} GROUP BY ALL
"""
_MESSAGES = """
CREATE OR REPLACE TEMP VIEW profile_messages AS
SELECT coalesce(p.parent_id, e.profile_id) AS profile_id, 'users' AS collection, e.received_at,
       e.message_id, e.source_id
FROM events e LEFT JOIN graph_parents p ON p.child_id = e.profile_id
WHERE e.profile_id IS NOT NULL AND e.load_id > {after}
UNION ALL
SELECT coalesce(p.parent_id, e.account_id), 'accounts', e.received_at, e.message_id, e.source_id
FROM events e LEFT JOIN graph_parents p ON p.child_id = e.account_id
WHERE e.account_id IS NOT NULL AND e.load_id > {after}
"""
IDENTIFIERS = """
SELECT type, value, collection, profile_id FROM {identifiers} ORDER BY type, value, collection
"""
LINKS = """
SELECT user_profile_id AS profile_id, account_profile_id AS to_profile_id,
       'accounts' AS to_collection
FROM graph_links {where}
UNION ALL
SELECT account_profile_id, user_profile_id, 'users' FROM graph_links {where}
ORDER BY ALL
"""
PARENTS = "SELECT child_id, parent_id AS profile_id FROM graph_parents {of} ORDER BY child_id"
# An account's events are those that name it. `month` prunes files, `load_id` row groups.
_RECENT = """
CREATE OR REPLACE TEMP TABLE recent_events AS
SELECT {part} AS part,
       message_id, received_at, source_id, profile_id, account_id FROM events
WHERE type IN ('track', 'page', 'screen') AND (profile_id IS NOT NULL OR account_id IS NOT NULL)
  AND timestamp >= $1 AND month >= strftime($1::TIMESTAMPTZ, '%Y-%m') AND load_id > $2
"""
_DAY_OF = f"""CASE WHEN timestamp < $3::TIMESTAMPTZ THEN epoch_us(timestamp) // {DAY}
            ELSE {LATER} END"""
PARTS_OF_EVENTS = "SELECT DISTINCT part FROM recent_events ORDER BY part"
_RECENT_DATES = """
SELECT min(received_at)::DATE AS first, max(received_at)::DATE AS last FROM recent_events
"""


def prepare_values(session: Session, *, audiences: Collection[str]) -> None:
    """Make the relations of traits, on top of `views`, `world.prepare_values` and
    `family_changes(audience, profile_id, at)`, the audience changes of the same profiles' roots."""
    keys = pa.table({"key": pa.array(sorted(audiences), pa.string())})
    session.register("defined_audiences", keys)
    session.run(_SHOWN_VALUES)


def traits(*, through: int) -> str:
    """A row of each profile in `shown_values`, which are those as of a refresh."""
    return _TRAITS.format(through=int(through))


def whole_profiles() -> str:
    """A row of each profile."""
    external_ids = _EXTERNAL_IDS.format(identifiers="graph_identifiers")
    return _PROFILES.format(
        kind="LEFT",
        profiles="graph_profiles",
        identifiers="identifiers",
        external_ids=external_ids,
        last=_LAST,
    )


def new_profiles(*, after_load: int) -> str:
    """What is to be added to the rows of profiles, on top of `touched.find_touched`."""
    rooted = "(SELECT * REPLACE (root_id AS profile_id) FROM new_identifiers)"
    return _PROFILES.format(
        kind="FULL",
        profiles=f"(FROM graph_profiles WHERE load_id > {int(after_load)})",
        identifiers="new_identifiers",
        external_ids=_EXTERNAL_IDS.format(identifiers=rooted),
        last=_LAST,
    )


def prepare_messages(session: Session, *, after_load: int = 0) -> None:
    """Make the relations of messages, on top of `views`: those of loads after `after_load`."""
    session.view("events")
    session.run(_MESSAGES.format(after=int(after_load)))


# Identifiers as the message names them; limits and blocked values are the graph's business.
_IDS = " || ".join(
    f"[{{'collection': '{collection}', 'type': '{kind}', 'id': "
    + (f"lower(trim(x.{column}))" if kind == "email" else f"trim(x.{column})")
    + "}]"
    for column, kind, collection in PLAIN
)
_EVENTS_OF = """
CREATE OR REPLACE TEMP VIEW message_rows AS
SELECT r.message_id, r.received_at, r.source_id, r.timestamp, r.type AS message_type, r.event,
       r.properties AS shown_properties, r.context AS shown_context, r.received_date, {columns}
FROM raw_events r
"""
_EVENTS = f"""
SELECT e.part,
       coalesce(p.parent_id, e.profile_id) AS profile_id, epoch_us(x.timestamp) AS at,
       x.message_id, x.event,
       '["' || x.message_type || '",' || coalesce(to_json(x.source_id)::VARCHAR, 'null') || ','
       || to_json(list_sort(list_distinct([[i.collection, i.type, i.id]
           FOR i IN {_IDS}
               || coalesce([{{'collection': o.collection, 'type': o.type, 'id': o.value}}
                   FOR o IN from_json(x.others, '[{{"collection":"VARCHAR","type":"VARCHAR",
                                                    "value":"VARCHAR"}}]')], [])
           IF i.id <> '' AND i.type <> ''])))::VARCHAR
       || ',' || coalesce(nullif(x.shown_properties, ''), '{{}}')
       || ',' || coalesce(nullif(x.shown_context, ''), '{{}}') || ']' AS body
FROM (
    SELECT part, message_id, received_at, source_id, profile_id FROM recent_events
    WHERE profile_id IS NOT NULL
    UNION ALL
    SELECT part, message_id, received_at, source_id, account_id FROM recent_events
    WHERE account_id IS NOT NULL
) e
JOIN (SELECT * FROM message_rows WHERE received_date BETWEEN $1 AND $2) x
    USING (message_id, received_at)
LEFT JOIN graph_parents p ON p.child_id = e.profile_id
QUALIFY row_number() OVER (
    PARTITION BY coalesce(p.parent_id, e.profile_id), x.timestamp, x.message_id
    ORDER BY x.received_at) = 1
ORDER BY 1, 2, 3, 4
"""


def events(
    session: Session,
    *,
    rules: IdentityRules,
    since: dt.datetime,
    as_of: dt.datetime,
    after_load: int,
    refresh_id: int,
) -> pa.RecordBatchReader:
    """Events of profiles since an instant, of loads after one, which a refresh brings.

    Those of more than a day after `as_of` share the day `tables.LATER`: clocks go wrong by years.
    """
    recent = _RECENT.format(part=part_of(_DAY_OF, refresh_id))
    session.run(recent, [since, after_load, as_of + dt.timedelta(days=1)])
    dates = session.fetch(_RECENT_DATES).to_pylist()[0]
    days = dates["first"] or since.date(), dates["last"] or since.date()
    session.view("raw_events", days=days)
    prepare_extraction(session)
    read = ", ".join(f"{text} AS {name}" for name, text in combinations(rules).items())
    session.run(_EVENTS_OF.format(columns=read))
    return session.stream(_EVENTS, days)
