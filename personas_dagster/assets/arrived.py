"""What Dagster is told of loads: each partition of raw_events that they touched, what was rejected.

Messages also come in without a run (`personas ingest`, a run that was killed before it told):
`landing` keeps the last load that it has told as metadata, and tells everything after it.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import dagster as dg
import sqlalchemy as sa

from personas_dagster.assets import drawing
from personas_dagster.assets import metadata as show
from personas_dagster.events import LoadReport
from personas_dagster.spaces import Space
from personas_dagster.state.schema import loads

_TOLD = "through_load"
ROWS = "dagster/partition_row_count"
_BY_DAY = """
SELECT strftime(received_date, '%Y-%m-%d') AS part, count(*) AS messages
FROM raw_events WHERE received_date BETWEEN $1 AND $2
GROUP BY part HAVING bool_or(load_id > $3) ORDER BY part
"""
_BY_HOUR = """
SELECT strftime(received_at, '%Y-%m-%d-%H:00') AS part, count(*) AS messages
FROM raw_events WHERE received_date BETWEEN $1 AND $2
GROUP BY part HAVING bool_or(load_id > $3) ORDER BY part
"""


@dataclass
class Arrived:
    """The loads after `after`, added up."""

    after: int
    through: int
    files: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    dates: Counter[str] = field(default_factory=Counter)  # accepted messages

    @property
    def rejected(self) -> int:
        return self.counts["rejected"]


def last_told(instance: dg.DagsterInstance, landing: dg.AssetKey) -> int:
    """The last load that a materialisation of `landing` told; 0 before the first."""
    event = instance.get_latest_materialization_event(landing)
    told = event.asset_materialization if event else None
    value = told.metadata.get(_TOLD) if told else None
    return int(value.value) if isinstance(value, dg.IntMetadataValue) and value.value else 0


def since(space: Space, after: int) -> Arrived:
    """What the loads after this one brought."""
    query = (
        sa.select(loads.c.load_id, loads.c.counts)
        .where(loads.c.status == "loaded", loads.c.load_id > after)
        .order_by(loads.c.load_id)
    )
    new = Arrived(after, after)
    for row in space.state.rows(query):
        counts = row["counts"]
        new.through = row["load_id"]
        new.files += counts["files"]
        new.counts.update({name: counts[name] for name in _COUNTED})
        new.reasons.update(counts["reasons"])
        new.dates.update(counts["received_dates"])
    return new


_COUNTED = ("accepted", "rejected", "duplicates", "clock_skew", "oversize", "empty_group_ids")


def partitions(space: Space, new: Arrived, raw: dg.AssetKey) -> Iterator[dg.AssetMaterialization]:
    """One event for each partition that the loads wrote to, with the rows that it holds now."""
    start = space.settings.partitions.start
    dates = [dt.date.fromisoformat(date) for date, rows in sorted(new.dates.items()) if rows]
    dates = [date for date in dates if date >= start]
    if dates:
        for key, rows in held(space, dates[0], dates[-1], after=new.after).items():
            yield dg.AssetMaterialization(raw, partition=key, metadata={ROWS: rows})


def held(space: Space, first: dt.date, last: dt.date, *, after: int = 0) -> dict[str, int]:
    """The rows of each partition between two days; only those that loads after one wrote to."""
    query = _BY_HOUR if space.settings.partitions.by == "hour" else _BY_DAY
    with space.engine.session(space.lake) as session:
        session.view("raw_events", days=(first, last))
        found = session.fetch(query, [first, last, after]).to_pylist()
    return {row["part"]: row["messages"] for row in found}


def rejections(new: Arrived, rejected: dg.AssetKey) -> dg.AssetMaterialization:
    """What was rejected, by reason."""
    rows = [{"reason": k, "messages": v} for k, v in sorted(new.reasons.items())]
    return dg.AssetMaterialization(
        rejected, metadata={"rejected": new.rejected, "by_reason": show.table(rows)}
    )


def metadata(space: Space, new: Arrived, report: LoadReport) -> dict[str, Any]:
    """The metadata of `landing`: what came since it last told."""
    start = str(space.settings.partitions.start)
    days = dict(sorted(new.dates.items()))
    early = sum(rows for date, rows in days.items() if date < start)
    return {
        _TOLD: new.through,
        "files": new.files,
        **new.counts,
        **({"before_first_partition": early} if early else {}),
        **({"damaged_files": _damaged(report)} if report.damaged else {}),
        **({"by_day": drawing.bars(days, title="messages by day received")} if days else {}),
    }


def _damaged(report: LoadReport) -> dg.MetadataValue[Any]:
    rows = [{"file": name, "reason": why} for name, why in sorted(report.damaged.items())]
    return show.table(rows)
