"""Messages: sources, landing, raw events by day, rejected events, events of profiles."""

import datetime as dt
from typing import Any

import dagster as dg

from personas_dagster import intake, refresh, upkeep
from personas_dagster.assets import arrived, drawing
from personas_dagster.assets import metadata as show
from personas_dagster.assets.keys import Names, declared_at, owners
from personas_dagster.resources import SpaceResource
from personas_dagster.spaces import Space

GROUP = "events"

_ALL = "SELECT count(*) AS n FROM events"
_BY_EVENT = """
SELECT coalesce(event, type) AS event, count(*) AS n FROM events WHERE load_id = $1
GROUP BY ALL ORDER BY n DESC, event LIMIT 12
"""


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
        "without duplicates. Tells which partitions of raw_events they have touched, and those "
        "that `personas ingest` took in before.",
        group_name=GROUP,
        owners=owners(None),
        kinds={"deltalake", "duckdb"},
    )
    def landing(context: dg.AssetExecutionContext, space: SpaceResource) -> Any:
        held = space.hold(context)
        report = intake.take_in(held, now=space.now())
        new = arrived.since(held, arrived.last_told(context.instance, names.key("landing")))
        for told in arrived.partitions(held, new, raw):
            context.log_event(told)
        if new.rejected:
            context.log_event(arrived.rejections(new, rejected))
        return dg.MaterializeResult(metadata=arrived.metadata(held, new, report))

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
        held = space.hold(context)
        window = context.partition_time_window
        first, last = window.start.date(), (window.end - dt.timedelta(microseconds=1)).date()
        dates = [first + dt.timedelta(days=n) for n in range((last - first).days + 1)]
        report = intake.rebuild_partitions(held, dates, now=space.now())
        rows = arrived.held(held, first, last)
        for key in context.partition_keys:
            context.add_asset_metadata({arrived.ROWS: rows.get(key, 0)}, partition_key=key)
        return dg.MaterializeResult(
            metadata={
                "made_again": f"{first} to {last}",
                "messages": report.accepted,
                "rejected": report.rejected,
                "files_read": report.files,
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
        held = space.hold(context)
        written = refresh.settle(held)
        tended = upkeep.tend(held, now=space.now())
        with held.engine.session(held.lake) as session:
            session.view("events")
            held_now = session.fetch(_ALL).to_pylist()[0]
            metadata = {
                "dagster/row_count": held_now["n"],
                "new_messages": written,
                "size": show.size(held.lake.bytes("events")),
                "months_compacted": len(tended.compacted),
                "months_with_columns_filled": len(tended.filled),
                "old_files_deleted": tended.swept,
            }
            if written:
                new = session.fetch(_BY_EVENT, [session.newest("events", "load_id")]).to_pylist()
                named = {row["event"]: row["n"] for row in new}
                metadata["by_event"] = drawing.bars(named, title="new messages by event")
        return dg.MaterializeResult(metadata=metadata)

    return [landing, raw_events, dg.AssetsDefinition(specs=[rejected_events]), events]
