"""Jobs and their schedules: the refresh, SQL traits, one sync per destination."""

from typing import Any

import dagster as dg

from personas_dagster.assets.keys import Names
from personas_dagster.resources.space import DESTINATION_TAG, REFRESH_TAG
from personas_dagster.spaces import Space

RETRIES_TAG = "dagster/max_retries"
STRATEGY_TAG = "dagster/retry_strategy"


@dg.failure_hook(required_resource_keys={"space"})
def failed_attempt(context: dg.HookContext) -> None:
    """Each attempt of a run that fails is in the audit trail; syncs write theirs themselves."""
    space = context.resources.space
    run = context.instance.get_run_by_id(context.run_id)
    tags = run.tags if run else {}
    error = context.op_exception
    what = "sql_traits" if context.job_name == "sql_traits" else "refresh"
    space.open().state.audit(
        what,
        space.space,
        at=space.now(),
        attempt=int(tags.get("dagster/retry_number", "0")) + 1,
        outcome="failed",
        reason=f"{context.op.name}: {error.__cause__ or error}" if error else context.op.name,
    )


def refresh_job(space: Space, names: Names) -> Any:
    """Everything from landing to memberships. raw_events' partitions are told by landing."""
    keys = [
        names.key(part)
        for part in (
            "landing",
            "merge_candidates",
            "identity_graph",
            "events",
            "custom_traits",
            "audience_memberships",
            "audience_changes",
            "published",
            "profile_store",
        )
    ]
    keys += [names.trait(key) for key in space.computed_keys]
    keys += [names.audience(key) for key in space.audience_keys]
    return dg.define_asset_job(
        "refresh",
        selection=dg.AssetSelection.assets(*keys),
        description="Messages in, identities joined, traits and audiences computed.",
        tags=_tags(space, {REFRESH_TAG: space.name}),
        hooks={failed_attempt},
    )


def sql_traits_job(space: Space, names: Names) -> Any:
    """All SQL traits, in one operation."""
    return dg.define_asset_job(
        "sql_traits",
        selection=dg.AssetSelection.assets(*map(names.sql_trait, space.sql_traits)),
        description="SQL traits, from their warehouses.",
        tags=_tags(space, {REFRESH_TAG: space.name}),
        hooks={failed_attempt},
    )


def sync_jobs(space: Space, names: Names) -> dict[str, Any]:
    """One job per destination that something is connected to."""
    connected = sorted({connection.destination for connection in space.connections.values()})
    own = {
        name: [c.name for c in space.connections.values() if c.destination == name]
        for name in connected
    }
    return {
        name: dg.define_asset_job(
            f"sync_{name}",
            selection=dg.AssetSelection.assets(
                names.destination(name), *map(names.connection, own[name])
            ),
            description=f"Deliver what changed to {name}.",
            tags=_tags(space, {DESTINATION_TAG: f"{space.name}/{name}"}),
        )
        for name in connected
    }


def _tags(space: Space, tags: dict[str, str]) -> dict[str, str]:
    """A retry runs all steps: what the failed attempt wrote is taken back before."""
    return {
        **tags,
        RETRIES_TAG: str(space.project.schedules.retries),
        STRATEGY_TAG: "ALL_STEPS",
    }


def schedules(space: Space, refresh: Any, sql_traits: Any | None) -> list[dg.ScheduleDefinition]:
    """The hourly refresh and the 12-hourly SQL traits; on where the space is automated."""
    status = (
        dg.DefaultScheduleStatus.RUNNING
        if space.settings.automation
        else dg.DefaultScheduleStatus.STOPPED
    )
    declared = space.project.schedules
    found = [
        dg.ScheduleDefinition(
            name="refresh_hourly",
            job=refresh,
            cron_schedule=declared.refresh,
            execution_timezone="UTC",
            default_status=status,
        )
    ]
    if sql_traits is not None:
        found.append(
            dg.ScheduleDefinition(
                name="sql_traits_twice_daily",
                job=sql_traits,
                cron_schedule=declared.sql_traits,
                execution_timezone="UTC",
                default_status=status,
            )
        )
    return found
