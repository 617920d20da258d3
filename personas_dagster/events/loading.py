"""Taking landed files into the lake, once, whatever interrupts it.

A load is a row in `loads` with a fixed set of files. Everything that follows is a function of
those files, of earlier loads and of the settings kept with it, and is written under the load's
number, so that doing it again after an interruption gives the same.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from personas_dagster.events import staging
from personas_dagster.events.blanking import blank
from personas_dagster.events.landing import LandedFile, Landing
from personas_dagster.events.settings import EventSettings
from personas_dagster.events.writing import Counts, StagedRows, Suppress, spans, together
from personas_dagster.interfaces import Engine, Lake
from personas_dagster.state import State
from personas_dagster.state.schema import landing_files, loads

WRITER = "load"


@dataclass(frozen=True)
class LoadReport:
    """What one call of `load` took in. `load_id`: the last load, None when nothing was pending."""

    load_id: int | None = None
    load_ids: tuple[int, ...] = ()
    files: int = 0
    bytes: int = 0
    accepted: int = 0
    rejected: int = 0
    duplicates: int = 0
    suppressed: int = 0
    known_files: int = 0  # found again since the last load, and not landed
    damaged: dict[str, str] = field(default_factory=dict)  # file: what is wrong
    reasons: dict[str, int] = field(default_factory=dict)
    clock_skew: int = 0
    oversize: int = 0
    empty_group_ids: int = 0
    received_dates: dict[dt.date, int] = field(default_factory=dict)  # partitions: accepted

    def as_json(self) -> dict[str, Any]:
        """For printing: dates as text, no rows of single loads."""
        return {
            "load_id": self.load_id,
            "files": self.files,
            "bytes": self.bytes,
            "accepted": self.accepted,
            "rejected": self.rejected,
            "duplicates": self.duplicates,
            "suppressed": self.suppressed,
            "known_files": self.known_files,
            "damaged": self.damaged,
            "reasons": self.reasons,
            "clock_skew": self.clock_skew,
            "oversize": self.oversize,
            "empty_group_ids": self.empty_group_ids,
            "received_dates": {str(date): n for date, n in self.received_dates.items()},
        }


@dataclass(frozen=True)
class _Loaded:
    load_id: int
    files: list[LandedFile]
    damages: dict[int, str]  # by file
    counts: dict[int, Counts]  # by file


def load(
    landing: Landing,
    lake: Lake,
    engine: Engine,
    state: State,
    *,
    settings: EventSettings,
    now: dt.datetime,
    progress: Callable[[int], None] | None = None,
    suppress: Suppress | None = None,
) -> LoadReport:
    """Take all pending files into `raw_events` and `rejected_events`.

    A load that was interrupted is finished first, with its own files and settings. `progress`
    is told how many bytes of the landed files were read since it was last told. Messages that
    `suppress` names are counted, not stored, and taken out of the landing copies.
    """
    done: list[_Loaded] = []
    while begun := _begin(landing, state, settings, now):
        load_id, files, own = begun
        done.append(_run(load_id, files, own, landing, lake, engine, progress, suppress))
        _finish(state, done[-1], own, now)
    return _report(done, known_files=len(landing.take_known()))


def _begin(
    landing: Landing, state: State, settings: EventSettings, now: dt.datetime
) -> tuple[int, list[LandedFile], EventSettings] | None:
    """The load under way, else a new one with all files that wait, else None."""
    with state.begin() as connection:
        under_way = connection.execute(
            sa.select(loads.c.load_id, loads.c.counts)
            .where(loads.c.status == "loading")
            .order_by(loads.c.load_id)
        ).first()
        if under_way is not None:
            load_id, own = int(under_way.load_id), settings.as_recorded(under_way.counts)
        else:
            waiting = connection.execute(
                sa.select(landing_files.c.file_id).where(landing_files.c.load_id.is_(None))
            ).scalars()
            file_ids = list(waiting)
            if not file_ids:
                return None
            counts = {"settings": settings.recorded()}
            inserted = connection.execute(
                sa.insert(loads).values(status="loading", started_at=now, counts=counts)
            )
            assert inserted.inserted_primary_key is not None
            load_id, own = int(inserted.inserted_primary_key[0]), settings
            connection.execute(
                sa.update(landing_files)
                .where(landing_files.c.load_id.is_(None))
                .values(load_id=load_id)
            )
    return load_id, landing.files(landing_files.c.load_id == load_id), own


def _run(
    load_id: int,
    files: list[LandedFile],
    settings: EventSettings,
    landing: Landing,
    lake: Lake,
    engine: Engine,
    progress: Callable[[int], None] | None,
    suppress: Suppress | None,
) -> _Loaded:
    with staging.folder(landing, WRITER) as folder, engine.session(lake) as session:
        staged = folder / "staged.parquet"
        damages = staging.stage(
            files, session, staged, settings={load_id: settings}, progress=progress
        )
        rows = StagedRows(
            session, staged, files, windows={load_id: settings.dedupe_days}, suppress=suppress
        )
        counts = rows.counts()
        for number, span in enumerate(spans(together(counts.values()))):
            writer = f"{WRITER}/{number}" if number else WRITER
            if span.accepted:
                lake.append("raw_events", rows.accepted(span), once=(writer, load_id))
            if span.rejected:
                lake.append("rejected_events", rows.rejected(span), once=(writer, load_id))
        blank(files, rows.suppressed)
    return _Loaded(load_id, files, damages, counts)


def _finish(state: State, loaded: _Loaded, settings: EventSettings, now: dt.datetime) -> None:
    total = together(loaded.counts.values())
    with state.begin() as connection:
        for file in loaded.files:
            counts = loaded.counts.get(file.file_id, Counts())
            connection.execute(
                sa.update(landing_files)
                .where(landing_files.c.file_id == file.file_id)
                .values(
                    damaged=loaded.damages.get(file.file_id),
                    counts=counts.as_json(),
                    received_dates=dict(sorted(counts.read_dates.items())),
                )
            )
        summary = {
            **total.as_json(),
            "files": len(loaded.files),
            "bytes": sum(file.bytes for file in loaded.files),
            "damaged": len(loaded.damages),
            "received_dates": dict(sorted(total.received_dates.items())),
            "settings": settings.recorded(),
        }
        connection.execute(
            sa.update(loads)
            .where(loads.c.load_id == loaded.load_id)
            .values(status="loaded", finished_at=now, counts=summary)
        )


def _report(done: Sequence[_Loaded], *, known_files: int) -> LoadReport:
    total = together(counts for loaded in done for counts in loaded.counts.values())
    files = [(file, loaded) for loaded in done for file in loaded.files]
    load_ids = tuple(loaded.load_id for loaded in done)
    return LoadReport(
        load_id=load_ids[-1] if load_ids else None,
        load_ids=load_ids,
        files=len(files),
        bytes=sum(file.bytes for file, _ in files),
        accepted=total.accepted,
        rejected=total.rejected,
        duplicates=total.duplicates,
        suppressed=total.suppressed,
        known_files=known_files,
        damaged={
            file.name: loaded.damages[file.file_id]
            for file, loaded in files
            if file.file_id in loaded.damages
        },
        reasons=dict(sorted(total.reasons.items())),
        clock_skew=total.clock_skew,
        oversize=total.oversize,
        empty_group_ids=total.empty_group_ids,
        received_dates={
            dt.date.fromisoformat(date): messages
            for date, messages in sorted(total.received_dates.items())
        },
    )
