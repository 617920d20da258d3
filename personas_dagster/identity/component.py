"""The part of the graph that a decision about an identifier can change, derived anew by itself.

Identifiers that one message names are connected, also where protection removed one of them. What
is not connected never meets: a component resolves alone as it does among all others. So only the
messages of the identifiers' component are replayed, load after load, and what they make takes the
place of what they had made.
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import pyarrow as pa

from personas_dagster.events.resolved import reassign
from personas_dagster.identity.decisions import Decision
from personas_dagster.identity.facts import Identifier
from personas_dagster.identity.replaying import Load, replay
from personas_dagster.identity.views import prepare
from personas_dagster.interfaces import Engine, Lake, Session
from personas_dagster.lake import DeltaLake
from personas_dagster.lake.halves import halves_sql
from personas_dagster.query import Typed

_PROFILE_OF = {"users": "profile_id", "accounts": "account_id"}
_LINKED_BY = {"users": "user_profile_id", "accounts": "account_profile_id"}

# A node is a root profile, or a value that is on none. What a message named and lost is joined
# to the profiles that were kept apart by that, to its holder, and to the message's own profile.
_NODE = "coalesce(i.profile_id, concat_ws(chr(31), 'loose', d.type, d.value))"
_TIES = (
    """
    CREATE OR REPLACE TEMP TABLE removed AS
    SELECT * FROM dropped_identifiers WHERE collection = $1
    """,
    f"""
    CREATE OR REPLACE TEMP TABLE ties AS
    SELECT d.message_id, d.received_at, {_NODE} AS node
    FROM removed d LEFT JOIN graph_identifiers i USING (collection, type, value)
    UNION
    SELECT d.message_id, d.received_at, g.root_id
    FROM (SELECT message_id, received_at,
                 unnest(from_json(profiles_apart, '["VARCHAR"]')) AS profile_id FROM removed) d
    JOIN graph_roots g USING (profile_id)
    UNION
    SELECT d.message_id, d.received_at, g.root_id
    FROM removed d JOIN stored_profiles p
      ON p.collection = d.collection AND p.first_message_id = d.message_id
     AND p.created_at = d.received_at
    JOIN graph_roots g USING (profile_id)
    """,
)
# Where a decision took it away, nobody is named beside it: the message's own profile is looked up.
_HAS_DETACHED = "SELECT count(*) FROM removed WHERE profiles_apart = '[]'"
_OWN = """
INSERT INTO ties
SELECT DISTINCT d.message_id, d.received_at, g.root_id
FROM (SELECT * FROM removed WHERE profiles_apart = '[]') d
JOIN events e ON e.message_id = d.message_id AND e.received_at = d.received_at
JOIN graph_roots g ON g.profile_id = e.{own}
"""
_START = f"""
CREATE OR REPLACE TEMP TABLE reached AS
SELECT DISTINCT {_NODE} AS node
FROM decided d LEFT JOIN graph_identifiers i
  ON i.collection = $1 AND i.type = d.type AND i.value = d.value
"""
_FURTHER = """
CREATE OR REPLACE TEMP TABLE frontier AS
SELECT DISTINCT node FROM ties
SEMI JOIN (SELECT message_id, received_at FROM ties SEMI JOIN frontier USING (node)) m
  USING (message_id, received_at)
ANTI JOIN reached USING (node)
"""
_MEMBERS = """
CREATE OR REPLACE TEMP TABLE members AS
SELECT g.profile_id FROM graph_roots g JOIN reached r ON r.node = g.root_id
"""
_MESSAGES = """
CREATE OR REPLACE TEMP TABLE named_here AS
SELECT message_id, received_at FROM events
SEMI JOIN (SELECT profile_id AS {own} FROM members) m USING ({own})
"""
_RAW = """
SELECT r.* FROM raw_events r SEMI JOIN named_here USING (message_id, received_at)
WHERE r.load_id <= $1
"""
_HALVES = ", ".join(
    f"{half} AS {name}_{which}"
    for name in ("user", "account")
    for half, which in zip(halves_sql(f"{name}_profile_id"), ("high", "low"), strict=True)
)
_LINKS = f"""
SELECT *, {_HALVES} FROM (
    SELECT profile_id AS user_profile_id, account_id AS account_profile_id,
           min(received_at) AS first_at, arg_min(message_id, (received_at, message_id))
               AS first_message_id,
           max(received_at) AS last_at, arg_max(message_id, (received_at, message_id))
               AS last_message_id, load_id
    FROM (SELECT e.* REPLACE (n.{{own}} AS {{own}})
          FROM events e JOIN moved n USING (message_id, received_at))
    WHERE profile_id IS NOT NULL AND account_id IS NOT NULL GROUP BY ALL)
"""
# Which rows of each table the component's messages made.
_MADE = {
    "profiles": "SEMI JOIN members USING (profile_id)",
    "identifiers": "SEMI JOIN members USING (profile_id)",
    "merges": "SEMI JOIN (SELECT profile_id AS child_id FROM members) m USING (child_id)",
    "dropped_identifiers": (
        "SEMI JOIN (SELECT message_id, received_at, $1::VARCHAR AS collection FROM named_here) m "
        "USING (message_id, received_at, collection)"
    ),
    "account_links": "SEMI JOIN (SELECT profile_id AS {link} FROM members) m USING ({link})",
}


@dataclass(frozen=True)
class Component:
    """A component derived anew: the rows that take the place of those that it had.

    `session` is one on the lake that the component was found in, with what `put` needs.
    """

    session: Session
    collection: str
    messages: int
    rows: dict[str, pa.Table]


@contextmanager
def derived(
    lake: Lake,
    engine: Engine,
    loads: Sequence[Load],
    decided: Sequence[Decision],
    identifiers: Collection[Identifier],
    *,
    space_id: str,
) -> Iterator[Component]:
    """Replay the messages connected with these identifiers (of one collection) by themselves.

    Under all that was `decided`; `lake` holds the graph without the decisions on `identifiers`,
    and is only read.
    """
    (collection,) = {identifier[0] for identifier in identifiers}
    with engine.session(lake) as session:
        _find(session, collection, identifiers)
        through = max((load.through for load in loads), default=0)
        raw = session.fetch(_RAW, [through])
        with tempfile.TemporaryDirectory(prefix="personas-component-") as folder:
            alone = DeltaLake(folder)
            alone.append("raw_events", raw)
            there = raw.column("load_id").unique().to_pylist()
            some = [one for one in loads if any(one.after < at <= one.through for at in there)]
            replay(alone, engine, some, decided, space_id=space_id)
            with engine.session(alone) as made:
                rows = {
                    name: _made(made, name, collection)
                    for name in ("profiles", "identifiers", "merges", "dropped_identifiers")
                }
                made.view("events")
                own = _PROFILE_OF[collection]
                moved = made.fetch(f"SELECT message_id, received_at, {own} FROM events")
        session.register("moved", moved)
        rows["account_links"] = session.fetch(_LINKS.format(own=own))
        yield Component(session, collection, raw.num_rows, rows)


def put(component: Component, lake: Lake) -> None:
    """Write the component's rows in place of those that it had, to the same or another lake."""
    session, collection = component.session, component.collection
    for name, new in component.rows.items():
        session.view(f"whole_{name}", name)
        session.register("new_rows", new)
        which = _MADE[name].format(link=_LINKED_BY[collection]).replace("SEMI", "ANTI", 1)
        query = f"SELECT * FROM whole_{name} {which} UNION ALL BY NAME SELECT * FROM new_rows"
        parameters = [collection] if "$1" in query else None
        lake.replace(name, session.stream(query, parameters))
        lake.index(name)


def put_messages(component: Component, lake: Lake, columns: Collection[Typed] = ()) -> list[str]:
    """Lead the component's messages to their profiles; returns the months written anew."""
    return reassign(component.session, lake, _PROFILE_OF[component.collection], columns)


def _find(session: Session, collection: str, identifiers: Collection[Identifier]) -> None:
    """Leave `members(profile_id)` and `named_here(message_id, received_at)` of the component."""
    prepare(session)
    for name in ("dropped_identifiers", "events", "raw_events"):
        session.view(name)
    own = _PROFILE_OF[collection]
    names = [pa.array(list(column), pa.string()) for column in zip(*identifiers, strict=True)]
    session.register("decided", pa.table(names[1:], names=["type", "value"]))
    for statement, parameters in zip(_TIES, ([collection], None), strict=True):
        session.run(statement, parameters)
    if _one(session, _HAS_DETACHED):
        session.run(_OWN.format(own=own))
    session.run(_START, [collection])
    session.run("CREATE OR REPLACE TEMP TABLE frontier AS FROM reached")
    while _one(session, "SELECT count(*) FROM frontier"):
        session.run(_FURTHER)
        session.run("INSERT INTO reached FROM frontier")
    session.run(_MEMBERS)
    session.run(_MESSAGES.format(own=own))


def _made(session: Session, name: str, collection: str) -> pa.Table:
    session.view(name)
    return session.fetch(f"SELECT * FROM {name} WHERE collection = $1", [collection])


def _one(session: Session, query: str) -> int:
    return int(session.fetch(query).column(0)[0].as_py())
