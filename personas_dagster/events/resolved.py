"""`events`: messages resolved to profiles, in the sorted layout that the compute reads.

Each load appends one file a month, sorted by event, profile and time; a month that has gathered
many files is rewritten as one. Properties that definitions read are kept as typed columns too
(`query/typed.py`): a load fills them, and months from before are filled when they are rewritten.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa
from sqlglot import exp

from personas_dagster.interfaces import Lake, Part, Session
from personas_dagster.lake.halves import halves_sql
from personas_dagster.query import sql, typed
from personas_dagster.query.typed import Typed

_MANY_FILES = 12

_HIGH, _LOW = halves_sql("profile_id")
_RESOLVED = f"""
CREATE OR REPLACE TEMP VIEW resolved_rows AS
SELECT event, profile_id, timestamp, received_at, message_id, type, account_id, source_id,
       properties, traits, context, {{load_id:d}}::BIGINT AS load_id,
       strftime(timestamp, '%Y-%m') AS month, {_HIGH} AS profile_high, {_LOW} AS profile_low
FROM resolved_messages
"""
_MOVED = """
CREATE OR REPLACE TEMP VIEW moved_{layer} AS
SELECT e.* REPLACE (CASE WHEN m.message_id IS NULL THEN e.{owner} ELSE m.{owner} END AS {owner},
                    CASE WHEN m.message_id IS NULL THEN e.profile_high END AS profile_high,
                    CASE WHEN m.message_id IS NULL THEN e.profile_low END AS profile_low)
FROM {layer} e LEFT JOIN moved m ON m.message_id = e.message_id AND m.received_at = e.received_at
"""
# Files of earlier versions have texts only.
_NARROW = f"""
CREATE OR REPLACE TEMP VIEW narrow_{{layer}} AS
SELECT * REPLACE (coalesce(profile_high, {_HIGH}) AS profile_high,
                  coalesce(profile_low, {_LOW}) AS profile_low)
FROM {{layer}}
"""
_TEXTS_ONLY = """
SELECT DISTINCT month FROM events WHERE profile_low IS NULL AND profile_id IS NOT NULL
"""
_MONTHS = "SELECT DISTINCT month FROM events SEMI JOIN moved USING (message_id, received_at)"
_ORDER = ("event", "profile_id", "timestamp", "message_id")


def append_resolved(
    session: Session,
    lake: Lake,
    *,
    load_id: int,
    columns: Collection[Typed] = (),
    months: Sequence[dt.datetime] = (),
    once: bool = True,
) -> int:
    """Append the session's `resolved_messages` (identity/assignment.py), once per load id.

    `columns` are the typed columns that definitions read. `months` are beginnings of months: the
    messages between two of them are sorted at once. With `once=False` also those of a load that
    was written before: when all is written anew.
    """
    session.run(_RESOLVED.format(load_id=load_id))
    columns = _columns(lake, columns)

    def rows(low: dt.datetime | None, high: dt.datetime | None) -> pa.RecordBatchReader:
        query = typed.filled(columns, "resolved_rows")
        if low is not None:
            query.where(sql.compare(">=", sql.column("timestamp"), sql.instant(low)), copy=False)
        if high is not None:
            query.where(sql.compare("<", sql.column("timestamp"), sql.instant(high)), copy=False)
        return session.stream(_sorted(query, "month", *_ORDER))

    first, *others = zip([None, *months], [*months, None], strict=True)
    reader = rows(*first)
    if others:
        later = (batch for some in others for batch in rows(*some))
        reader = pa.RecordBatchReader.from_batches(reader.schema, chain(reader, later))
    return lake.append("events", reader, once=("identity", load_id) if once else None)


@dataclass
class _Run:
    """Files that were sorted as one: how many messages, and their last load."""

    rows: int
    last: int


def crowded_months(lake: Lake) -> dict[str, int | None]:
    """The months whose messages lie in many files; and after which load those that should be one
    begin, or None: all."""
    months: dict[str, list[Part]] = {}
    for part in lake.parts("events"):
        months.setdefault(part.file.split("month=")[1].split("/")[0], []).append(part)
    found: dict[str, int | None] = {}
    for month, parts in sorted(months.items()):
        runs = _runs(parts)
        if runs is None:  # a writer did not say
            if len(parts) >= _MANY_FILES:
                found[month] = None
        elif len(runs) >= _MANY_FILES:
            newer = _worth_joining(runs)
            if newer > 1:
                found[month] = runs[-newer - 1].last if newer < len(runs) else None
    return found


def _runs(parts: Sequence[Part]) -> list[_Run] | None:
    """The oldest first. A large run is several files, which hold the same loads."""
    runs: list[_Run] = []
    for part in sorted(parts, key=lambda one: (one.first_load or 0, one.last_load or 0)):
        if part.rows is None or part.first_load is None or part.last_load is None:
            return None
        if runs and part.first_load <= runs[-1].last:
            runs[-1].rows += part.rows
            runs[-1].last = max(runs[-1].last, part.last_load)
        else:
            runs.append(_Run(part.rows, part.last_load))
    return runs


def _worth_joining(runs: Sequence[_Run]) -> int:
    """How many of the newest: up to one that is larger than twice all after it, so that a month is
    written anew when what came since is half as much."""
    rows = 0
    for newer, run in enumerate(reversed(runs)):
        if newer and run.rows > 2 * rows:
            return newer
        rows += run.rows
    return len(runs)


def compact(session: Session, lake: Lake, columns: Collection[Typed] = ()) -> list[str]:
    """Rewrite the newest files of each crowded month as one that is sorted, and with them older
    ones that are not much larger; returns the months. No row changes."""
    months = crowded_months(lake)
    for month, after in months.items():
        _rewrite(session, lake, month, columns, after=after)
    return list(months)


def unfilled(session: Session, columns: Collection[Typed]) -> dict[str, int]:
    """The months that lack some of these typed columns or an id's halves, and how many messages
    they hold."""
    names = {one.name for one in columns}
    found: Counter[str] = Counter()
    lacking: set[str] = set()
    for layer, held in session.layers("events", names):
        query = f"SELECT month, count(*) AS n FROM {layer} GROUP BY month"
        counts = {row["month"]: row["n"] for row in session.fetch(query).to_pylist()}
        found.update(counts)
        if held < names:
            lacking.update(counts)
    session.view("events")
    lacking.update(session.fetch(_TEXTS_ONLY).column("month").to_pylist())
    return {month: found[month] for month in sorted(lacking, reverse=True)}


def fill(
    session: Session, lake: Lake, columns: Collection[Typed], *, at_most: int | None = None
) -> list[str]:
    """Fill typed columns of earlier months from their JSON, and ids' halves, the newest first;
    returns the months.

    `at_most` messages are rewritten, so that a refresh does only so much of it.
    """
    done: list[str] = []
    for month, messages in unfilled(session, columns).items():
        if at_most is not None:
            if messages > at_most:
                continue
            at_most -= messages
        _rewrite(session, lake, month, columns)
        done.append(month)
    return done


def reassign(
    session: Session, lake: Lake, owner: str, columns: Collection[Typed] = ()
) -> list[str]:
    """Give messages another `profile_id` or `account_id` (`owner`): those in the session's
    `moved(message_id, received_at, owner)`. Returns the months that were rewritten for it."""
    session.view("events")
    months = sorted(session.fetch(_MONTHS).column("month").to_pylist())
    for month in months:
        _rewrite(session, lake, month, columns, moved=owner)
    return months


def _rewrite(
    session: Session,
    lake: Lake,
    month: str,
    columns: Collection[Typed],
    *,
    moved: str | None = None,
    after: int | None = None,
) -> None:
    """Write a month's messages anew, or those of the loads `after` one."""
    some = [sql.compare("=", sql.column("month"), sql.text(month))]
    if after is not None:
        some.append(sql.compare(">", sql.column("load_id"), sql.number(after)))
    chosen = sql.all_of(some)
    wanted = _columns(lake, columns)
    parts = []
    for layer, held in session.layers("events", [one.name for one in wanted]):
        if moved is not None:
            session.run(_MOVED.format(layer=layer, owner=moved))
            layer = f"moved_{layer}"
        session.run(_NARROW.format(layer=layer))
        part = typed.filled(wanted, f"narrow_{layer}", held)
        part.set("where", exp.Where(this=chosen.copy()))
        parts.append(part)
    union: exp.Expr = parts[0]
    for part in parts[1:]:
        union = exp.Union(this=union, expression=part, distinct=False)
    rows = sql.select([sql.everything()], sql.subquery(union, "layers"))
    ordered = session.stream(_sorted(rows, *_ORDER))
    lake.replace("events", ordered, where=chosen.sql(dialect="duckdb"))


def _columns(lake: Lake, wanted: Collection[Typed]) -> Sequence[Typed]:
    """Those that are wanted and those that the table has: each file that is written has all."""
    there = [typed.named(name) for name in lake.derived("events")]
    return sorted({*wanted, *(one for one in there if one)})


def _sorted(query: exp.Select, *names: str) -> exp.Select:
    query.set("order", sql.ordered([sql.column(name) for name in names]))
    return query
