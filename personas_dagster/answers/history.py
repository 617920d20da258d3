"""Traits and audiences as they were: each day as if it were computed at its beginning.

A day stands for the instant at which it begins, in UTC. What messages said until then is the same
whoever asks; whose messages they are is not, so the graph may be that of now, or the one that the
messages received by then made.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa

from personas_dagster.asking import referenced
from personas_dagster.errors import PersonasError
from personas_dagster.identity import views
from personas_dagster.interfaces import Session
from personas_dagster.lake.tables import TABLES
from personas_dagster.query import Definition, check, evaluate, plan, typed_columns
from personas_dagster.query.compile_events import MESSAGES, Layer
from personas_dagster.refresh import dated_definitions
from personas_dagster.spaces import Space
from personas_dagster.traits import custom
from personas_dagster.traits.world import (
    prepare_messages,
    prepare_profiles,
    prepare_traits,
    prepare_values,
)

Knowledge = Literal["now", "then"]
Sizes = dict[str, dict[dt.date, int]]

_TABLES = (
    """
    CREATE OR REPLACE TEMP TABLE found_traits (history_date DATE, as_of TIMESTAMPTZ,
        knowledge VARCHAR, collection VARCHAR, profile_id VARCHAR, key VARCHAR, value VARCHAR)
    """,
    """
    CREATE OR REPLACE TEMP TABLE found_audiences (history_date DATE, as_of TIMESTAMPTZ,
        knowledge VARCHAR, audience VARCHAR, collection VARCHAR, profile_id VARCHAR)
    """,
)
_TRAITS = """
INSERT INTO found_traits
SELECT $1::DATE, $2::TIMESTAMPTZ, $3, collection, profile_id, key, value
FROM results WHERE kind = 'trait' AND key IN (SELECT key FROM wanted_keys)
"""
_AUDIENCES = """
INSERT INTO found_audiences
SELECT $1::DATE, $2::TIMESTAMPTZ, $3, key, collection, profile_id
FROM results WHERE kind = 'audience' AND key IN (SELECT key FROM wanted_keys)
"""
_KNOWN_MESSAGES = """
CREATE OR REPLACE TEMP VIEW messages AS
SELECT e.event, coalesce(m.parent_id, e.profile_id) AS profile_id, e.timestamp, e.received_at,
       e.message_id, e.source_id, e.properties, e.context
FROM (SELECT * FROM events WHERE received_at <= (SELECT max(instant) FROM known_at)) e
LEFT JOIN graph_parents m ON m.child_id = e.profile_id
WHERE e.profile_id IS NOT NULL
"""
_SAID = """
CREATE OR REPLACE TEMP TABLE said AS
SELECT * FROM all_said
WHERE timestamp <= $1 AND ($2::TIMESTAMPTZ IS NULL OR received_at <= $2)
"""
_SIZES = """
SELECT {key} AS key, history_date, count(*) AS n FROM {table} GROUP BY ALL ORDER BY ALL
"""
_READ = """
SELECT history_date, profiles FROM history_sizes
WHERE key = $1 AND ($2::DATE IS NULL OR history_date >= $2)
  AND ($3::DATE IS NULL OR history_date <= $3)
ORDER BY history_date
"""


@dataclass(frozen=True)
class Backfilled:
    """Members of each audience, and profiles with a value of each trait, by day."""

    days: Sequence[dt.date]
    audiences: Sizes = field(default_factory=dict)
    traits: Sizes = field(default_factory=dict)


def instant_of(day: dt.date) -> dt.datetime:
    """The instant that a day stands for."""
    return dt.datetime.combine(day, dt.time(), dt.UTC)


def backfill(
    space: Space,
    days: Sequence[dt.date],
    *,
    owner: str,
    knowledge: Knowledge = "now",
    keys: Collection[str] = (),
    traits: bool = True,
    audiences: bool = True,
    progress: Callable[[int], None] | None = None,
) -> Backfilled:
    """Evaluate the space's definitions (only `keys`, if given) at each day, and write the days.

    What a day held before is replaced. Reads what the last refresh published. `Busy` when another
    backfill of the space runs.
    """
    wanted = _wanted(space, keys, traits=traits, audiences=audiences)
    chosen = [*wanted, *_needed(space, wanted)]
    days = sorted(days)
    lease = space.state.lease("history", owner=owner, holder="a backfill of the history")
    with lease, space.bare_session() as session:
        names = pa.array([one.key for one in wanted], pa.string())
        session.register("wanted_keys", pa.table({"key": names}))
        for statement in _TABLES:
            session.run(statement)
        layers = _prepared(space, session, chosen, days, knowledge)
        reads_custom = _reads_custom(chosen)
        for number, day in enumerate(days, start=1):
            _evaluate(space, session, chosen, day, knowledge, layers, reads_custom)
            if progress:
                progress(number)
        kinds = {one.key: one.kind for one in wanted}
        for kind, (table, found, key) in _PLACES.items():
            _write(space, session, table, found, key, days, _of(kinds, kind))
        done = Backfilled(
            days,
            _sizes(session, *_PLACES["audience"][1:], days, _of(kinds, "audience")),
            _sizes(session, *_PLACES["trait"][1:], days, _of(kinds, "trait")),
        )
        _write_sizes(space, done, knowledge)
        return done


_PLACES = {
    "trait": ("trait_history", "found_traits", "key"),
    "audience": ("audience_history", "found_audiences", "audience"),
}


def _of(kinds: Mapping[str, str], kind: str) -> list[str]:
    return sorted(key for key, one in kinds.items() if one == kind)


def _wanted(
    space: Space, keys: Collection[str], *, traits: bool, audiences: bool
) -> list[Definition]:
    kinds = {"trait"} if traits else set()
    kinds |= {"audience"} if audiences else set()
    own = dated_definitions(space)
    unknown = sorted(set(keys) - {one.key for one in own})
    if unknown:
        there = ", ".join(sorted(one.key for one in own)) or "none is declared"
        raise PersonasError(
            f"no trait or audience `{unknown[0]}` in space {space.name}; expected some of: {there}"
        )
    return [one for one in own if one.kind in kinds and (not keys or one.key in keys)]


def _needed(space: Space, wanted: Sequence[Definition]) -> list[Definition]:
    """What they reference, also through others."""
    own = {one.key for one in wanted}
    return [one for one in referenced(space, wanted) if one.key not in own]


def _reads_custom(chosen: Sequence[Definition]) -> bool:
    own = {one.key for one in chosen}
    return any(key not in own for one in chosen for key in check(one).references)


def _prepared(
    space: Space,
    session: Session,
    chosen: Sequence[Definition],
    days: Sequence[dt.date],
    knowledge: Knowledge,
) -> Sequence[Layer]:
    """What stays the same from day to day."""
    keys = sorted({key for one in chosen for key in check(one).references})
    prepare_values(session, defined=space.computed_keys, keys=keys)
    if _reads_custom(chosen):
        custom.gather(session, until=instant_of(days[-1]), promote=space.promotions)
        session.run("ALTER TABLE said RENAME TO all_said")
    layers = prepare_messages(session, typed_columns(tuple(chosen)))
    session.run("CREATE OR REPLACE TEMP VIEW account_links AS SELECT * FROM graph_links")
    prepare_profiles(session)
    return MESSAGES if knowledge == "then" else layers


def _evaluate(
    space: Space,
    session: Session,
    chosen: Sequence[Definition],
    day: dt.date,
    knowledge: Knowledge,
    layers: Sequence[Layer],
    reads_custom: bool,
) -> None:
    as_of = instant_of(day)
    known = as_of if knowledge == "then" else None
    if known is not None:
        views.prepare(session, known_at=known)
        session.register("known_at", pa.table({"instant": pa.array([known])}))
        session.run(_KNOWN_MESSAGES)
        prepare_profiles(session)
    if reads_custom:
        session.run(_SAID, [as_of, known])
        custom.newest(session, conflicts=space.conflicts)
        custom.show_custom_values(session)
    prepare_traits(session, as_of=as_of)
    made = plan(chosen, as_of=as_of, audiences=space.audience_keys, layers=layers)
    evaluate(session, made)
    for statement in (_TRAITS, _AUDIENCES):
        session.run(statement, [day, as_of, knowledge])


def _write(
    space: Space,
    session: Session,
    table: str,
    found: str,
    key: str,
    days: Sequence[dt.date],
    keys: Collection[str],
) -> None:
    """Put what was found in place of these days and keys; nothing else changes."""
    if keys:
        rows = session.stream(f"SELECT * FROM {found} ORDER BY history_date, {key}, profile_id")
        space.lake.replace(table, rows, where=_where(key, days, keys))


def _where(key: str, days: Sequence[dt.date], keys: Collection[str]) -> str:
    """Keys are snake_case: nothing in them needs quoting."""
    dates = ", ".join(f"'{day.isoformat()}'" for day in days)
    names = ", ".join(f"'{one}'" for one in sorted(keys))
    return f"history_date IN ({dates}) AND {key} IN ({names})"


def _write_sizes(space: Space, done: Backfilled, knowledge: Knowledge) -> None:
    rows = [
        {"history_date": day, "as_of": instant_of(day), "knowledge": knowledge, "kind": kind,
         "key": key, "profiles": number}
        for kind, held in (("audience", done.audiences), ("trait", done.traits))
        for key, by_day in held.items()
        for day, number in by_day.items()
    ]  # fmt: skip
    if rows:
        table = pa.Table.from_pylist(rows, schema=TABLES["history_sizes"].schema)
        keys = [*done.audiences, *done.traits]
        space.lake.replace("history_sizes", table, where=_where("key", done.days, keys))


def _sizes(
    session: Session, table: str, key: str, days: Sequence[dt.date], keys: Collection[str]
) -> Sizes:
    """A number for each day, 0 where nothing was found."""
    found: Sizes = {one: dict.fromkeys(days, 0) for one in sorted(keys)}
    for row in session.fetch(_SIZES.format(key=key, table=table)).to_pylist():
        found[row["key"]][row["history_date"]] = row["n"]
    return found


def sizes(
    space: Space, key: str, *, first: dt.date | None = None, last: dt.date | None = None
) -> Mapping[dt.date, int]:
    """Of each day that was backfilled: the members of an audience, or a trait's profiles.

    PersonasError when nothing of it was backfilled.
    """
    is_audience = key in space.audience_keys
    if not is_audience and key not in space.computed_keys:
        there = ", ".join(sorted([*space.audience_keys, *space.computed_keys]))
        raise PersonasError(
            f"no trait or audience `{key}` in space {space.name}; expected one of: {there}"
        )
    with space.engine.session(space.lake) as session:
        session.view("history_sizes")
        rows = session.fetch(_READ, [key, first, last]).to_pylist()
    if not rows:
        table = "audience_history" if is_audience else "trait_history"
        raise PersonasError(
            f"no day of `{key}` is in the history; materialise a range of days of {table} in "
            "Dagster's UI"
        )
    return {row["history_date"]: row["profiles"] for row in rows}
