"""Messages: sources, landing, raw events by day, rejected events, events of profiles."""

import datetime as dt
from typing import Any

import dagster as dg

from personas_dagster import refresh
from personas_dagster.assets import metadata as show
from personas_dagster.assets.keys import Names, declared_at, owners
from personas_dagster.events import LoadReport
from personas_dagster.events.resolved import compact
from personas_dagster.resources import SpaceResource
from personas_dagster.spaces import Space

GROUP = "events"


def partitions(space: Space) -> dg.TimeWindowPartitionsDefinition:
    """Daily on the UTC date of `receivedAt`, or hourly where the space says so."""
    chosen = space.settings.partitions
    if chosen.by == "hour":
        return dg.HourlyPartitionsDefinition(
            start_date=f"{chosen.start:%Y-%m-%d}-00:00", timezone="UTC", end_offset=1
        )
    return dg.DailyPartitionsDefinition(
        start_date=f"{chosen.start:%Y-%m-%d}", timezone="UTC", end_offset=1
    )


def specs(space: Space, names: Names) -> list[dg.AssetSpec]:
    """What others write: the sources, shown as the lineage's roots."""
    return [
        dg.AssetSpec(
            names.source(source_id),
            description=source.description or f"{source.name}: a {source.kind}.",
            group_name="sources",
            owners=owners(source.owner),
            kinds={source.kind.replace(" ", "_")},
            metadata=declared_at(space.project.root, space.project.sources[source_id]),
        )
        for source_id, source in space.sources.items()
    ]


def assets(space: Space, names: Names) -> list[dg.AssetsDefinition]:
    """`landing`, `raw_events`, `rejected_events`, `events`."""
    days = partitions(space)
    raw, rejected = names.key("raw_events"), names.key("rejected_events")

    @dg.asset(
        key=names.key("landing"),
        deps=[names.source(source_id) for source_id in space.sources],
        description="Files of messages that arrived, taken in once each: decoded, validated, "
        "without duplicates. Loads them into the partitions of raw_events that they touch.",
        group_name=GROUP,
        owners=owners(None),
        kinds={"deltalake", "duckdb"},
    )
    def landing(context: dg.AssetExecutionContext, space: SpaceResource) -> Any:
        held = space.hold(context.run_id)
        report = refresh.take_in(held, now=space.now())
        _tell_partitions(context, held, report, raw, rejected)
        return dg.MaterializeResult(metadata=_load_metadata(held, report))

    @dg.asset(
        key=raw,
        deps=[names.key("landing")],
        partitions_def=days,
        backfill_policy=dg.BackfillPolicy.single_run(),
        description="Messages as they came in, once each, by the UTC date they were received. "
        "Materialising a partition makes it again from the landing copies, with the same content.",
        group_name=GROUP,
        owners=owners(None),
        kinds={"deltalake", "duckdb"},
    )
    def raw_events(context: dg.AssetExecutionContext, space: SpaceResource) -> Any:
        held = space.hold(context.run_id)
        window = context.partition_time_window
        first, last = window.start.date(), (window.end - dt.timedelta(microseconds=1)).date()
        dates = [first + dt.timedelta(days=n) for n in range((last - first).days + 1)]
        report = refresh.rebuild_partitions(held, dates, now=space.now())
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": report.accepted,
                "rejected": report.rejected,
                "dates": f"{first} to {last}",
            }
        )

    rejected_events = dg.AssetSpec(
        rejected,
        deps=[names.key("landing")],
        description="Lines and messages that break a rule, with raw text, file, line and reason.",
        group_name=GROUP,
        owners=owners(None),
        kinds={"deltalake"},
    )

    @dg.asset(
        key=names.key("events"),
        deps=[raw, names.key("identity_graph")],
        description="Messages resolved to profiles, sorted by event, profile and time within "
        "each month: what traits and audiences are computed from.",
        group_name=GROUP,
        owners=owners(None),
        kinds={"deltalake", "duckdb"},
    )
    def events(context: dg.AssetExecutionContext, space: SpaceResource) -> Any:
        held = space.hold(context.run_id)
        written = refresh.settle(held)
        with held.engine.session(held.lake) as session:
            compacted = compact(session, held.lake)
            session.view("events")
            named = session.fetch(
                "SELECT coalesce(event, type) AS event, count(*) AS messages FROM events "
                "GROUP BY ALL ORDER BY messages DESC, event LIMIT 12"
            ).to_pylist()
            total = session.fetch("SELECT count(*) FROM events").column(0)[0].as_py()
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": total,
                "new_messages": written,
                "size": show.size(held.lake.bytes("events")),
                "months_compacted": len(compacted),
                "by_event": show.bars(
                    {row["event"]: row["messages"] for row in named}, title="messages by event"
                ),
            }
        )

    return [landing, raw_events, dg.AssetsDefinition(specs=[rejected_events]), events]


def _tell_partitions(
    context: dg.AssetExecutionContext,
    space: Space,
    report: LoadReport,
    raw: dg.AssetKey,
    rejected: dg.AssetKey,
) -> None:
    """One event for each partition of raw_events that the load wrote to."""
    start, hourly = space.settings.partitions.start, space.settings.partitions.by == "hour"
    for date, rows in sorted(report.received_dates.items()):
        if date < start:
            continue
        keys = [f"{date}-{hour:02d}:00" for hour in range(24)] if hourly else [str(date)]
        for key in keys:
            context.log_event(
                dg.AssetMaterialization(
                    raw, partition=key, metadata={"dagster/partition_row_count": rows}
                )
            )
    if report.rejected:
        context.log_event(
            dg.AssetMaterialization(
                rejected,
                metadata={
                    "rejected": report.rejected,
                    "by_reason": show.table(
                        [{"reason": k, "messages": v} for k, v in sorted(report.reasons.items())]
                    ),
                },
            )
        )


def _load_metadata(space: Space, report: LoadReport) -> dict[str, Any]:
    start = space.settings.partitions.start
    return {
        "accepted": report.accepted,
        "rejected": report.rejected,
        "duplicates": report.duplicates,
        "clock_skew": report.clock_skew,
        "oversize": report.oversize,
        "empty_group_ids": report.empty_group_ids,
        "before_first_partition": sum(
            rows for date, rows in report.received_dates.items() if date < start
        ),
        "damaged_files": show.table(
            [{"file": name, "reason": reason} for name, reason in sorted(report.damaged.items())]
        ),
        "reasons": show.table(
            [{"reason": k, "messages": v} for k, v in sorted(report.reasons.items())]
        ),
        "by_day": show.bars(
            {str(date): rows for date, rows in sorted(report.received_dates.items())},
            title="messages by day received",
        ),
    }
