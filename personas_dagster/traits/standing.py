"""What the last refresh left standing: which values hold, as of when, computed from what.

What belongs here: the record that a refresh keeps of its computation, and which profiles it
leaves to be computed again. What does not: the computation (`compute`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any

import pyarrow as pa
from sqlglot import exp

from personas_dagster.errors import LakeUnavailable
from personas_dagster.identity import views
from personas_dagster.interfaces import Lake, Session
from personas_dagster.lake.halves import halves_sql, id_sql
from personas_dagster.query import Definition, sql
from personas_dagster.query.comparators import shift
from personas_dagster.query.references import known
from personas_dagster.query.timing import Timing, downstream, fingerprint, timing

_GRAPH = ("profiles", "identifiers", "merges", "account_links")
_LOGS = ("custom_traits", "computed_traits", "sql_traits")
MOST = 0.3  # of the profiles; beyond that, all are computed
SAMPLE = 200  # profiles
_ROUNDS = 20
_HIGH, _LOW = halves_sql("profile_id")
_NEW = """
SELECT profile_id FROM events WHERE load_id > {after} AND profile_id IS NOT NULL
UNION ALL SELECT profile_id FROM stored_profiles WHERE load_id > {after}
UNION ALL SELECT profile_id FROM identifiers WHERE load_id > {after}
UNION ALL SELECT unnest([parent_id, child_id]) FROM merges WHERE load_id > {after}
UNION ALL SELECT unnest([user_profile_id, account_profile_id]) FROM stored_links
          WHERE load_id > {after}
"""
_SAID = """
UNION ALL SELECT profile_id FROM {log} SEMI JOIN read_keys USING (key)
          WHERE refresh_id > {after}
"""
# Few messages lie in an hour that a window's edge passed: only they are compared with the edges,
# of which there are dozens.
_NEAR_EVENTS = """
FROM events
WHERE month IN (FROM edge_months) AND epoch_us(timestamp) // 3600000000 IN (FROM edge_hours)
"""
# By integers, which are read in half the time of texts; files of earlier versions have none.
_NEAR = f"""
CREATE OR REPLACE TEMP TABLE near_edges AS
SELECT profile_high, profile_low, NULL::VARCHAR AS profile_id, event, timestamp {_NEAR_EVENTS}
  AND profile_low IS NOT NULL
UNION ALL
SELECT NULL, NULL, profile_id, event, timestamp {_NEAR_EVENTS}
  AND profile_low IS NULL AND profile_id IS NOT NULL
"""
_CROSSED = f"""
UNION ALL SELECT coalesce(profile_id, {id_sql("profile_high", "profile_low")})
FROM (SELECT DISTINCT profile_high, profile_low, profile_id FROM near_edges WHERE {{crossed}})
"""
_TOUCHED = """
CREATE OR REPLACE TEMP TABLE touched AS
SELECT DISTINCT coalesce(m.parent_id, t.profile_id) AS profile_id
FROM ({some}) t LEFT JOIN graph_parents m ON m.child_id = t.profile_id
"""
# Values of an account hang on all of its users, and users' on their accounts'.
_LINKED = """
INSERT INTO touched
SELECT DISTINCT profile_id FROM (
    SELECT l.account_profile_id AS profile_id FROM graph_links l
    SEMI JOIN touched t ON t.profile_id = l.user_profile_id
    UNION ALL
    SELECT l.user_profile_id FROM graph_links l
    SEMI JOIN touched t ON t.profile_id = l.account_profile_id
) ANTI JOIN touched USING (profile_id)
"""
_SAMPLED = """
INSERT INTO touched
SELECT profile_id FROM graph_profiles ANTI JOIN touched USING (profile_id)
WHERE hash(profile_id, {seed:d}) % {every:d} = 0
"""
_STORED = """
CREATE OR REPLACE TEMP TABLE touched_ids AS
WITH numbered AS MATERIALIZED (
    SELECT profile_id, row_number() OVER () AS number FROM touched
)
SELECT profile_id, profile_id AS root_id, number FROM numbered
UNION ALL
SELECT m.child_id, m.parent_id, n.number
FROM graph_parents m JOIN numbered n ON n.profile_id = m.parent_id
"""
_BY_NUMBER = f"""
CREATE OR REPLACE TEMP TABLE by_number AS
SELECT profile_id, number AS root_id, profile_id = root_id AS is_root,
       {_HIGH} AS profile_high, {_LOW} AS profile_low
FROM touched_ids
"""
# The roots as the values that stand knew them.
_THEN = """
CREATE OR REPLACE TEMP TABLE roots_then AS
SELECT t.profile_id, coalesce(m.parent_id, t.profile_id) AS root_id,
       m.parent_id IS NULL AS is_root
FROM touched_ids t
LEFT JOIN (SELECT child_id, parent_id FROM merges WHERE load_id <= {load}) m
    ON m.child_id = t.profile_id
"""
_CLIMB = """
CREATE OR REPLACE TEMP TABLE roots_then AS
SELECT r.profile_id, coalesce(up.root_id, r.root_id) AS root_id, r.is_root
FROM roots_then r LEFT JOIN roots_then up ON up.profile_id = r.root_id
"""
_CLIMBING = """
SELECT count(*) FROM roots_then r JOIN roots_then up ON up.profile_id = r.root_id
WHERE up.root_id <> r.root_id
"""


# Those that were merged since: only their values were held by others then.
_MOVED = """
CREATE OR REPLACE TEMP TABLE moved AS
SELECT DISTINCT t.number
FROM touched_ids t JOIN roots_then r USING (profile_id) WHERE t.root_id <> r.root_id
"""


@dataclass(frozen=True)
class Base:
    """A finished refresh that another one can build on."""

    refresh_id: int
    as_of: dt.datetime
    versions: Mapping[str, int]
    load_id: int  # messages and graph up to this load
    messages: int  # of those loads
    rules: str = ""  # of custom traits


@dataclass(frozen=True)
class Standing(Base):
    """A refresh that computed: what it held of each definition."""

    _: KW_ONLY
    fingerprints: Mapping[str, str]
    held: Mapping[str, int]  # profiles with a value, members


@dataclass(frozen=True)
class Check:
    """How the values of profiles that nothing touched compare with what is stored of them."""

    profiles: int
    wrong: Sequence[tuple[str, str]]  # key, profile


def record_of(
    session: Session, definitions: Sequence[Definition], audiences: Collection[str]
) -> dict[str, Any]:
    """What a refresh keeps with its counts, so that the next one can build on it."""
    return {**seen(session), "fingerprints": fingerprints(definitions, audiences)}


def seen(session: Session) -> dict[str, int]:
    """Of which messages something was computed."""
    session.view("events")
    return {
        "load_id": session.newest("events", "load_id"),
        "messages": scalar(session, "SELECT count(*) FROM events"),
    }


def fingerprints(definitions: Sequence[Definition], audiences: Collection[str]) -> dict[str, str]:
    among = known(definitions)
    return {one.key: fingerprint(one, among, audiences) for one in definitions}


def standing_of(rows: Iterator[Mapping[str, Any]] | Sequence[Mapping[str, Any]]) -> list[Standing]:
    """Refreshes (rows of the state's table, the newest first) that left a record.

    One that found stored values wrong left none, and those before it are not built on.
    """
    found = []
    for row in rows:
        counts = row["counts"] or {}
        made = counts.get("computed", {})
        if made is None:
            break
        if made and row["versions"]:
            sizes = {key: one["size"] for key, one in counts.get("audiences", {}).items()}
            found.append(
                Standing(
                    row["refresh_id"],
                    row["as_of"],
                    row["versions"],
                    made["load_id"],
                    made["messages"],
                    fingerprints=made["fingerprints"],
                    held={**counts.get("traits_held", {}), **sizes},
                )
            )
    return found


def base_of_custom(rows: Sequence[Mapping[str, Any]]) -> Base | None:
    """The newest refresh (rows as above) that brought custom traits up to its instant.

    One that found stored values wrong left no record, and those before it are not built on.
    """
    for row in rows:
        made = (row["counts"] or {}).get("custom", {})
        if made is None:
            return None
        if made and row["versions"]:
            return Base(
                row["refresh_id"],
                row["as_of"],
                row["versions"],
                made["load_id"],
                made["messages"],
                made["rules"],
            )
    return None


def divide(
    definitions: Sequence[Definition], stands: Sequence[Standing], audiences: Collection[str]
) -> tuple[Standing | None, list[Definition]]:
    """The refresh to build on, and the definitions whose values stand since then.

    A definition is computed for everybody when it is new, changed, compared with the clock, or
    reads an audience that is not computed now; and when it reads such a one.
    """
    wanted = fingerprints(definitions, audiences)
    newest: dict[str, Standing] = {}
    for one in reversed(stands):
        newest |= dict.fromkeys(one.fingerprints, one)
    best: Standing | None = None
    kept: list[Definition] = []
    for base in stands:
        there = [
            d
            for d in definitions
            if newest.get(d.key) is base and base.fingerprints[d.key] == wanted[d.key]
        ]
        if len(there) > len(kept):
            best, kept = base, there
    elsewhere = frozenset(audiences) - wanted.keys()
    keys = {one.key for one in kept if _may_stand(timing(one), elsewhere)}
    anew = downstream([one for one in definitions if one.key not in keys], definitions)
    rest = {one.key for one in anew}
    return best, [one for one in definitions if one.key not in rest]


def _may_stand(one: Timing, elsewhere: frozenset[str]) -> bool:
    return not one.by_the_clock and not one.stored & elsewhere


def touch(
    session: Session,
    lake: Lake,
    base: Standing,
    definitions: Sequence[Definition],
    *,
    as_of: dt.datetime,
    refresh_id: int,
    sample: int = SAMPLE,
) -> int | None:
    """Leave `touched(profile_id)`: the profiles whose values of `definitions` may have changed.

    And `touched_ids(profile_id, root_id, number)`, these and those merged into them, with a number
    for each root; `by_number(profile_id, root_id)`, the same with the numbers as roots, which are
    cheaper to compute with; `roots_then`, the roots of those at `base`, and `moved(number)`, whose
    roots have changed since; `checked(profile_id)`, profiles that are computed beside them to show
    that the others' values stand. Returns how many are touched; None when all have to be computed:
    the graph or the messages were derived anew, or too many profiles are touched.

    The session must have the graph's relations.
    """
    session.view("events")
    for log in _LOGS:
        session.view(log)
    if not grew(session, lake, base):
        return None
    times = [timing(one) for one in definitions]
    keys = sorted({key for one in times for key in one.stored})
    session.register("read_keys", pa.table({"key": pa.array(keys, pa.string())}))
    some = _NEW.format(after=int(base.load_id))
    for log in _LOGS:
        some += _SAID.format(log=log, after=int(base.refresh_id))
    some += _edges(session, times, base.as_of, as_of)
    session.run(_TOUCHED.format(some=some))
    linked = any(one.collection == "accounts" for one in definitions)
    profiles = views.profiles(session)
    most = max(int(MOST * profiles), 1_000)
    if not _closed(session, linked, most):
        return None
    touched = scalar(session, "SELECT count(*) FROM touched")
    session.run("CREATE OR REPLACE TEMP TABLE surely_touched AS FROM touched")
    if sample:
        session.run(_SAMPLED.format(seed=refresh_id, every=max(1, profiles // sample)))
    if not _closed(session, linked, 2 * most):
        session.run("CREATE OR REPLACE TEMP TABLE touched AS FROM surely_touched")
    session.run(
        "CREATE OR REPLACE TEMP TABLE checked AS "
        "FROM touched ANTI JOIN surely_touched USING (profile_id)"
    )
    session.run(_STORED)
    session.run(_BY_NUMBER)
    session.run(_THEN.format(load=int(base.load_id)))
    while scalar(session, _CLIMBING):
        session.run(_CLIMB)
    session.run(_MOVED)
    return touched


def grew(session: Session, lake: Lake, base: Base) -> bool:
    """Whether messages and graph are those of `base` and more, nothing taken away or changed."""
    before = lake.at(base.versions)
    try:
        if any(not set(before.files(table)) <= set(lake.files(table)) for table in _GRAPH):
            return False
    except LakeUnavailable:  # upkeep took the old version away
        return False
    query = f"SELECT count(*) FROM events WHERE load_id <= {int(base.load_id)}"
    return scalar(session, query) == base.messages


def _closed(session: Session, linked: bool, most: int) -> bool:
    """Take in what accounts and users share, until nothing is added; False beyond `most`."""
    for _ in range(_ROUNDS):
        before = scalar(session, "SELECT count(*) FROM touched")
        if before > most:
            return False
        if not linked:
            return True
        session.run(_LINKED)
        if scalar(session, "SELECT count(*) FROM touched") == before:
            return True
    return False


def _edges(session: Session, times: Sequence[Timing], before: dt.datetime, now: dt.datetime) -> str:
    """The profiles of messages that entered or left a window between two instants; or nothing."""
    delays: dict[str, set[dt.timedelta]] = {}
    for one in times:
        for event, delay in one.edges:
            delays.setdefault(event, set()).add(delay)
    spans = {
        event: sorted((shift(before, -delay), shift(now, -delay)) for delay in some)
        for event, some in delays.items()
    }
    if not spans:
        return ""
    hours, months = set[int](), set[str]()
    crossed: list[exp.Expr] = []
    for event, some in sorted(spans.items()):
        stamps: list[exp.Expr] = []
        for low, high in some:
            hours |= set(range(_hour(low), _hour(high) + 1))
            months |= months_between(low, high)
            stamps.append(
                exp.Between(
                    this=sql.column("timestamp"), low=sql.instant(low), high=sql.instant(high)
                )
            )
        named = sql.compare("=", sql.column("event"), sql.text(event))
        crossed.append(sql.all_of([named, sql.any_of(stamps)]))
    session.register("edge_hours", pa.table({"hour": pa.array(sorted(hours), pa.int64())}))
    session.register("edge_months", pa.table({"month": pa.array(sorted(months), pa.string())}))
    session.run(_NEAR)
    return _CROSSED.format(crossed=sql.any_of(crossed).sql(dialect="duckdb"))


def _hour(instant: dt.datetime) -> int:
    """The number of the instant's hour since 1970."""
    return int(instant.timestamp() // 3600)


def months_between(low: dt.datetime, high: dt.datetime) -> set[str]:
    first, last = (moment.year * 12 + moment.month - 1 for moment in (low, high))
    return {f"{month // 12:04}-{month % 12 + 1:02}" for month in range(first, last + 1)}


def scalar(session: Session, query: str) -> int:
    """The one number that a query answers with."""
    return int(session.fetch(query).column(0)[0].as_py())
