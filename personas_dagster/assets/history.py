"""Traits and audiences on each day of the past: daily partitions, a range in one run."""

import datetime as dt
from collections.abc import Iterator
from enum import Enum
from typing import Any

import dagster as dg
from pydantic import Field

from personas_dagster.answers import history
from personas_dagster.assets import metadata as show
from personas_dagster.assets.keys import Names, owners
from personas_dagster.resources import SpaceResource
from personas_dagster.spaces import Space

TRAITS, AUDIENCES = "trait_history", "audience_history"


class Knowledge(Enum):
    """Whose messages they are: as is known now, or as was known then."""

    now = "now"
    then = "then"


class HistoryConfig(dg.Config):
    """How a range is computed."""

    knowledge: Knowledge = Field(
        default=Knowledge.now,
        description="`then`: only with the identities that messages received by then had made",
    )
    keys: list[str] = Field(default=[], description="only these traits and audiences")


def days(space: Space) -> dg.DailyPartitionsDefinition:
    """A partition for each day, today included: it stands for the instant at which it begins."""
    start = space.settings.partitions.start
    return dg.DailyPartitionsDefinition(
        start_date=f"{start:%Y-%m-%d}", timezone="UTC", end_offset=1
    )


def assets(space: Space, names: Names) -> list[dg.AssetsDefinition]:
    """`trait_history` and `audience_history`, from one operation."""
    specs = [
        dg.AssetSpec(
            names.key(TRAITS),
            deps=[names.key("events"), *map(names.trait, space.computed_keys)],
            description="Computed traits of everybody as of the beginning of each day (UTC).",
            group_name="history",
            owners=owners(None),
            kinds={"deltalake", "duckdb"},
            skippable=True,
        ),
        dg.AssetSpec(
            names.key(AUDIENCES),
            deps=[names.key("events"), *map(names.audience, space.audience_keys)],
            description="Who was in which audience as of the beginning of each day (UTC).",
            group_name="history",
            owners=owners(None),
            kinds={"deltalake", "duckdb"},
            skippable=True,
        ),
    ]

    @dg.multi_asset(
        name=f"{space.name}__history",
        specs=specs,
        can_subset=True,
        partitions_def=days(space),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def past(
        context: dg.AssetExecutionContext, config: HistoryConfig, space: SpaceResource
    ) -> Iterator[Any]:
        chosen = {key.path[-1] for key in context.selected_asset_keys}
        done = history.backfill(
            space.open(),
            [dt.date.fromisoformat(key) for key in context.partition_keys],
            owner=context.run.run_id,
            knowledge=config.knowledge.value,
            keys=config.keys,
            traits=TRAITS in chosen,
            audiences=AUDIENCES in chosen,
        )
        for name, held, title in (
            (TRAITS, done.traits, "profiles with a value, by day"),
            (AUDIENCES, done.audiences, "members, by day"),
        ):
            if name in chosen:
                yield _result(context, names.key(name), done.days, held, title, config)

    return [past]


def _result(
    context: dg.AssetExecutionContext,
    key: dg.AssetKey,
    days: Any,
    held: history.Sizes,
    title: str,
    config: HistoryConfig,
) -> dg.MaterializeResult[Any]:
    """Each day has its own figures; the plot of the whole range is at its last day."""
    for day in days:
        sizes = {name: by_day[day] for name, by_day in held.items()}
        context.add_asset_metadata(
            {
                "dagster/partition_row_count": sum(sizes.values()),
                "as_of": dg.MetadataValue.timestamp(history.instant_of(day)),
                "sizes": dg.MetadataValue.json(sizes),
            },
            asset_key=key,
            partition_key=day.isoformat(),
        )
    context.add_asset_metadata(
        {"over_time": show.lines(held, title=title)},
        asset_key=key,
        partition_key=days[-1].isoformat(),
    )
    return dg.MaterializeResult(
        asset_key=key,
        metadata={"knowledge": config.knowledge.value, "range": f"{days[0]} to {days[-1]}"},
    )
