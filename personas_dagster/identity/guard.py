"""The checks that guard merges: findings in SQL, judged by a Great Expectations suite.

SQL reduces the candidates and the part of the graph that they touch to one small row of counts
and a list of offending identifiers; the suite says what each count may be. Great Expectations
takes seconds to import, so it is imported only when there is something to judge.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from personas_dagster.identity.rules import IdentityRules
from personas_dagster.identity.views import prepare
from personas_dagster.interfaces import Session

_SAMPLE = 20
_GROWTH = 5.0
_ENOUGH_LOADS = 5
_ENOUGH_MESSAGES = 1_000

CHECKS: Mapping[str, str] = {
    "above_limit": "No profile holds more identifiers of a type than its limit allows.",
    "shared_identifier": "No identifier is on two profiles.",
    "cycle": "No profile is its own ancestor.",
    "missing_profile": "Every message's profile exists.",
    "blob": "No profile grows past `max_profile_identifiers` in one load.",
    "merge_share": "The share of merged profiles is at most 5 times the median of earlier loads.",
    "bad_value": "No identifier is null, empty or blocked.",
}


@dataclass(frozen=True)
class Finding:
    """One check's outcome: how many offenders, which (the first 20), and what was observed."""

    check: str
    offending: int
    sample: tuple[str, ...] = ()
    observed: str = ""

    @property
    def passed(self) -> bool:
        return self.offending == 0


@dataclass(frozen=True)
class Verdict:
    """All findings for one load; `passed` is what the suite said."""

    load_id: int
    passed: bool
    findings: tuple[Finding, ...]

    @property
    def reason(self) -> str:
        """One line that names the rules that failed and their offenders."""
        return "; ".join(
            f"{CHECKS[f.check]} Found {f.offending}"
            + (f" ({', '.join(f.sample)})" if f.sample else "")
            + (f", {f.observed}" if f.observed else "")
            for f in self.findings
            if not f.passed
        )


_AFTER = (
    """
    CREATE OR REPLACE TEMP TABLE after_parents AS
    SELECT child_id, parent_id FROM merges
    UNION ALL SELECT child_id, parent_id FROM candidate_merges
    """,
    """
    CREATE OR REPLACE TEMP TABLE after_new AS
    SELECT collection, type, value, profile_id FROM candidate_identifiers
    """,
)
_CYCLES = """
WITH RECURSIVE walk(start, spot, steps) AS (
    SELECT child_id, parent_id, 1 FROM candidate_merges
    UNION ALL
    SELECT w.start, p.parent_id, w.steps + 1
    FROM walk w JOIN after_parents p ON p.child_id = w.spot
    WHERE w.steps < 200 AND w.spot <> w.start
)
SELECT DISTINCT start AS sample FROM walk WHERE spot = start OR steps >= 200 ORDER BY ALL
"""
# Roots after the load, for the profiles that it touches: the candidate merges' parents are
# followed first, then the graph's own.
_TOUCHED = """
CREATE OR REPLACE TEMP TABLE after_identifiers AS
WITH RECURSIVE up(child_id, parent_id, steps) AS (
    SELECT child_id, parent_id, 1 FROM candidate_merges
    UNION ALL
    SELECT u.child_id, c.parent_id, u.steps + 1
    FROM up u JOIN candidate_merges c ON c.child_id = u.parent_id WHERE u.steps < 200
),
tops AS (SELECT child_id, arg_max(parent_id, steps) AS parent_id FROM up GROUP BY child_id),
now_on AS (
    SELECT collection, type, value, profile_id, first_seen_at FROM graph_identifiers
    UNION ALL
    SELECT collection, type, value, profile_id, first_seen_at FROM candidate_identifiers
),
led AS (
    SELECT n.collection, n.type, n.value, coalesce(t.parent_id, n.profile_id) AS profile_id,
           n.first_seen_at
    FROM now_on n LEFT JOIN tops t ON t.child_id = n.profile_id
)
SELECT * FROM led WHERE profile_id IN (
    SELECT coalesce(t.parent_id, a.profile_id)
    FROM after_new a LEFT JOIN tops t ON t.child_id = a.profile_id
    UNION SELECT parent_id FROM tops
)
"""
# A windowed limit is judged by the resolver, message by message; at rest only `ever` can be.
# Limits that were tightened later bind growth only: a profile that was above already may stay.
_ABOVE = """
SELECT a.type || ':' || min(a.value) || ' (' || count(*) || ' on one profile, limit '
       || any_value(l.max) || ')' AS sample
FROM after_identifiers a JOIN type_limits l USING (type)
WHERE l.is_ever
GROUP BY a.profile_id, a.type
HAVING count(*) > any_value(l.max) AND count(*) > coalesce((
    SELECT max(held) FROM (
        SELECT count(*) AS held FROM graph_identifiers g WHERE g.type = a.type
        AND g.profile_id IN (SELECT child_id FROM candidate_merges WHERE true
                             UNION ALL SELECT a.profile_id)
        GROUP BY g.profile_id)), 0)
ORDER BY ALL
"""
_SHARED = """
SELECT type || ':' || value AS sample FROM (
    SELECT collection, type, value FROM candidate_identifiers
    UNION ALL
    SELECT i.collection, i.type, i.value FROM identifiers i
    SEMI JOIN candidate_identifiers c USING (collection, type, value)
) GROUP BY collection, type, value HAVING count(*) > 1 ORDER BY ALL
"""
_MISSING = """
WITH named AS (
    SELECT profile_id, coalesce('user_id:' || user_id, 'anonymous_id:' || anonymous_id,
        'email:' || coalesce(email_trait, email_context, email_property), others) AS sample
    FROM candidate_combinations
    UNION ALL
    SELECT account_id, coalesce('group_id:' || group_id, others) FROM candidate_combinations
    UNION ALL
    SELECT unnest([profile_id, account_id]), 'line ' || line || ' of file ' || file_id
    FROM candidate_message_profiles
)
SELECT DISTINCT sample FROM named n ANTI JOIN after_profiles p USING (profile_id)
WHERE n.profile_id IS NOT NULL ORDER BY ALL
"""
_BLOBS = """
SELECT min(a.type || ':' || a.value) || ' (' || count(*) || ' identifiers, '
       || count(n.value) || ' new)' AS sample
FROM after_identifiers a LEFT JOIN after_new n USING (collection, type, value)
GROUP BY a.profile_id
HAVING count(*) > $1 AND count(*) > coalesce((
    SELECT max(held) FROM (
        SELECT count(*) AS held FROM graph_identifiers g
        WHERE g.profile_id = a.profile_id GROUP BY g.profile_id)), 0)
ORDER BY ALL
"""
_BAD = """
SELECT coalesce(type, '?') || ':' || coalesce(value, 'null') AS sample FROM candidate_identifiers
WHERE value IS NULL OR trim(value) = '' OR type IS NULL OR type = ''
UNION ALL
SELECT c.type || ':' || c.value FROM candidate_identifiers c, blocked_rules b
WHERE (b.type = c.type OR b.type = '*')
  AND (c.value = b.exact OR regexp_matches(c.value, b.pattern))
ORDER BY ALL
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
    import pyarrow as pa

    for name in ("profiles", "identifiers", "merges", "message_profiles", "combinations"):
        session.view(f"candidate_{name}")
    prepare(session)
    for statement in _AFTER:
        session.run(statement)
    session.run(
        "CREATE OR REPLACE TEMP VIEW after_profiles AS SELECT profile_id FROM stored_profiles "
        "UNION ALL SELECT profile_id FROM candidate_profiles"
    )
    session.run(_TOUCHED)
    kinds = session.fetch("SELECT DISTINCT type FROM after_identifiers").column(0).to_pylist()
    session.register(
        "type_limits",
        pa.table(
            {
                "type": pa.array(kinds, pa.string()),
                "max": pa.array([rules.rule(kind).limit for kind in kinds], pa.int64()),
                "is_ever": pa.array(
                    [rules.rule(kind).window is None for kind in kinds], pa.bool_()
                ),
            }
        ),
    )
    blocked = [
        (kind, entry if isinstance(entry, str) else None, getattr(entry, "pattern", None))
        for kind, entries in rules.blocked.items()
        for entry in entries
    ]
    session.register(
        "blocked_rules",
        pa.table(
            {
                name: pa.array([row[i] for row in blocked], pa.string())
                for i, name in enumerate(("type", "exact", "pattern"))
            }
        ),
    )
    return (
        _offenders(session, "above_limit", _ABOVE),
        _offenders(session, "shared_identifier", _SHARED),
        _offenders(session, "cycle", _CYCLES),
        _offenders(session, "missing_profile", _MISSING),
        _offenders(session, "blob", _BLOBS, [rules.max_profile_identifiers]),
        _merge_share(messages, merged, profiles, earlier_shares),
        _offenders(session, "bad_value", _BAD),
    )


def _offenders(
    session: Session, check: str, query: str, parameters: Sequence[Any] | None = None
) -> Finding:
    found = session.fetch(query, parameters).column(0).to_pylist()
    return Finding(check, len(found), tuple(found[:_SAMPLE]))


def _merge_share(messages: int, merged: int, profiles: int, earlier: Sequence[float]) -> Finding:
    share = merged / profiles if profiles else 0.0
    usual = median(earlier) if earlier else 0.0
    judged = len(earlier) >= _ENOUGH_LOADS and usual > 0 and messages >= _ENOUGH_MESSAGES
    observed = f"{share:.4f} of the profiles, median of earlier loads {usual:.4f}"
    return Finding("merge_share", int(judged and share > _GROWTH * usual), observed=observed)


def judge(load_id: int, findings: Sequence[Finding]) -> Verdict:
    """Run the suite over the findings' counts: every count must be 0."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import pandas as pd

    # Its loggers and progress bars speak to somebody at a notebook.
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    import great_expectations as gx
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    frame = pd.DataFrame({f.check: [f.offending] for f in findings})
    batch = (
        context.data_sources.add_pandas("merge_candidates")
        .add_dataframe_asset("findings")
        .add_batch_definition_whole_dataframe("load")
        .get_batch({"dataframe": frame})
    )
    suite = gx.ExpectationSuite(
        name="merge_guard",
        expectations=[
            gx.expectations.ExpectColumnValuesToBeBetween(
                column=finding.check, min_value=0, max_value=0, notes=CHECKS[finding.check]
            )
            for finding in findings
        ],
    )
    result = batch.validate(suite)
    return Verdict(load_id, bool(result.success), tuple(findings))
