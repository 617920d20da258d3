"""The suppression list of a space: read from its state, and held against what comes in."""

from __future__ import annotations

import secrets

import sqlalchemy as sa

from personas_dagster.events.writing import Suppress
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.identity.suppression import Suppressed, rows_naming
from personas_dagster.state import State
from personas_dagster.state.schema import suppression_salt, suppressions


def suppressed(state: State) -> Suppressed:
    """The list; its salt is made when it is first asked for."""
    found = state.rows(sa.select(suppression_salt))
    if not found:
        with state.begin() as connection:
            if connection.execute(sa.select(suppression_salt)).first() is None:
                row = sa.insert(suppression_salt).values(salt=secrets.token_hex(32))
                connection.execute(row)
        found = state.rows(sa.select(suppression_salt))
    hashes = state.rows(sa.select(suppressions.c.sha256))
    return Suppressed(found[0]["salt"], frozenset(row["sha256"] for row in hashes))


def filter_of(state: State, rules: IdentityRules) -> Suppress | None:
    """What a load asks which messages it must not store; None where nobody was deleted."""
    if not state.rows(sa.select(suppressions.c.sha256).limit(1)):
        return None
    found = suppressed(state)
    return lambda session, relation: rows_naming(session, rules, found, relation)
