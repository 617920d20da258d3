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

from personas_dagster.assets import metadata as show
from personas_dagster.events import LoadReport
from personas_dagster.spaces import Space
from personas_dagster.state.schema import loads

_TOLD = "through_load"
_BY_DAY = """
SELECT strftime(received_date, '%Y-%m-%d') AS part, count(*) AS messages FROM raw_events
WHERE received_date BETWEEN $1 AND $2 GROUP BY ALL
"""
_BY_HOUR = """
SELECT strftime(received_at, '%Y-%m-%d-%H:00') AS part, count(*) AS messages,
       bool_or(load_id > $3) AS is_new
FROM raw_events WHERE received_date BETWEEN $1 AND $2 GROUP BY ALL HAVING is_new
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
    dates = sorted(date for date, rows in new.dates.items() if rows and date >= str(start))
    if not dates:
        return
    hourly = space.settings.partitions.by == "hour"
    span: list[Any] = [dt.date.fromisoformat(dates[0]), dt.date.fromisoformat(dates[-1])]
    with space.engine.session(space.lake) as session:
        session.view("raw_events")
        query, values = (_BY_HOUR, [*span, new.after]) if hourly else (_BY_DAY, span)
        found = session.fetch(query, values).to_pylist()
    held = {row["part"]: row["messages"] for row in found}
    for key in sorted(held) if hourly else dates:
        rows = held.get(key, 0)
        yield dg.AssetMaterialization(
            raw, partition=key, metadata={"dagster/partition_row_count": rows}
        )


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
        **({"by_day": show.bars(days, title="messages by day received")} if days else {}),
    }


def _damaged(report: LoadReport) -> dg.MetadataValue[Any]:
    rows = [{"file": name, "reason": why} for name, why in sorted(report.damaged.items())]
    return show.table(rows)
