"""A person's messages, out of `raw_events`, `rejected_events` and the landing copies.

The graph and `events` are derived from these anew afterwards.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

import pyarrow as pa
import sqlalchemy as sa

from personas_dagster.erasing.person import Person
from personas_dagster.events import staging
from personas_dagster.events.blanking import blank
from personas_dagster.events.landing import LandedFile
from personas_dagster.events.rebuilding import settings_of_loads
from personas_dagster.events.settings import EventSettings
from personas_dagster.identity.suppression import Suppressed, rows_naming
from personas_dagster.interfaces import Session
from personas_dagster.spaces import Space
from personas_dagster.state.schema import landing_files

_DATES = """
SELECT DISTINCT received_date FROM raw_events SEMI JOIN gone USING (file_id, line) ORDER BY ALL
"""
_KEPT = """
SELECT * FROM raw_events ANTI JOIN gone USING (file_id, line)
WHERE received_date BETWEEN $1 AND $2
"""
_REJECTED_DATES = """
SELECT received_date, count(*) AS n FROM rejected_events
WHERE regexp_matches(raw, $1) OR regexp_matches(coalesce(detail, ''), $1)
GROUP BY ALL ORDER BY ALL
"""
_REJECTED_KEPT = """
SELECT * FROM rejected_events
WHERE received_date BETWEEN $1 AND $2
  AND NOT (regexp_matches(raw, $3) OR regexp_matches(coalesce(detail, ''), $3))
"""
_WRITER = "deletion"
_REJECTED_LINES = "SELECT file_id, line FROM staged WHERE is_rejected AND regexp_matches(raw, $1)"


def remove(space: Space, person: Person, suppressed: Suppressed) -> dict[str, int]:
    """Remove them; rows by table, and lines of landed files."""
    lake, mine = space.lake, suppressed.of(person.identifiers)
    with space.engine.session(lake) as session:
        session.view("raw_events")
        gone = rows_naming(session, space.rules, mine, "raw_events")
    # Before the rows, which tell which copies they came from: one that was killed in between would
    # leave lines that nothing leads to.
    lines = _remove_from_landing(space, person, mine, set(gone.column("file_id").to_pylist()))
    with space.engine.session(lake) as session:
        session.view("raw_events")
        session.register("gone", gone)
        for first, last in _runs(session.fetch(_DATES).column(0).to_pylist()):
            lake.replace(
                "raw_events", session.stream(_KEPT, [first, last]), where=_between(first, last)
            )
        session.view("rejected_events")
        rejected = session.fetch(_REJECTED_DATES, [person.pattern])
        for first, last in _runs(rejected.column("received_date").to_pylist()):
            kept = session.stream(_REJECTED_KEPT, [first, last, person.pattern])
            lake.replace("rejected_events", kept, where=_between(first, last))
    return {
        "raw_events": gone.num_rows,
        "rejected_events": sum(rejected.column("n").to_pylist()),
        "landing": lines,
    }


def _remove_from_landing(space: Space, person: Person, mine: Suppressed, file_ids: set[int]) -> int:
    """Lines that were stored, and those that were duplicates or rejected."""
    staging.clear(space.landing, _WRITER)  # also where there is nothing more to stage
    query = sa.select(landing_files.c.file_id, landing_files.c.counts)
    for row in space.state.rows(query):
        counts = row["counts"] or {}
        if any(counts.get(name) for name in ("duplicates", "rejected", "suppressed")):
            file_ids.add(row["file_id"])
    files = [
        file
        for file in space.landing.files(landing_files.c.file_id.in_(sorted(file_ids)))
        if file.load_id is not None and file.path.exists()
    ]
    if not files:
        return 0
    settings = settings_of_loads(space.state, space.events)
    used = {file.load_id: settings[file.load_id] for file in files if file.load_id in settings}
    return blank(files, _lines(space, person, mine, files, used))


def _lines(
    space: Space,
    person: Person,
    mine: Suppressed,
    files: Sequence[LandedFile],
    settings: dict[int, EventSettings],
) -> pa.Table:
    with (
        staging.folder(space.landing, _WRITER) as folder,
        space.engine.session(space.lake) as session,
    ):
        staged = folder / "staged.parquet"
        staging.stage(files, session, staged, settings=settings)
        _view(session, str(staged))
        named = rows_naming(session, space.rules, mine, "staged_messages")
        rejected = session.fetch(_REJECTED_LINES, [person.pattern]).cast(named.schema)
        return pa.concat_tables([named, rejected])


def _view(session: Session, path: str) -> None:
    session.run("SET VARIABLE staged_file = $1", [path])
    session.run(
        "CREATE OR REPLACE TEMP VIEW staged AS "
        "SELECT * FROM read_parquet(getvariable('staged_file'))"
    )
    session.run(
        "CREATE OR REPLACE TEMP VIEW staged_messages AS SELECT * FROM staged WHERE NOT is_rejected"
    )


def _runs(dates: Sequence[dt.date]) -> list[tuple[dt.date, dt.date]]:
    """Dates as ranges of days that follow each other, so that few commits do it."""
    found: list[tuple[dt.date, dt.date]] = []
    for date in dates:
        if found and date - found[-1][1] == dt.timedelta(days=1):
            found[-1] = (found[-1][0], date)
        else:
            found.append((date, date))
    return found


def _between(first: dt.date, last: dt.date) -> str:
    return f"received_date >= '{first.isoformat()}' AND received_date <= '{last.isoformat()}'"
