"""What evaluation reads, for one profile alone: its messages and values, and those around it.

Around a user are its accounts and their users: what a definition about accounts, or about the
users of one, can look at. Each message carries its own id under a key that no sender uses, so
that a query can list which messages it kept.
"""

from __future__ import annotations

import datetime as dt

from personas_dagster.interfaces import Session
from personas_dagster.spaces import Space
from personas_dagster.traits.custom import custom_values, show_custom_values
from personas_dagster.traits.world import prepare_values, prepare_world

OWN_ID = "personas message id"

_AROUND = """
CREATE OR REPLACE TEMP TABLE around AS
WITH accounts AS (
    SELECT $1 AS profile_id
    UNION SELECT account_profile_id FROM graph_links WHERE user_profile_id = $1
)
SELECT profile_id FROM accounts
UNION SELECT user_profile_id FROM graph_links
WHERE account_profile_id IN (SELECT profile_id FROM accounts)
"""
_FAMILY = """
CREATE OR REPLACE TEMP TABLE around_all AS
SELECT profile_id, root_id, profile_id = root_id AS is_root
FROM graph_roots WHERE root_id IN (SELECT profile_id FROM around)
"""
_MESSAGES = f"""
CREATE OR REPLACE TEMP TABLE messages AS
SELECT * REPLACE (json_merge_patch(coalesce(properties, '{{}}'),
                  json_object('{OWN_ID}', message_id))::VARCHAR AS properties)
FROM all_messages WHERE profile_id IN (SELECT profile_id FROM around)
"""
_PROFILES = """
DELETE FROM profiles WHERE profile_id NOT IN (SELECT profile_id FROM around)
"""


def prepare_around(space: Space, session: Session, profile_id: str, as_of: dt.datetime) -> None:
    """The relations of evaluation, of this profile and those around it."""
    session.run(_AROUND, [profile_id])
    session.run(_FAMILY)
    prepare_values(session, defined=space.computed_keys, of="around_all")
    custom_values(
        session, as_of=as_of, promote=space.promotions, conflicts=space.conflicts, of="around_all"
    )
    show_custom_values(session)
    prepare_world(session, as_of=as_of)
    session.run("ALTER VIEW messages RENAME TO all_messages")
    session.run(_MESSAGES)
    session.run(_PROFILES)
