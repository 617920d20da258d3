"""The profile store kept in step with what was published: filled once, then changed.

What belongs here: what of a refresh the store does not hold yet. A fill takes everything; a
change takes profiles with new values, identifiers, merges and messages only. Where the graph is
not the one that the store grew from (it was rebuilt, somebody was deleted), the store is filled
anew.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from personas_dagster.errors import LakeUnavailable, StateUnavailable
from personas_dagster.identity import views
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.interfaces import Engine, Lake, Session
from personas_dagster.profiles import reading, rows, tables
from personas_dagster.profiles.behind import Behind
from personas_dagster.profiles.store import Held, ProfileStore, Published
from personas_dagster.profiles.touched import LOGS, find_touched, find_whole
from personas_dagster.traits import slices
from personas_dagster.traits.world import prepare_values

EVENT_DAYS = 14
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_HELD = 25_000_000  # values that are put together at once
_FAMILY_OF = """
CREATE OR REPLACE TEMP TABLE family AS
SELECT profile_id, root_id, profile_id = root_id AS is_root FROM graph_roots WHERE {some}
"""
_FILLING = 2  # batches that wait for the store: they are long, and of whole profiles
_GRAPH = ("profiles", "identifiers", "merges", "account_links")
_EXPECTED = {
    "new_events": "SELECT DISTINCT {part} AS part, profile_id FROM expected_events "
    "WHERE load_id > {events} AND profile_id IS NOT NULL ORDER BY ALL",
    "new_profiles": "SELECT DISTINCT profile_id FROM (SELECT load_id, "
    "unnest([profile_id, account_id]) AS profile_id FROM expected_events) "
    "WHERE load_id > {events} AND profile_id IS NOT NULL ORDER BY ALL",
    "new_identifiers": "SELECT type, value, collection FROM expected_identifiers "
    "WHERE load_id > {graph} ORDER BY ALL",
}
_LINKED = """
WHERE user_profile_id IN (SELECT profile_id FROM merged)
   OR account_profile_id IN (SELECT profile_id FROM merged)
   OR (user_profile_id, account_profile_id) IN (
       SELECT (coalesce(u.parent_id, l.user_profile_id),
               coalesce(a.parent_id, l.account_profile_id))
       FROM stored_links l
       LEFT JOIN graph_parents u ON u.child_id = l.user_profile_id
       LEFT JOIN graph_parents a ON a.child_id = l.account_profile_id
       WHERE l.load_id > {after})
"""


@dataclass(frozen=True)
class Kept:
    """What became of the store: `how` is `unchanged`, `changed` or `filled`, and `why` filled.

    `counts` are the rows that were written, by table; `profiles` is how many it holds.
    """

    how: str
    why: str = ""
    profiles: int = 0
    counts: Mapping[str, int] | None = None


def bring_up(
    store: ProfileStore, lake: Lake, engine: Engine, published: Published, *, rules: IdentityRules
) -> Kept:
    """Let the store hold what a refresh published.

    The caller sees to it that one process at a time does this. A process that dies on the way
    leaves the store as it was.
    """
    held = store.held()
    why = _why_anew(held, lake, published)
    if held is not None and not why:
        if _is_held(held, published):
            return Kept("unchanged")
        found = _change(store, lake, engine, published, held, rules)
        if found is not None:
            return found
        why = "its rows did not add up with the graph"
    return _fill(store, lake, engine, published, rules, why)


def expect(session: Session, store: ProfileStore, *, refresh_id: int) -> None:
    """Tell the store of the rows that a refresh's messages bring, so that it can find their places
    while what is shown of them is computed."""
    held = None
    with suppress(StateUnavailable):  # `bring_up` meets it too, when all else is done
        held = store.held()
    if held is None or held.format != tables.FORMAT:
        return
    session.view("expected_events", "events", after_load=held.event_load)
    session.view("expected_identifiers", "identifiers", after_load=held.graph_load)
    part = tables.part_of(f"epoch_us(timestamp) // {tables.DAY}", refresh_id)
    loads = {"events": held.event_load, "graph": held.graph_load, "part": part}
    for table, query in _EXPECTED.items():
        for rows_of in session.stream(query.format(**loads)):
            store.expect(table, rows_of)


def _is_held(held: Held, published: Published) -> bool:
    return (held.refresh_id, held.computed, held.audiences) == (
        published.refresh_id,
        published.computed,
        published.audiences,
    )


def _why_anew(held: Held | None, lake: Lake, published: Published) -> str:
    """Why the store cannot be changed into what was published; empty when it can."""
    if held is None:
        return "it was empty"
    if held.format != tables.FORMAT:
        return "an older version made it"
    if held.refresh_id > published.refresh_id:
        return "it holds a refresh that is not there"
    try:
        before, now = lake.at(held.versions), lake.at(published.versions)
        grew = all(set(before.files(table)) <= set(now.files(table)) for table in _GRAPH)
    except LakeUnavailable:
        grew = False
    return "" if grew else "the graph was made again"


def _since(as_of: dt.datetime) -> dt.datetime:
    return as_of - dt.timedelta(days=EVENT_DAYS)


def _micros(instant: dt.datetime) -> int:
    return (instant - _EPOCH) // dt.timedelta(microseconds=1)


def _fill(
    store: ProfileStore,
    lake: Lake,
    engine: Engine,
    published: Published,
    rules: IdentityRules,
    why: str,
) -> Kept:
    with engine.session(lake.at(published.versions)) as session, store.fill() as writer:
        views.prepare(session)
        rows.prepare_messages(session)
        with Behind(writer, waiting=_FILLING) as behind:
            counts = _copy_all(session, behind, published, rules)
        writer.hold(_held(session, published))
    return Kept("filled", why, counts["profiles"], counts)


def _copy_all(
    session: Session, behind: Behind, published: Published, rules: IdentityRules
) -> Mapping[str, int]:
    counts: Counter[str] = Counter(traits=0)
    for name, query in {
        "profiles": rows.whole_profiles(),
        "identifiers": rows.IDENTIFIERS.format(identifiers="identifiers"),
        "parents": rows.PARENTS.format(of=""),
        "links": rows.LINKS.format(where=""),
    }.items():
        counts[name] = behind.copy(name, session.stream(query))
    session.view("audience_changes")
    values = 0
    for table in (*LOGS, "audience_memberships"):
        session.view(table)
        values += _count(session, table)
    for some in slices.conditions(values, most=_HELD, column="root_id"):
        session.run(_FAMILY_OF.format(some=some))
        _prepare_family(session, published)
        counts["traits"] += behind.copy(
            "traits", session.stream(rows.traits(through=published.refresh_id))
        )
    since = _since(published.as_of)
    events = rows.events(
        session,
        rules=rules,
        since=since,
        as_of=published.as_of,
        after_load=0,
        refresh_id=published.refresh_id,
    )
    counts["events"] = behind.copy("events", events)
    behind.copy("event_parts", session.stream(rows.PARTS_OF_EVENTS))
    return counts


def _count(session: Session, table: str) -> int:
    return int(session.fetch(f"SELECT count(*) FROM {table}").column(0)[0].as_py())


def _held(session: Session, published: Published) -> Held:
    return Held(
        format=tables.FORMAT,
        refresh_id=published.refresh_id,
        as_of=published.as_of,
        versions=dict(published.versions),
        graph_load=max(session.newest(table, "load_id") for table in _GRAPH),
        event_load=session.newest("events", "load_id"),
        events_since=_micros(_since(published.as_of)),
        computed=published.computed,
        audiences=published.audiences,
    )


class _Differs(Exception):
    """After a change the store has not the rows that the graph has."""


def _change(
    store: ProfileStore,
    lake: Lake,
    engine: Engine,
    published: Published,
    held: Held,
    rules: IdentityRules,
) -> Kept | None:
    """Write what the store does not hold; None, with nothing written, if that is not enough."""
    try:
        with engine.session(lake.at(published.versions)) as session, store.change() as writer:
            views.prepare(session)
            rows.prepare_messages(session, after_load=held.event_load)
            with Behind(writer) as behind:
                counts = _write(session, behind, store, held, published, rules)
                now = _held(session, published)
                graph = {
                    "profiles": views.profiles(session),
                    "identifiers": _count(session, "identifiers"),
                }
            writer.hold(now)
            there = writer.counts()
            if there != graph:
                raise _Differs
    except _Differs:
        return None
    return Kept("changed", "", there["profiles"], counts)


def _write(
    session: Session,
    behind: Behind,
    store: ProfileStore,
    held: Held,
    published: Published,
    rules: IdentityRules,
) -> Mapping[str, int]:
    """Change the store's tables; returns the rows that were written, by table."""
    counts: Counter[str] = Counter()
    since = _since(published.as_of)

    def new_rows(table: str) -> Iterator[pa.RecordBatchReader]:
        if table == "new_events":
            yield rows.events(
                session,
                rules=rules,
                since=since,
                as_of=published.as_of,
                after_load=held.event_load,
                refresh_id=published.refresh_id,
            )
        elif table == "new_event_parts":
            yield session.stream(rows.PARTS_OF_EVENTS)
        else:
            yield from _new_rows(session, table, held, published)

    def take(step: tables.Step) -> None:
        staged, statements = step
        for table in staged:
            for rows_of in new_rows(table):
                counts[table.removeprefix("new_")] += behind.copy(table, rows_of)
        for statement in statements:
            behind.run(statement)

    take(tables.MESSAGES)
    for statement in tables.PRUNE:
        behind.run(statement, {"part": tables.first_part(_micros(since))})
    find_touched(session, held)
    for step in tables.GRAPH:
        take(step)
    find_whole(session, held, published)
    take(tables.CHANGED)
    _prepare_whole(session, store, published)
    for step in tables.WHOLE:
        take(step)
    first = max(held.refresh_id, published.refresh_id - tables.LANES)
    for refresh_id in range(first + 1, published.refresh_id + 1):
        behind.run(tables.CLEAN, {"lane": tables.lane_of(refresh_id)})
    behind.run(tables.CLEANED, {"through": published.refresh_id - tables.LANES})
    return counts


def _prepare_whole(session: Session, store: ProfileStore, published: Published) -> None:
    """All that whole rows of values are made of."""
    session.register("folded_traits", _folded(session, store, published))
    if _count(session, "whole"):
        _prepare_family(session, published)


def _prepare_family(session: Session, published: Published) -> None:
    """What is shown of the profiles in `family(profile_id, root_id)`, which has every child too."""
    prepare_values(session, defined=published.computed, of="family")
    session.run(
        "CREATE OR REPLACE TEMP TABLE family_changes AS "
        "SELECT c.audience, f.root_id AS profile_id, c.at "
        "FROM audience_changes c JOIN family f USING (profile_id)"
    )
    rows.prepare_values(session, audiences=published.audiences)


def _new_rows(
    session: Session, table: str, held: Held, published: Published
) -> Iterator[pa.RecordBatchReader]:
    """What of the snapshot belongs into a staged table of profiles."""
    of_merged = "SEMI JOIN merged ON merged.profile_id = parent_id"
    if table == "new_traits":
        if _count(session, "whole"):
            yield session.stream(rows.traits(through=published.refresh_id))
        yield session.stream("SELECT * FROM folded_traits")
    else:
        yield session.stream(
            {
                "new_profiles": rows.new_profiles(after_load=held.graph_load),
                "new_parents": rows.PARENTS.format(of=of_merged),
                "new_identifiers": rows.IDENTIFIERS.format(identifiers="new_identifiers"),
                "whole": "SELECT profile_id FROM whole",
                "new_folded": "SELECT profile_id, through FROM folded_traits",
                "new_links": rows.LINKS.format(where=_LINKED.format(after=held.graph_load)),
                "new_trait_changes": "SELECT * FROM changed_traits ANTI JOIN folded "
                "USING (profile_id) ORDER BY lane, profile_id, refresh_id",
            }[table]
        )


def _folded(session: Session, store: ProfileStore, published: Published) -> pa.Table:
    """Whole rows of traits of the profiles in `folded`, of what the store has and what changed;
    also where nothing is left, as older rows are there still.

    A loop in Python: a 24th of the profiles that changed, and what readers see is what is written.
    """
    new = session.fetch(
        "SELECT profile_id, body FROM changed_traits SEMI JOIN folded USING (profile_id) "
        "ORDER BY profile_id, refresh_id"
    )
    ids = pc.unique(new.column("profile_id")).to_pylist()
    bodies = reading.trait_bodies(store, ids)
    for profile_id, body in zip(*new.to_pydict().values(), strict=True):
        bodies[profile_id].append(body)
    whole = {
        "profile_id": ids,
        "body": [reading.folded(bodies[profile_id]) for profile_id in ids],
        "through": [published.refresh_id] * len(ids),
    }
    kinds = {"profile_id": pa.string(), "body": pa.string(), "through": pa.int64()}
    return pa.table(whole, pa.schema(kinds))
