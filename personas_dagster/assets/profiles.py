"""The profile store: what the Profile API reads, brought up to what was published."""

from typing import Any

import dagster as dg

from personas_dagster import refresh
from personas_dagster.assets import metadata as show
from personas_dagster.assets.keys import Names, owners
from personas_dagster.profiles.keeping import Kept
from personas_dagster.resources import SpaceResource
from personas_dagster.spaces import Space

STORE = "profile_store"


def assets(space: Space, names: Names) -> list[dg.AssetsDefinition]:
    """`profile_store`, after everything that it holds."""

    @dg.asset(
        key=names.key(STORE),
        deps=[
            names.key("custom_traits"),
            names.key("published"),
            *map(names.sql_trait, space.sql_traits),
        ],
        description="Identifiers, traits, audiences, links, metadata and the last 14 days of "
        "events of each profile, as the Profile API shows them. A refresh writes what changed.",
        group_name="serving",
        owners=owners(None),
        kinds={_database(space)},
    )
    def profile_store(context: dg.AssetExecutionContext, space: SpaceResource) -> Any:
        kept = refresh.keep_profiles(space.hold(context))
        return dg.MaterializeResult(metadata=metadata(kept))

    return [profile_store]


def _database(space: Space) -> str:
    """Where the store is, without reading a secret: a URL that is one has a password in it."""
    return "sqlite" if str(space.settings.state.url).startswith("sqlite") else "postgresql"


def told(names: Names, kept: Kept | None) -> dg.AssetMaterialization:
    """The materialisation, where another operation brought the store up."""
    return dg.AssetMaterialization(names.key(STORE), metadata=metadata(kept))


def metadata(kept: Kept | None) -> dict[str, Any]:
    """How the store was brought up, and how many rows that took."""
    if kept is None:
        return {"how": "nothing was published yet"}
    rows = [{"table": table, "rows": rows} for table, rows in (kept.counts or {}).items()]
    return {
        "how": f"{kept.how}: {kept.why}" if kept.why else kept.how,
        **({"dagster/row_count": kept.profiles} if kept.counts else {}),
        "rows_written": show.table(rows),
    }
