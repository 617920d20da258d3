"""A session with just the relations that one plan reads, so that a small question is cheap.

`asking.answers` prepares everything that any query may read. Of a large space most of that is
identifiers and trait logs, which a preview seldom needs.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlglot import exp

from personas_dagster.asking import is_past, referenced
from personas_dagster.interfaces import Session
from personas_dagster.query import Definition, Plan, check, evaluate, plan, typed_columns
from personas_dagster.spaces import Space
from personas_dagster.traits.custom import custom_values, show_custom_values
from personas_dagster.traits.world import prepare_messages, prepare_traits, prepare_values

_KNOWN = "'user_id', 'email', 'android.idfa', 'ios.idfa'"
_FEW = 6  # statements of a plan
_HOLDS = """
g.profile_id IN (SELECT profile_id FROM graph_identifiers WHERE type IN ({types}))
"""
_PROFILES = """
CREATE OR REPLACE TEMP {kind} profiles AS
SELECT g.collection, g.profile_id, {is_known} AS is_known, {is_anonymous} AS has_anonymous_id
FROM graph_profiles g
"""


def chosen(
    space: Space, definitions: Sequence[Definition], *, as_of: dt.datetime
) -> tuple[Definition, ...]:
    """The definitions, and with them what they reference, at an instant before the last refresh."""
    if not is_past(space, as_of):
        return tuple(definitions)
    own = {one.key for one in definitions}
    more = [one for one in referenced(space, definitions) if one.key not in own]
    return (*definitions, *more)


def plan_of(space: Space, definitions: Sequence[Definition], *, as_of: dt.datetime) -> Plan:
    """The plan that answers these definitions at an instant."""
    found = chosen(space, definitions, as_of=as_of)
    return plan(found, as_of=as_of, audiences=space.audience_keys)


@contextmanager
def evaluated(
    space: Space, definitions: Sequence[Definition], *, as_of: dt.datetime
) -> Iterator[Session]:
    """A session that holds `results` of these definitions, the graph's relations and `members`."""
    definitions = chosen(space, definitions, as_of=as_of)
    draft = plan(definitions, as_of=as_of, audiences=space.audience_keys)
    read = {table.name for _, query in draft.statements for table in query.find_all(exp.Table)}
    columns = {c.name for _, query in draft.statements for c in query.find_all(exp.Column)}
    keys = {key for one in definitions for key in check(one).references}
    with space.bare_session() as session:
        prepare_values(session, defined=space.computed_keys, keys=sorted(keys))
        if "traits" in read and is_past(space, as_of):
            custom_values(session, as_of=as_of, promote=space.promotions, conflicts=space.conflicts)
            show_custom_values(session)
        layers = prepare_messages(session, typed_columns(definitions))
        kind = "VIEW" if len(draft.statements) <= _FEW else "TABLE"
        if {"traits", "former_members"} & read:
            _profiles(session, set(), kind)
            prepare_traits(session, as_of=as_of)
        _profiles(session, columns, kind)
        session.run("CREATE OR REPLACE TEMP VIEW account_links AS SELECT * FROM graph_links")
        made = plan(definitions, as_of=as_of, audiences=space.audience_keys, layers=layers)
        evaluate(session, made)
        yield session


def _profiles(session: Session, columns: set[str], kind: str) -> None:
    """The profiles; what they hold only where a plan asks for it.

    As a view, for a plan of few steps: whom its conditions leave out costs nothing more.
    """
    parts = {
        "is_known": _HOLDS.format(types=_KNOWN) if "is_known" in columns else "false",
        "is_anonymous": _HOLDS.format(types="'anonymous_id'")
        if "has_anonymous_id" in columns
        else "false",
    }
    session.run(_PROFILES.format(kind=kind, **parts))
