"""Why two identifiers are one profile, or why not.

A message that attached an identifier or merged profiles joined all identifiers that it was left
with. The answer is the shortest chain of such messages from one identifier to the other; or,
for two profiles, the identifiers that protection removed where a message named both, and those
that a decision took away between them.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from personas_dagster.errors import PersonasError
from personas_dagster.identity.decisions import Decision, under_facts
from personas_dagster.identity.extract import KEY, combinations, others_of, prepare_extraction
from personas_dagster.identity.numbering import number
from personas_dagster.identity.outcome import DETACHED
from personas_dagster.identity.replaying import Load
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.interfaces import Session

Identifier = tuple[str, str]  # type, value


@dataclass(frozen=True)
class Joining:
    """A message of the chain, and the identifiers that it joined, one of the step before first."""

    message_id: str
    at: dt.datetime
    identifiers: tuple[Identifier, ...]


@dataclass(frozen=True)
class KeptApart:
    """An identifier that was removed from a message, and the limit that it would have broken."""

    message_id: str
    at: dt.datetime
    identifier: Identifier
    limit_broken: str


@dataclass(frozen=True)
class Explanation:
    """`chain` for one profile, `drops` for two."""

    profile_ids: tuple[str, str]
    chain: tuple[Joining, ...] = ()
    drops: tuple[KeptApart, ...] = ()

    @property
    def is_one_profile(self) -> bool:
        return self.profile_ids[0] == self.profile_ids[1]


_HELD = """
SELECT profile_id FROM graph_identifiers WHERE collection = $1 AND type = $2 AND value = $3
"""
_COMPONENT = """
SELECT type, value FROM graph_identifiers WHERE collection = $1 AND profile_id = $2
"""
# A messageId may come back after `dedupe_days`, so the instant tells messages apart too.
_JOINED_BY = """
CREATE OR REPLACE TEMP TABLE joined_by AS
SELECT i.first_message_id AS message_id, i.first_seen_at AS received_at, i.load_id
FROM identifiers i JOIN graph_roots g USING (profile_id)
WHERE i.collection = $1 AND g.root_id = $2
UNION
SELECT m.message_id, m.merged_at, m.load_id
FROM merges m JOIN graph_roots g ON g.profile_id = m.parent_id WHERE g.root_id = $2
"""
_JOINING = """
SELECT r.message_id, r.received_at, {columns}
FROM raw_events r SEMI JOIN (SELECT * FROM joined_by WHERE load_id = $1) j
  ON j.message_id = r.message_id AND j.received_at = r.received_at
WHERE r.load_id > $2 AND r.load_id <= $3
ORDER BY r.received_at, r.message_id
"""
_REMOVED = """
SELECT d.message_id, d.received_at, d.type, d.value
FROM dropped_identifiers d SEMI JOIN joined_by USING (message_id, received_at)
WHERE d.collection = $1
"""
# What a limit removed, or a decision did, from a message of one profile that touches the other;
# and what a decision removed from messages of both: the first of each.
_APART = f"""
WITH own AS (
    SELECT d.message_id, d.received_at, d.type, d.value, d.limit_broken, g.root_id
    FROM dropped_identifiers d
    JOIN events e ON e.message_id = d.message_id AND e.received_at = d.received_at
    JOIN graph_roots g
      ON g.profile_id = CASE WHEN $1 = 'users' THEN e.profile_id ELSE e.account_id END
    WHERE d.collection = $1
), detached AS (
    SELECT * FROM own WHERE limit_broken = '{DETACHED}' AND root_id IN ($2, $3)
), near AS (
    SELECT d.message_id, d.received_at, d.type, d.value, d.limit_broken, g.root_id
    FROM (SELECT message_id, received_at, type, value, limit_broken,
                 unnest(from_json(profiles_apart, '["VARCHAR"]')) AS profile_id
          FROM dropped_identifiers WHERE collection = $1) d
    JOIN graph_roots g USING (profile_id)
    UNION
    FROM own
    UNION
    SELECT d.* REPLACE (i.profile_id AS root_id) FROM detached d
    JOIN graph_identifiers i ON i.collection = $1 AND i.type = d.type AND i.value = d.value
), shared AS (
    SELECT type, value FROM detached GROUP BY ALL HAVING count(DISTINCT root_id) = 2
)
SELECT message_id, received_at, type, value, limit_broken FROM near
WHERE root_id IN ($2, $3)
GROUP BY ALL HAVING count(DISTINCT root_id) = 2
UNION
SELECT message_id, received_at, type, value, limit_broken FROM (
    FROM detached SEMI JOIN shared USING (type, value)
    QUALIFY row_number() OVER (
        PARTITION BY type, value, root_id ORDER BY received_at, message_id) = 1
)
ORDER BY received_at, message_id, type, value
"""


def explain(
    session: Session,
    loads: Sequence[Load],
    decided: Sequence[Decision],
    a: Identifier,
    b: Identifier,
    *,
    collection: str = "users",
) -> Explanation:
    """Why `a` and `b` are one profile or two. The session must be prepared (`views.prepare`).

    `loads` are those that the graph holds, with the rules that each was resolved with.

    Raises PersonasError for an identifier that no profile holds.
    """
    session.view("dropped_identifiers")
    held = (_holder(session, collection, a), _holder(session, collection, b))
    if held[0] == held[1]:
        joining = _joining(session, loads, decided, collection, held[0])
        return Explanation(held, chain=_chain(joining, a, b))
    session.view("events")
    rows = session.fetch(_APART, [collection, *held]).to_pylist()
    drops = (
        KeptApart(
            row["message_id"], row["received_at"], (row["type"], row["value"]), row["limit_broken"]
        )
        for row in rows
    )
    return Explanation(held, drops=tuple(drops))


def _holder(session: Session, collection: str, identifier: Identifier) -> str:
    found = session.fetch(_HELD, [collection, *identifier]).column(0).to_pylist()
    if not found:
        raise PersonasError(
            f"{identifier[0]}:{identifier[1]} is on no profile; it was never seen, is blocked, or "
            "was always removed by merge protection: look it up in dropped_identifiers"
        )
    return str(found[0])


def _joining(
    session: Session,
    loads: Sequence[Load],
    decided: Sequence[Decision],
    collection: str,
    profile_id: str,
) -> list[Joining]:
    """The messages that made a profile what it is, with the identifiers they were left with."""
    session.view("raw_events")
    prepare_extraction(session)
    session.run(_JOINED_BY, [collection, profile_id])
    known = {load.load_id: load for load in loads}
    messages: list[Joining] = []
    for row in _rows(session, "SELECT DISTINCT load_id FROM joined_by ORDER BY load_id"):
        load = known[row["load_id"]]
        places = {"after_load": load.after, "through_load": load.through}
        rules = under_facts(session, load.rules, decided, **places)
        columns = ", ".join(f"{sql} AS key_{name}" for name, sql in combinations(rules).items())
        span = [load.load_id, load.after, load.through]
        found = session.fetch(_JOINING.format(columns=columns), span)
        messages += _left_with(session, found, rules, collection, profile_id)
    return messages


def _left_with(
    session: Session, found: pa.Table, rules: IdentityRules, collection: str, profile_id: str
) -> list[Joining]:
    """Messages of one load and their identifiers, without what was removed from each."""
    keys = found.select([f"key_{name}" for name in KEY]).rename_columns(list(KEY))
    keys = keys.combine_chunks()
    numbered = number(keys, others_of(session, keys.column("others")), rules, collection)
    component = {tuple(row.values()) for row in _rows(session, _COMPONENT, collection, profile_id)}
    removed = defaultdict(set)
    for row in _rows(session, _REMOVED, collection):
        removed[row["message_id"], row["received_at"]].add((row["type"], row["value"]))
    kinds, values = numbered.types().to_pylist(), numbered.values.to_pylist()
    messages = []
    for spot, (name, at) in enumerate(
        zip(found.column(0).to_pylist(), found.column(1).to_pylist(), strict=True)
    ):
        # An alias under `alias: merge` has a second reading; only one of them is in the component.
        readings = [spot, *(numbered.instead[spot : spot + 1].tolist())]
        ids = dict.fromkeys(
            (kinds[i], values[i])
            for reading in readings
            if reading >= 0
            for i in numbered.members[numbered.offsets[reading] : numbered.offsets[reading + 1]]
        )
        kept = [i for i in ids if i in component and i not in removed[name, at]]
        messages.append(Joining(name, at, tuple(kept)))
    return messages


def _rows(session: Session, query: str, *parameters: Any) -> Sequence[Mapping[str, Any]]:
    rows: list[dict[str, Any]] = session.fetch(query, list(parameters)).to_pylist()
    return rows


def _chain(messages: Sequence[Joining], a: Identifier, b: Identifier) -> tuple[Joining, ...]:
    """The fewest messages from one identifier to the other; earlier ones first."""
    naming: defaultdict[Identifier, list[Joining]] = defaultdict(list)
    for message in messages:
        for identifier in message.identifiers:
            naming[identifier].append(message)
    came: dict[Identifier, tuple[Joining, Identifier] | None] = {a: None}
    queue = deque([a])
    while queue and b not in came:
        here = queue.popleft()
        for message in naming[here]:
            for there in message.identifiers:
                if there not in came:
                    came[there] = (message, here)
                    queue.append(there)
    chain: list[Joining] = []
    spot = b
    while (step := came[spot]) is not None:
        message, before = step
        others = (i for i in message.identifiers if i != before)
        chain.append(Joining(message.message_id, message.at, (before, *others)))
        spot = before
    return tuple(reversed(chain))


__all__ = ["Explanation", "Joining", "KeptApart", "explain"]
