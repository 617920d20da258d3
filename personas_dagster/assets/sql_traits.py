"""SQL traits: one shared operation, from any SQLAlchemy URL or the space's own tables."""

import dagster as dg

from personas_dagster.assets.keys import Names
from personas_dagster.spaces import Space


def assets(space: Space, names: Names) -> list[dg.AssetsDefinition]:
    return []
