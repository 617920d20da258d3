"""SQL traits: one shared operation, from any SQLAlchemy URL or the space's own tables."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from personas_dagster import refresh, warehousing
from personas_dagster.assets import metadata as show
from personas_dagster.assets import profiles
from personas_dagster.assets.computed import COMPUTE, runs
from personas_dagster.assets.keys import Names, declared_at, owners
from personas_dagster.resources import SpaceResource
from personas_dagster.spaces import Space


def assets(space: Space, names: Names) -> list[dg.AssetsDefinition]:
    """The operation behind every SQL trait; nothing where none is declared."""
    if not space.sql_traits:
        return []
    specs = []
    for key, model in space.sql_traits.items():
        declared = space.project.sql_traits[key]
        from_lake = model.warehouse == "lake"
        specs.append(
            dg.AssetSpec(
                names.sql_trait(key),
                deps=[names.key("events"), names.key("identity_graph")]
                if from_lake
                else [names.key("identity_graph")],
                description=(model.description + "\n\n" if model.description else "")
                + f"```sql\n{model.query.strip()}\n```",
                group_name="sql_traits",
                owners=owners(model.owner),
                kinds={"sql", "duckdb" if from_lake else "sqlalchemy"},
                tags=dict.fromkeys(model.tags, ""),
                metadata={
                    "warehouse": model.warehouse,
                    **declared_at(space.project.root, declared),
                },
                skippable=True,
            )
        )

    @dg.multi_asset(name=f"{space.name}__sql_traits", specs=specs, can_subset=True)
    def sql_traits(context: dg.AssetExecutionContext, space: SpaceResource) -> Iterator[Any]:
        held, this = space.begin(context)
        chosen = {key.path[-1] for key in context.selected_asset_keys}
        result = warehousing.refresh_sql_traits(held, this, only=chosen)
        if not runs(context, COMPUTE):
            refresh.finish(held, this, now=space.now())
            context.log_event(profiles.told(names, refresh.keep_profiles(held)))
        for key, report in result.reports.items():
            yield dg.MaterializeResult(
                asset_key=names.sql_trait(key),
                metadata={
                    "as_of": dg.MetadataValue.timestamp(this.as_of),
                    "dagster/row_count": report.rows,
                    "traits": ", ".join(report.columns),
                    "changes": show.table(
                        [{"trait": k, "profiles": n} for k, n in sorted(report.changed.items())]
                    ),
                    "unknown_identifiers": report.unknown,
                    "rows_too_large": report.too_large,
                    "too_large_samples": "; ".join(report.too_large_samples) or "none",
                },
            )
        if result.errors:
            raise dg.Failure("; ".join(str(error) for error in result.errors.values()))

    return [sql_traits]
