"""Merge candidates: what a load of messages would do to the graph, before anything is done.

Reads the messages that are not in the graph yet, resolves them on top of the state that they
touch, and writes the outcome to the `candidate_*` tables under a load id of its own.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from personas_dagster.identity.extract import extract
from personas_dagster.identity.resolve import Limit, Resolver
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.identity.views import prepare
from personas_dagster.interfaces import Lake, Session

COLLECTIONS = ("users", "accounts")
_TICK = dt.timedelta(microseconds=1)

_MESSAGES = """
CREATE OR REPLACE TEMP TABLE load_messages AS
SELECT row_number() OVER (ORDER BY received_at, message_id) - 1 AS seq,
       message_id, received_at, source_id, type, user_id, anonymous_id, group_id, previous_id,
       traits, context, properties
FROM raw_events WHERE load_id > $1 AND load_id <= $2
"""
_IDS = """
CREATE OR REPLACE TEMP TABLE ids AS
SELECT row_number() OVER (ORDER BY type, value) - 1 AS id, type, value
FROM (SELECT DISTINCT type, value FROM load_ids WHERE collection = $1
      UNION
      SELECT type, value FROM touched_ids)
"""
_TOUCHED_PROFILES = """
CREATE OR REPLACE TEMP TABLE touched AS
SELECT p.profile_id, row_number() OVER (
           ORDER BY p.load_id, p.created_at, p.first_message_id, p.profile_id) - 1 AS number
FROM graph_profiles p
SEMI JOIN (
    SELECT g.profile_id FROM graph_identifiers g
    SEMI JOIN (SELECT DISTINCT type, value FROM load_ids WHERE collection = $1) l
    USING (type, value)
    WHERE g.collection = $1
) t USING (profile_id)
"""
_TOUCHED_IDS = """
CREATE OR REPLACE TEMP TABLE touched_ids AS
SELECT g.type, g.value, t.number, g.first_seen_at
FROM graph_identifiers g JOIN touched t USING (profile_id)
"""
_TOUCHED_MERGES = """
SELECT t.number, count(*) AS merges
FROM merges m JOIN graph_roots r ON r.profile_id = m.parent_id
JOIN touched t ON t.profile_id = r.root_id GROUP BY ALL
"""
_COMBINATIONS = """
CREATE OR REPLACE TEMP TABLE combinations AS
SELECT seq, list(i.id ORDER BY k.rank, l.place, i.id) AS ids
FROM (SELECT seq, type, value, min(place) AS place FROM load_ids
      WHERE collection = $1 GROUP BY ALL) l
JOIN ids i USING (type, value)
JOIN kinds k USING (type)
ANTI JOIN blocked_ids b USING (type, value)
GROUP BY seq
"""
_NUMBERED = """
CREATE OR REPLACE TEMP TABLE numbered AS
SELECT row_number() OVER (ORDER BY first) - 1 AS combination, ids, first
FROM (SELECT ids, min(seq) AS first FROM combinations GROUP BY ids)
"""
_NUMBERS = """
CREATE OR REPLACE TEMP TABLE numbers AS
SELECT number, profile_id, false AS is_new, NULL::BIGINT AS seq FROM touched
UNION ALL
SELECT n.number,
       CASE WHEN p.profile_id IS NULL THEN n.profile_id
            ELSE md5(concat_ws(chr(31), n.profile_id, n.message_id)) END, true, n.seq
FROM (
    SELECT c.number, c.seq, m.message_id,
           md5(concat_ws(chr(31), $1, $2, i.type, i.value)) AS profile_id
    FROM created c JOIN ids i USING (id) JOIN load_messages m USING (seq)
) n LEFT JOIN stored_profiles p USING (profile_id)
"""
_OUT: Mapping[str, str] = {
    "profiles": """
        SELECT n.profile_id, $1 AS collection, m.received_at AS created_at,
               m.message_id AS first_message_id, $2::BIGINT AS load_id
        FROM numbers n JOIN load_messages m USING (seq) WHERE n.is_new
    """,
    "identifiers": """
        SELECT $1 AS collection, i.type, i.value, n.profile_id, m.received_at AS first_seen_at,
               m.message_id AS first_message_id, m.source_id, $2::BIGINT AS load_id
        FROM attached a JOIN ids i USING (id) JOIN numbers n USING (number)
        JOIN load_messages m ON m.seq = a.seq
    """,
    "merges": """
        SELECT $1 AS collection, p.profile_id AS parent_id, c.profile_id AS child_id,
               m.received_at AS merged_at, m.message_id, j.identifiers, $2::BIGINT AS load_id
        FROM merged g JOIN numbers p ON p.number = g.parent JOIN numbers c ON c.number = g.child
        JOIN load_messages m ON m.seq = g.seq
        JOIN (SELECT child, to_json(list({'type': i.type, 'id': i.value} ORDER BY place))
                     AS identifiers
              FROM (SELECT child, unnest(joined) AS id, generate_subscripts(joined, 1) AS place
                    FROM merged) JOIN ids i USING (id) GROUP BY child) j ON j.child = g.child
    """,
    "dropped_identifiers": """
        SELECT m.message_id, m.received_at, $1 AS collection, i.type, i.value,
               d.broken AS limit_broken, to_json(coalesce(a.apart, [])) AS profiles_apart,
               $2::BIGINT AS load_id
        FROM dropped d JOIN ids i USING (id) JOIN load_messages m ON m.seq = d.seq
        LEFT JOIN (SELECT place, list(n.profile_id ORDER BY spot) AS apart
              FROM (SELECT place, unnest(apart) AS number, generate_subscripts(apart, 1) AS spot
                    FROM dropped) JOIN numbers n USING (number) GROUP BY place) a
        ON a.place = d.place
    """,
}
_ASSIGNED = """
CREATE OR REPLACE TEMP TABLE assigned AS
SELECT c.seq, coalesce(n.profile_id, g.profile_id) AS profile_id
FROM combinations c
JOIN ids i ON i.id = c.ids[1]
LEFT JOIN attached a ON a.id = i.id
LEFT JOIN numbers n USING (number)
LEFT JOIN identifiers g ON g.collection = $1 AND g.type = i.type AND g.value = i.value
"""
_LINKS = """
SELECT profile_id AS user_profile_id, account_id AS account_profile_id,
       min(received_at) AS first_at, arg_min(message_id, (received_at, message_id))
           AS first_message_id,
       max(received_at) AS last_at, arg_max(message_id, (received_at, message_id))
           AS last_message_id,
       $1::BIGINT AS load_id
FROM (SELECT seq, profile_id, account_id FROM message_profiles) JOIN load_messages USING (seq)
WHERE profile_id IS NOT NULL AND account_id IS NOT NULL
GROUP BY profile_id, account_id
"""
_HUBS = """
SELECT i.type, i.value, count(DISTINCT c.ids[1]) AS degree
FROM (SELECT DISTINCT ids, unnest(ids[2:]) AS id FROM combinations) c JOIN ids i USING (id)
GROUP BY i.type, i.value HAVING degree > $1
ORDER BY degree DESC, type, value LIMIT 20
"""


@dataclass(frozen=True)
class Proposal:
    """What a load would do: counts per collection, and identifiers that look like hubs."""

    load_id: int
    messages: int
    without_profile: int
    touched_profiles: int
    counts: Mapping[str, int]
    dropped_by_limit: Mapping[str, int]
    hubs: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def propose(
    session: Session,
    lake: Lake,
    rules: IdentityRules,
    *,
    space_id: str,
    load_id: int,
    after_load: int,
    through_load: int,
) -> Proposal:
    """Resolve the messages of the raw loads in (after_load, through_load] and write candidates."""
    session.view("raw_events")
    prepare(session)
    session.run(_MESSAGES, [after_load, through_load])
    if rules.alias == "merge":
        session.run(
            "CREATE OR REPLACE TEMP VIEW known_user_ids AS "
            "SELECT value FROM graph_identifiers WHERE type = 'user_id'"
        )
    extract(session, rules)
    _block(session, rules)
    hubs: list[dict[str, Any]] = []
    touched = 0
    parts: dict[str, list[pa.Table]] = {name: [] for name in _OUT}
    for collection in COLLECTIONS:
        touched += _resolve(session, rules, space_id=space_id, collection=collection)
        for name, query in _OUT.items():
            parts[name].append(session.fetch(query, [collection, load_id][: 1 + ("$2" in query)]))
        session.run(_ASSIGNED, [collection])
        session.run(f"CREATE OR REPLACE TEMP TABLE assigned_{collection} AS FROM assigned")
        if collection == "users":
            hubs = session.fetch(_HUBS, [rules.hub_degree]).to_pylist()
    session.run(
        "CREATE OR REPLACE TEMP TABLE message_profiles AS "
        "SELECT m.seq, m.message_id, u.profile_id, a.profile_id AS account_id "
        "FROM load_messages m LEFT JOIN assigned_users u USING (seq) "
        "LEFT JOIN assigned_accounts a USING (seq)"
    )
    counts = {
        name: lake.replace(f"candidate_{name}", pa.concat_tables(t)) for name, t in parts.items()
    }
    counts["account_links"] = lake.replace(
        "candidate_account_links", session.fetch(_LINKS, [load_id])
    )
    messages = lake.replace(
        "candidate_message_profiles",
        session.stream(
            "SELECT message_id, profile_id, account_id, $1::BIGINT AS load_id "
            "FROM message_profiles",
            [load_id],
        ),
    )
    without = session.fetch("SELECT count(*) FROM message_profiles WHERE profile_id IS NULL")
    drops = pa.concat_tables(parts["dropped_identifiers"])
    by_limit: dict[str, int] = {}
    for entry in drops.group_by("limit_broken").aggregate([([], "count_all")]).to_pylist():
        by_limit[entry["limit_broken"]] = entry["count_all"]
    return Proposal(
        load_id=load_id,
        messages=messages,
        without_profile=without.column(0)[0].as_py(),
        touched_profiles=touched,
        counts=counts,
        dropped_by_limit=by_limit,
        hubs=hubs,
    )


def _block(session: Session, rules: IdentityRules) -> None:
    """Leave `blocked_ids(type, value)`: what the rules never take as an identifier."""
    session.run("CREATE OR REPLACE TEMP TABLE blocked_ids(type VARCHAR, value VARCHAR)")
    for kind, entries in rules.blocked.items():
        for entry in entries:
            exact, pattern = (entry, None) if isinstance(entry, str) else (None, entry.pattern)
            session.run(
                "INSERT INTO blocked_ids SELECT DISTINCT type, value FROM load_ids "
                "WHERE (type = $1 OR $1 = '*') AND (value = $2 OR regexp_matches(value, $3))",
                [kind, exact, pattern],
            )


def _resolve(session: Session, rules: IdentityRules, *, space_id: str, collection: str) -> int:
    """Resolve one collection; leaves `ids`, `combinations`, `numbers` and the outcome tables.

    Returns how many profiles of the graph it touched.
    """
    session.run(_TOUCHED_PROFILES, [collection])
    session.run(_TOUCHED_IDS)
    session.run(_IDS, [collection])
    kinds = sorted(
        session.fetch("SELECT DISTINCT type FROM ids").column(0).to_pylist(), key=rules.rank
    )
    session.register(
        "kinds",
        pa.table(
            {"type": pa.array(kinds, pa.string()), "rank": pa.array(range(len(kinds)), pa.int32())}
        ),
    )
    session.run(_COMBINATIONS, [collection])
    session.run(_NUMBERED)
    resolver = _resolver(session, rules, kinds)
    _run(session, resolver)
    _register(session, resolver)
    session.run(_NUMBERS, [space_id, collection])
    return resolver.existing


def _resolver(session: Session, rules: IdentityRules, kinds: Sequence[str]) -> Resolver:
    types = session.fetch("SELECT k.rank FROM ids JOIN kinds k USING (type) ORDER BY id")
    limits = []
    for kind in kinds:
        rule = rules.rule(kind)
        window = None if rule.window is None else rule.window // _TICK
        limits.append(Limit(rule.limit, window, f"{kind}: {rule.text}"))
    resolver = Resolver(
        types.column(0).to_pylist(),
        limits,
        max_merges=rules.max_merges,
        max_identifiers=rules.max_identifiers,
    )
    merges = {row["number"]: row["merges"] for row in session.fetch(_TOUCHED_MERGES).to_pylist()}
    held = session.fetch(
        "SELECT t.number, list(i.id ORDER BY t.first_seen_at, i.id) AS ids, "
        "list(epoch_us(t.first_seen_at) ORDER BY t.first_seen_at, i.id) AS seen "
        "FROM touched_ids t JOIN ids i USING (type, value) GROUP BY t.number ORDER BY t.number"
    )
    for row in held.to_pylist():
        resolver.add_existing(
            merges.get(row["number"], 0), zip(row["ids"], row["seen"], strict=True)
        )
    return resolver


def _run(session: Session, resolver: Resolver) -> None:
    combinations = session.fetch("SELECT ids FROM numbered ORDER BY combination").column(0)
    ids: list[list[int]] = combinations.to_pylist()
    settled = bytearray(len(ids))
    stream = session.stream(
        "SELECT c.seq, epoch_us(m.received_at) AS instant, n.combination "
        "FROM combinations c JOIN numbered n USING (ids) JOIN load_messages m USING (seq) "
        "ORDER BY c.seq"
    )
    resolve = resolver.resolve
    for batch in stream:
        for seq, at, combination in zip(
            batch.column(0).to_pylist(),
            batch.column(1).to_pylist(),
            batch.column(2).to_pylist(),
            strict=True,
        ):
            if not settled[combination]:
                settled[combination] = resolve(seq, at, ids[combination])


def _register(session: Session, resolver: Resolver) -> None:
    big = pa.int64()
    session.register(
        "created",
        _columns(
            {"number": big, "seq": big, "id": big},
            [(resolver.existing + n, seq, i) for n, (seq, i) in enumerate(resolver.created)],
        ),
    )
    session.register(
        "attached",
        _columns(
            {"id": big, "number": big, "seq": big},
            [
                (i, resolver.attached[i], message)
                for i, message in enumerate(resolver.first_message)
                if message >= 0
            ],
        ),
    )
    session.register(
        "merged",
        _columns(
            {"parent": big, "child": big, "seq": big, "joined": pa.list_(big)},
            [(m.parent, m.child, m.message, list(m.joined)) for m in resolver.merges],
        ),
    )
    session.register(
        "dropped",
        _columns(
            {"place": big, "seq": big, "id": big, "broken": pa.string(), "apart": pa.list_(big)},
            [
                (n, d.message, d.identifier, d.broken, list(d.apart))
                for n, d in enumerate(resolver.drops)
            ],
        ),
    )


def _columns(schema: Mapping[str, pa.DataType], rows: Sequence[tuple[Any, ...]]) -> pa.Table:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    arrays = [pa.array(column, kind) for column, kind in zip(columns, schema.values(), strict=True)]
    return pa.table(arrays, names=list(schema))
