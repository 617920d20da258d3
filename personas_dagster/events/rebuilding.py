"""Materialising partitions again from the landing copies.

The rows of other partitions are taken as they are; those of the given dates are found anew,
by the same rule and the settings that each load was started with.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import sqlalchemy as sa

from personas_dagster.errors import InputError
from personas_dagster.events import staging
from personas_dagster.events.landing import LandedFile, Landing
from personas_dagster.events.settings import EventSettings
from personas_dagster.events.writing import StagedRows, Suppress, spans, together
from personas_dagster.interfaces import Engine, Lake
from personas_dagster.state import State
from personas_dagster.state.schema import landing_files, loads

T = TypeVar("T")
_AT_ONCE = 200


@dataclass(frozen=True)
class RebuildReport:
    """What the partitions hold now, and from how many landed files."""

    dates: tuple[dt.date, ...]
    files: int = 0
    accepted: int = 0
    rejected: int = 0
    duplicates: int = 0


def rebuild(
    landing: Landing,
    lake: Lake,
    engine: Engine,
    state: State,
    *,
    settings: EventSettings,
    dates: Sequence[dt.date],
    suppress: Suppress | None = None,
) -> RebuildReport:
    """Materialise partitions of `raw_events` and `rejected_events` again, row for row.

    `settings` are used for what loads do not keep. A load under way must be finished before.
    """
    again = tuple(sorted(set(dates)))
    by_load = settings_of_loads(state, settings)
    files = _files_with(landing, state, set(again), set(by_load))
    if not again:
        return RebuildReport(again)
    windows = {load_id: own.dedupe_days for load_id, own in by_load.items()}
    with staging.folder(landing, "rebuild") as folder, engine.session(lake) as session:
        staged = folder / "staged.parquet"
        used = {file.load_id: by_load[file.load_id] for file in files if file.load_id}
        staging.stage(files, session, staged, settings=used, dates=again)
        rows = StagedRows(
            session, staged, files, windows=windows, made_again=again, suppress=suppress
        )
        total = together(rows.counts().values())
        for date in again:
            total.read_dates[str(date)] += 0  # a partition that is left empty, too
        for span in spans(total):
            where = _where([date for date in again if span.first <= date <= span.last])
            if span.accepted or lake.files("raw_events"):
                lake.replace("raw_events", rows.accepted(span), where=where)
            if span.rejected or lake.files("rejected_events"):
                lake.replace("rejected_events", rows.rejected(span), where=where)
    return RebuildReport(again, len(files), total.accepted, total.rejected, total.duplicates)


def settings_of_loads(state: State, settings: EventSettings) -> dict[int, EventSettings]:
    """The settings that each finished load was started with; `settings` for what it lacks."""
    query = sa.select(loads.c.load_id, loads.c.counts).where(loads.c.status == "loaded")
    return {row["load_id"]: settings.as_recorded(row["counts"]) for row in state.rows(query)}


def _files_with(
    landing: Landing, state: State, dates: set[dt.date], load_ids: set[int]
) -> list[LandedFile]:
    """The landed files that have messages of these dates."""
    received = sa.cast(landing_files.c.received_dates, sa.Text)
    query = sa.select(landing_files.c.file_id, landing_files.c.load_id)
    touching = {
        row["file_id"]
        for some in _parts(sorted(dates))
        for row in state.rows(query.where(sa.or_(*(received.contains(f'"{d}"') for d in some))))
        if row["load_id"] in load_ids
    }
    files = [
        file
        for some in _parts(sorted(touching))
        for file in landing.files(landing_files.c.file_id.in_(some))
    ]
    missing = [file for file in files if not file.path.exists()]
    if missing:
        raise InputError(
            f"{missing[0].path}: the landing copy of {missing[0].name} is gone; "
            "put it back before its partitions are materialised again"
        )
    return files


def _parts(values: list[T]) -> Iterator[list[T]]:
    """As many as one query may name."""
    return (values[start : start + _AT_ONCE] for start in range(0, len(values), _AT_ONCE))


def _where(dates: Sequence[dt.date]) -> str:
    return " OR ".join(f"received_date = '{date.isoformat()}'" for date in dates)
