"""Messages beside their profiles, for the load that was applied.

A message's profile is that of its combination of identifiers; the few whose combination has two
readings (an alias under `alias: merge`) are listed one by one.
"""

from __future__ import annotations

import datetime as dt

from personas_dagster.identity.extract import KEY, combinations, prepare_extraction
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.interfaces import Session

_COMBINATIONS = (
    "CREATE OR REPLACE TEMP TABLE named_combinations AS "
    "SELECT *, hash({key}) AS key_hash FROM candidate_combinations"
)
_IS_UNIQUE = "SELECT count(*) = count(DISTINCT key_hash) FROM named_combinations"
_RESOLVED = """
CREATE OR REPLACE TEMP VIEW resolved_messages AS
SELECT r.* EXCLUDE ({key_columns}, key_hash),
       coalesce(c.profile_id, m.profile_id) AS profile_id,
       coalesce(c.account_id, m.account_id) AS account_id
FROM (SELECT *, hash({key_columns}) AS key_hash
      FROM (SELECT *, {columns} FROM raw_events
            WHERE load_id > {after_load:d} AND load_id <= {through_load:d})) r
LEFT JOIN named_combinations c ON {same}
LEFT JOIN candidate_message_profiles m ON m.file_id = r.file_id AND m.line = r.line
"""
_SORTED = 5_000_000  # messages
_MONTHS = """
SELECT date_trunc('month', timestamp) AS month, count(*) AS messages FROM raw_events
WHERE load_id > $1 AND load_id <= $2 GROUP BY ALL ORDER BY month
"""


def resolve_messages(
    session: Session, rules: IdentityRules, *, after_load: int, through_load: int
) -> None:
    """Leave `resolved_messages`: the messages of the raw loads in (after_load, through_load],
    each with `profile_id` and `account_id`. The rules are those that the load was resolved with.
    """
    session.view("raw_events", after_load=after_load)
    for table in ("candidate_combinations", "candidate_message_profiles"):
        session.view(table)
    prepare_extraction(session)
    session.run(_COMBINATIONS.format(key=", ".join(KEY)))
    # The hash tells the combinations apart unless two of them share one.
    same = "c.key_hash = r.key_hash"
    if not session.fetch(_IS_UNIQUE).column(0)[0].as_py():
        same = " AND ".join(f"c.{name} IS NOT DISTINCT FROM r.key_{name}" for name in KEY)
    session.run(
        _RESOLVED.format(
            key_columns=", ".join(f"key_{name}" for name in KEY),
            columns=", ".join(f"{sql} AS key_{name}" for name, sql in combinations(rules).items()),
            after_load=after_load,
            through_load=through_load,
            same=same,
        )
    )


def months_between(
    session: Session, *, after_load: int, through_load: int, most: int = _SORTED
) -> list[dt.datetime]:
    """Beginnings of months that divide the messages of these raw loads by their time.

    Between two of them are `most` messages, or one month's. The session must have `raw_events`.
    """
    found, held = list[dt.datetime](), 0
    for row in session.fetch(_MONTHS, [after_load, through_load]).to_pylist():
        if held and held + row["messages"] > most:
            found.append(row["month"])
            held = 0
        held += row["messages"]
    return found
