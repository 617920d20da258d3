"""The Dagster side of a project, as a table of contents.

Each space is a code location: `workspace.yaml` names this module and the space as its
attribute. `PERSONAS_PROJECT` is the project's folder, by default the current one.
"""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import dagster as dg

from personas_dagster.assets import (
    computed,
    destinations,
    events,
    history,
    identity,
    profiles,
    sql_traits,
)
from personas_dagster.assets.keys import Names
from personas_dagster.resources import SpaceResource
from personas_dagster.resources.space import declared
from personas_dagster.resources.storage import make_cheap
from personas_dagster.sensors import alerts, arrivals, deliveries, hubs, jobs
from personas_dagster.spaces import open_space

# Backfill policies and code references are marked beta; both are pinned by `dagster<1.14`.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
make_cheap()


def build(root: Path | str = ".", space: str | None = None, **overrides: Any) -> dg.Definitions:
    """The definitions of one space of the project at `root`.

    `overrides` replace parts of the result by name: `resources`, `sensors`, `schedules`, ...
    """
    root = Path(root).resolve()
    opened = open_space(declared(root), space)
    names = Names(opened)
    specs = events.specs(opened, names)
    by_sql = sql_traits.assets(opened, names)
    assets = [
        *events.assets(opened, names),
        *identity.assets(names),
        *computed.assets(opened, names),
        *by_sql,
        *history.assets(opened, names),
        *profiles.assets(opened, names),
        *destinations.assets(opened, names),
    ]
    refresh = jobs.refresh_job(opened, names)
    twice_daily = jobs.sql_traits_job(opened, names) if by_sql else None
    syncs = jobs.sync_jobs(opened, names)
    sensors = [
        arrivals.landing_sensor(opened, refresh),
        *arrivals.sync_sensors(opened, syncs),
        alerts.alert_sensor(opened, [*specs, *assets]),
        *deliveries.delivery_sensors(opened),
        hubs.hub_sensor(opened),
    ]
    parts: dict[str, Any] = {
        "assets": [*specs, *assets],
        "asset_checks": identity.checks(names),
        "jobs": [refresh, *([twice_daily] if twice_daily else []), *syncs.values()],
        "schedules": jobs.schedules(opened, refresh, twice_daily),
        "sensors": [sensor for sensor in sensors if sensor is not None],
        "resources": {"space": SpaceResource(root=str(root), space=opened.name)},
        "executor": dg.in_process_executor,
    }
    return dg.Definitions(**{**parts, **overrides})


def _root() -> Path:
    return Path(os.environ.get("PERSONAS_PROJECT", ".")).resolve()


def __getattr__(name: str) -> dg.Definitions:
    """A space by its name, and `defs` for the default space (`dg` looks for that)."""
    if name.startswith("_"):
        raise AttributeError(name)
    if name == "defs":
        return build(_root())
    if (_root() / "resources" / "spaces" / f"{name}.yaml").exists():
        return build(_root(), name)
    raise AttributeError(f"no space is named `{name}` in {_root()}/resources/spaces")


def __dir__() -> list[str]:
    """`dg` looks among a module's members for its definitions."""
    return [*globals(), "defs"]
