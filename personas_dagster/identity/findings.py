"""What the checks that guard merges find, in SQL: counts, and the offending identifiers.

Candidates are read as texts; the graph under them is looked up by key (`looking_up.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Any

import pyarrow as pa

from personas_dagster.identity.guard import Finding
from personas_dagster.identity.keys import key_sql
from personas_dagster.identity.looking_up import look_up
from personas_dagster.identity.numbering import blocked_values
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.identity.touched import climb_all
from personas_dagster.interfaces import Session
from personas_dagster.lake.halves import halves_sql, id_sql, same

_SAMPLE = 20
_GROWTH = 5.0
_ENOUGH_LOADS = 5
_ENOUGH_MESSAGES = 1_000

# Where the candidate merges lead; what still climbs after enough doublings runs in a circle.
_TOPS = (
    "CREATE OR REPLACE TEMP TABLE tops AS "
    "SELECT child_id, any_value(parent_id) AS parent_id FROM candidate_merges GROUP BY child_id",
    """
    CREATE OR REPLACE TEMP TABLE tops AS
    SELECT t.child_id, coalesce(up.parent_id, t.parent_id) AS parent_id
    FROM tops t LEFT JOIN tops up ON up.child_id = t.parent_id
    """,
)
_OPEN = "SELECT count(*) FROM tops t JOIN tops up ON up.child_id = t.parent_id"
_CYCLES = """
WITH bad AS (
    SELECT child_id FROM tops SEMI JOIN (SELECT child_id AS parent_id FROM tops) USING (parent_id)
    UNION SELECT child_id FROM candidate_merges GROUP BY child_id HAVING count(*) > 1
    UNION SELECT child_id FROM candidate_merges WHERE child_id IN (FROM children)
    UNION SELECT child_id FROM candidate_merges WHERE parent_id IN (FROM children)
)
SELECT child_id || ' (joined by ' || any_value(m.identifiers) || ')' AS sample
FROM bad JOIN candidate_merges m USING (child_id) GROUP BY child_id ORDER BY ALL
"""
# The profiles that the load names, adds to or merges, and did not make; then those that exist,
# those of them that it changes, and those that are children already.
_OF_MESSAGES = """
SELECT profile_id FROM candidate_combinations
UNION ALL SELECT account_id FROM candidate_combinations WHERE account_id IS NOT NULL
UNION ALL SELECT unnest([profile_id, account_id]) FROM candidate_message_profiles
"""
_OF_CHANGES = """
SELECT unnest([parent_id, child_id]) AS profile_id FROM candidate_merges
UNION ALL SELECT profile_id FROM candidate_identifiers
"""
_HIGH, _LOW = halves_sql("profile_id")
_NAMED = f"""
CREATE OR REPLACE TEMP TABLE named_profiles AS
SELECT profile_id, {_HIGH} AS profile_high, {_LOW} AS profile_low, false AS changed
FROM ({_OF_MESSAGES}) ANTI JOIN candidate_profiles USING (profile_id)
WHERE profile_id IS NOT NULL GROUP BY profile_id
"""
_CHANGED = (
    f"""
    CREATE OR REPLACE TEMP TABLE changed_profiles AS
    SELECT profile_id, {_HIGH} AS profile_high, {_LOW} AS profile_low, true AS changed
    FROM ({_OF_CHANGES}) ANTI JOIN candidate_profiles USING (profile_id)
    WHERE profile_id IS NOT NULL GROUP BY profile_id
    """,
    "DELETE FROM named_profiles WHERE profile_id IN (SELECT profile_id FROM changed_profiles)",
    "INSERT INTO named_profiles FROM changed_profiles",
)
_THERE = (
    f"""
    CREATE OR REPLACE TEMP TABLE there AS
    SELECT n.* FROM named_rows p JOIN named_profiles n ON {same("n.profile", "p.profile")}
    """,
    """
    CREATE OR REPLACE TEMP TABLE met AS
    SELECT profile_high, profile_low FROM there WHERE changed
    """,
)
_CHILDREN = f"""
CREATE OR REPLACE TEMP TABLE children AS
SELECT t.profile_id FROM there t JOIN edges m ON {same("t.profile", "m.child")} WHERE t.changed
"""
_BEFORE = f"""
CREATE OR REPLACE TEMP TABLE before_counts AS
SELECT {id_sql("root_high", "root_low")} AS profile_id, type, held
FROM (SELECT c.root_high, c.root_low, i.type, count(*) AS held
      FROM member_rows i JOIN climbed c ON {same("c.profile", "i.profile")} GROUP BY ALL)
"""
_AFTER = """
CREATE OR REPLACE TEMP TABLE after_counts AS
SELECT coalesce(t.parent_id, n.profile_id) AS profile_id, n.type, sum(n.held) AS held,
       max(n.held) FILTER (n.was_there) AS most
FROM (
    SELECT profile_id, type, held, true AS was_there FROM before_counts
    UNION ALL
    SELECT profile_id, type, 1, false FROM candidate_identifiers
) n LEFT JOIN tops t ON t.child_id = n.profile_id
GROUP BY ALL
"""
# Examples are looked for only where something may be wrong: most loads have no such profile.
_SUSPECTED = (
    """
    CREATE OR REPLACE TEMP TABLE suspected AS
    SELECT DISTINCT profile_id FROM after_counts JOIN type_limits l USING (type)
    WHERE held > l.max AND held > coalesce(most, 0)
    UNION
    SELECT profile_id FROM after_counts GROUP BY profile_id HAVING sum(held) > $1
    """,
    """
    CREATE OR REPLACE TEMP TABLE suspects AS
    SELECT s.profile_id, coalesce(t.child_id, s.profile_id) AS member_id
    FROM suspected s JOIN tops t ON t.parent_id = s.profile_id
    UNION
    SELECT profile_id, profile_id FROM suspected
    """,
    """
    CREATE OR REPLACE TEMP TABLE samples AS
    SELECT s.profile_id, i.type, min(i.value) AS sample
    FROM candidate_identifiers i JOIN suspects s ON s.member_id = i.profile_id GROUP BY ALL
    """,
    """
    CREATE OR REPLACE TEMP TABLE joiners AS
    SELECT s.profile_id, min(m.identifiers) AS joined
    FROM candidate_merges m JOIN suspects s ON s.member_id = m.child_id GROUP BY ALL
    """,
)
_EXAMPLES = """
LEFT JOIN samples n USING (profile_id, type) LEFT JOIN joiners j USING (profile_id)
"""
# A windowed limit is judged by the resolver, message by message; at rest only `ever` can be.
# Limits that were tightened later bind growth only: a profile that was above already may stay.
_ABOVE = f"""
SELECT coalesce(type || ':' || n.sample, type || ' joined by ' || j.joined, type) || ' ('
       || a.held || ' on one profile, limit ' || l.max || ')' AS sample
FROM after_counts a JOIN type_limits l USING (type) {_EXAMPLES}
WHERE l.is_ever AND a.held > l.max AND a.held > coalesce(a.most, 0)
ORDER BY ALL
"""
# Different hashes are of different identifiers; what shares one is looked at.
_DISTINCT = """
SELECT count(*) = count(DISTINCT hash(collection, type, value)) FROM candidate_identifiers
"""
_KEY_HIGH, _KEY_LOW = key_sql("collection", "type", "value")
_NEW_KEYS = f"""
CREATE OR REPLACE TEMP TABLE new_keys AS
SELECT collection, type, value, {_KEY_HIGH} AS key_high, {_KEY_LOW} AS key_low
FROM candidate_identifiers
"""
_SHARED = f"""
SELECT type || ':' || value AS sample FROM (
    SELECT collection, type, value FROM candidate_identifiers
    UNION ALL
    SELECT n.collection, n.type, n.value
    FROM shared_rows i JOIN new_keys n ON {same("n.key", "i.key")}
) GROUP BY collection, type, value HAVING count(*) > 1 ORDER BY ALL
"""
_ALL_KNOWN = """
SELECT (SELECT count(*) FROM named_profiles) = (SELECT count(*) FROM there)
"""
_MISSING = """
WITH known AS (
    SELECT profile_id FROM there UNION ALL SELECT profile_id FROM candidate_profiles
), lost AS (
    SELECT coalesce('user_id:' || user_id, 'anonymous_id:' || anonymous_id,
        'email:' || coalesce(email_trait, email_context, email_property), others) AS sample
    FROM candidate_combinations ANTI JOIN known USING (profile_id) WHERE profile_id IS NOT NULL
    UNION ALL
    SELECT coalesce('group_id:' || group_id, others)
    FROM candidate_combinations ANTI JOIN known ON known.profile_id = account_id
    WHERE account_id IS NOT NULL
    UNION ALL
    SELECT 'line ' || line || ' of file ' || file_id
    FROM (SELECT file_id, line, unnest([profile_id, account_id]) AS profile_id
          FROM candidate_message_profiles) ANTI JOIN known USING (profile_id)
    WHERE profile_id IS NOT NULL
)
SELECT DISTINCT sample FROM lost ORDER BY ALL
"""
_BLOBS = f"""
SELECT coalesce(min(type || ':' || n.sample), 'joined by ' || any_value(j.joined), '?') || ' ('
       || sum(a.held) || ' identifiers, ' || coalesce(any_value(b.held), 0) || ' before)' AS sample
FROM after_counts a SEMI JOIN suspected USING (profile_id) {_EXAMPLES}
LEFT JOIN (SELECT coalesce(t.parent_id, s.profile_id) AS profile_id, max(s.held) AS held
           FROM (SELECT profile_id, sum(held) AS held FROM before_counts GROUP BY ALL) s
           LEFT JOIN tops t ON t.child_id = s.profile_id GROUP BY ALL) b USING (profile_id)
GROUP BY profile_id
HAVING sum(a.held) > $1 AND coalesce(any_value(b.held), 0) <= $1
ORDER BY ALL
"""
# The identifiers that took part in the most merges.
_JOINERS = f"""
SELECT type || ':' || id || ' (' || count(*) || ' merges)' AS sample FROM (
    SELECT unnest(from_json(identifiers, '[{{"type":"VARCHAR","id":"VARCHAR"}}]'),
                  recursive := true) FROM candidate_merges
) GROUP BY type, id ORDER BY count(*) DESC, type, id LIMIT {_SAMPLE}
"""
_EMPTY = """
SELECT coalesce(type, '?') || ':' || coalesce(value, 'null') AS sample FROM candidate_identifiers
WHERE value IS NULL OR trim(value) = '' OR type IS NULL OR type = '' ORDER BY ALL
"""
_BLOCKED = """
SELECT type || ':' || value AS sample FROM candidate_identifiers
SEMI JOIN blocked_facts USING (collection, type, value) ORDER BY ALL
"""


def find(
    session: Session,
    rules: IdentityRules,
    *,
    messages: int,
    merged: int,
    profiles: int,
    earlier_shares: Sequence[float],
) -> tuple[Finding, ...]:
    """What the checks find in the candidates that the lake holds.

    `earlier_shares` are the trailing loads' merged profiles per profile touched.
    """
    for name in ("profiles", "identifiers", "merges", "message_profiles", "combinations"):
        session.view(f"candidate_{name}")
    _climb_candidates(session)
    session.run(_NAMED)
    if not session.is_empty("profiles"):
        for statement in _CHANGED:
            session.run(statement)
    look_up(session, "named_rows", "profiles", "profile", "named_profiles")
    for statement in _THERE:
        session.run(statement)
    climb_all(session)
    look_up(session, "member_rows", "identifiers", "profile", "climbed", more=["type"])
    for statement in (_CHILDREN, _BEFORE, _AFTER):
        session.run(statement)
    kinds = session.fetch("SELECT DISTINCT type FROM after_counts WHERE type IS NOT NULL")
    _register_limits(session, rules, kinds.column(0).to_pylist())
    first, *others = _SUSPECTED
    session.run(first, [rules.max_profile_identifiers])
    for statement in others:
        session.run(statement)
    return (
        _offenders(session, "above_limit", _ABOVE),
        _shared(session),
        _offenders(session, "cycle", _CYCLES),
        _offenders(session, "missing_profile", _MISSING, unless=_ALL_KNOWN),
        _offenders(session, "blob", _BLOBS, [rules.max_profile_identifiers]),
        _merge_share(session, messages, merged, profiles, earlier_shares),
        _bad_values(session, rules),
    )


def _shared(session: Session) -> Finding:
    """New identifiers that are there already, or twice among themselves."""
    if session.is_empty("identifiers") and session.fetch(_DISTINCT).column(0)[0].as_py():
        return Finding("shared_identifier", 0)
    session.run(_NEW_KEYS)
    look_up(session, "shared_rows", "identifiers", "key", "new_keys")
    return _offenders(session, "shared_identifier", _SHARED)


def _climb_candidates(session: Session) -> None:
    first, jump = _TOPS
    session.run(first)
    rounds = session.fetch("SELECT count(*) FROM tops").column(0)[0].as_py().bit_length() + 1
    while rounds and session.fetch(_OPEN).column(0)[0].as_py():
        session.run(jump)
        rounds -= 1


def _register_limits(session: Session, rules: IdentityRules, kinds: Sequence[str]) -> None:
    columns = {
        "type": pa.array(kinds, pa.string()),
        "max": pa.array([rules.rule(kind).limit for kind in kinds], pa.int64()),
        "is_ever": pa.array([rules.rule(kind).window is None for kind in kinds], pa.bool_()),
    }
    session.register("type_limits", pa.table(columns))


def _bad_values(session: Session, rules: IdentityRules) -> Finding:
    """Null, empty and blocked values."""
    found = [_offenders(session, "bad_value", _EMPTY)]
    if rules.facts.blocked:
        names = ("collection", "type", "value")
        columns = [
            pa.array(column, pa.string()) for column in zip(*rules.facts.blocked, strict=True)
        ]
        session.register("blocked_facts", pa.table(columns, names=names))
        found.append(_offenders(session, "bad_value", _BLOCKED))
    offending = sum(one.offending for one in found)
    sample = [value for one in found for value in one.sample]
    kinds = session.fetch("SELECT DISTINCT type FROM candidate_identifiers WHERE type <> ''")
    for kind in sorted(kinds.column(0).to_pylist()):
        query = "SELECT value FROM candidate_identifiers WHERE type = $1 AND value <> ''"
        values = session.fetch(query, [kind]).column(0).combine_chunks()
        blocked = set(values.filter(blocked_values(rules, kind, values)).to_pylist())
        offending += len(blocked)
        sample += sorted(f"{kind}:{value}" for value in blocked)
    return Finding("bad_value", offending, tuple(sample[:_SAMPLE]))


def _offenders(
    session: Session,
    check: str,
    query: str,
    parameters: Sequence[Any] | None = None,
    *,
    unless: str | None = None,
) -> Finding:
    """What a query lists; nothing, where the cheaper question `unless` is answered with true."""
    if unless and session.fetch(unless).column(0)[0].as_py():
        return Finding(check, 0)
    found = session.fetch(query, parameters).column(0).to_pylist()
    return Finding(check, len(found), tuple(found[:_SAMPLE]))


def _merge_share(
    session: Session, messages: int, merged: int, profiles: int, earlier: Sequence[float]
) -> Finding:
    share = merged / profiles if profiles else 0.0
    usual = median(earlier) if earlier else 0.0
    judged = len(earlier) >= _ENOUGH_LOADS and usual > 0 and messages >= _ENOUGH_MESSAGES
    observed = f"{share:.4f} of the profiles, median of earlier loads {usual:.4f}"
    if not judged or share <= _GROWTH * usual:
        return Finding("merge_share", 0, observed=observed)
    sample = session.fetch(_JOINERS).column(0).to_pylist()
    return Finding("merge_share", merged, tuple(sample), observed=observed)
