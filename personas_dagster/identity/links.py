"""The digest of links between users and accounts, carried forward by a load.

A link is read through the merges (`views.graph_links`), and its first and last message are spread
over loads: a load changes links that are there already. So those that it may have changed are
summed up as they were before it and as they are now, and no others.
"""

from __future__ import annotations

from personas_dagster.identity.digests import combine, difference, digest
from personas_dagster.identity.looking_up import look_up
from personas_dagster.identity.touched import climb_all
from personas_dagster.interfaces import Session
from personas_dagster.lake.halves import id_sql, same

LINK_COLUMNS = (
    "user_profile_id",
    "account_profile_id",
    "first_at",
    "first_message_id",
    "last_at",
    "last_message_id",
)
# Every profile of a component that the load merged, and the users that it linked.
_MET = """
CREATE OR REPLACE TEMP TABLE met AS
SELECT child_high AS profile_high, child_low AS profile_low FROM candidate_merges
UNION SELECT parent_high, parent_low FROM candidate_merges
UNION SELECT user_high, user_low FROM candidate_account_links
"""
_LINKS = """
CREATE OR REPLACE TEMP TABLE met_links AS FROM links_of_users UNION BY NAME FROM links_of_accounts
"""
_ENDS = """
CREATE OR REPLACE TEMP TABLE met AS
SELECT user_high AS profile_high, user_low AS profile_low FROM met_links
UNION SELECT account_high, account_low FROM met_links
"""
_SEEN = f"""
CREATE OR REPLACE TEMP TABLE seen_links AS
SELECT {id_sql("u.root_high", "u.root_low")} AS user_profile_id,
       {id_sql("a.root_high", "a.root_low")} AS account_profile_id,
       min(l.first_at) AS first_at,
       arg_min(l.first_message_id, (l.first_at, l.first_message_id)) AS first_message_id,
       max(l.last_at) AS last_at,
       arg_max(l.last_message_id, (l.last_at, l.last_message_id)) AS last_message_id
FROM met_links l
JOIN climbed u ON {same("u.profile", "l.user")}
JOIN climbed a ON {same("a.profile", "l.account")}
WHERE l.load_id < {{before:d}}
GROUP BY ALL
"""


def carried_links(session: Session, before: str, *, load_id: int) -> str:
    """The digest of links after a load whose candidates are in the graph, from that before it."""
    for name in ("candidate_merges", "candidate_account_links"):
        session.view(name)
    if session.is_empty("account_links"):
        return combine([])
    session.run(_MET)
    if not _any(session, "met"):
        return before
    climb_all(session)
    for key, other in (("user", "account"), ("account", "user")):
        more = [f"{other}_high", f"{other}_low", *LINK_COLUMNS[2:], "load_id"]
        look_up(session, f"links_of_{key}s", "account_links", key, "climbed",
                of="profile", more=more)  # fmt: skip
    session.run(_LINKS)
    session.run(_ENDS)
    found = []
    for end in (load_id, load_id + 1):
        climb_all(session, before_load=end)
        session.run(_SEEN.format(before=end))
        found.append(digest(session, "seen_links", LINK_COLUMNS))
    return combine([difference(before, found[0]), found[1]])


def _any(session: Session, relation: str) -> bool:
    return bool(session.fetch(f"SELECT count(*) > 0 FROM {relation}").column(0)[0].as_py())
