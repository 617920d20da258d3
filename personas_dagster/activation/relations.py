"""Connections and a destination's abilities as relations, for the SQL that finds differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pyarrow as pa

from personas_dagster.activation.connection import Connection, forms_of
from personas_dagster.activation.destination import Abilities
from personas_dagster.interfaces import Session


def register(
    session: Session,
    connections: Sequence[Connection],
    abilities: Abilities,
    *,
    first: frozenset[str],
    resync: Mapping[str, int],
) -> None:
    """Leaves `sync_connections`, `sync_matches` (the identifier types that the tool knows people
    by, best first) and `sync_enrich` (the traits that go along)."""
    session.register("sync_connections", _connections(connections, abilities, first, resync))
    session.register("sync_matches", _matches(abilities))
    session.register("sync_enrich", _enrich(connections, abilities))


def _connections(
    connections: Sequence[Connection],
    abilities: Abilities,
    first: frozenset[str],
    resync: Mapping[str, int],
) -> pa.Table:
    forms = [forms_of(c, abilities) for c in connections]
    return pa.table(
        {
            "connection": [c.name for c in connections],
            "destination": [c.destination for c in connections],
            "key": [c.key for c in connections],
            "kind": [str(c.kind) for c in connections],
            "collection": [str(c.collection) for c in connections],
            "email": [str(c.email) for c in connections],
            "seed": [_seed(c, abilities) for c in connections],
            "exit_value": [c.exit_value for c in connections],
            "is_first": [c.name in first for c in connections],
            "resync_from": pa.array([resync.get(c.name, 0) for c in connections], pa.int64()),
            "backfill": [c.backfill and abilities.takes_historical for c in connections],
            "resend": [c.resend_new_identifiers for c in connections],
            "alias": [c.alias and abilities.knows_alias for c in connections],
            "to_accounts": ["group" in one for one in forms],
            "to_users": [bool({"identify", "track", "add"} & set(one)) for one in forms],
        }
    )


def _seed(connection: Connection, abilities: Abilities) -> str:
    """What recipients depend on besides identifiers; another seed has all of them built anew."""
    known = (connection.kind, connection.email, *_matched(abilities))
    return "/".join(("1", *known))


def _matched(abilities: Abilities) -> list[str]:
    """Identifier types that the tool knows people by: a user id first, an anonymous one last."""
    types = [t for t in abilities.matches_on if t != "user_id"]
    if "user_id" in abilities.matches_on:
        types.insert(0, "user_id")
    if abilities.takes_anonymous and "anonymous_id" not in types:
        types.append("anonymous_id")
    return types


def _matches(abilities: Abilities) -> pa.Table:
    types = _matched(abilities)
    return pa.table(
        {
            "collection": [*("users" for _ in types), "accounts"],
            "type": [*types, "group_id"],
            "rank": pa.array([*range(len(types)), 0], pa.int64()),
        }
    )


def _enrich(connections: Sequence[Connection], abilities: Abilities) -> pa.Table:
    pairs = [(c.name, key) for c in connections for key in {*c.enrich, *abilities.requires}]
    return pa.table(
        {
            "connection": pa.array([name for name, _ in pairs], pa.string()),
            "key": pa.array([key for _, key in pairs], pa.string()),
        }
    )
