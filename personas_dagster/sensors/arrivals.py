"""New files in the landing folder start a refresh; what a refresh changed starts syncs."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from personas_dagster import refresh
from personas_dagster.resources import SpaceResource
from personas_dagster.resources.space import DESTINATION_TAG, REFRESH_TAG
from personas_dagster.spaces import Space
from personas_dagster.timing import due

_EVERY_SECONDS = 15
_SYNC_EVERY_SECONDS = 5


def status(space: Space) -> dg.DefaultSensorStatus:
    """Sensors run by themselves where the space is automated."""
    if space.settings.automation:
        return dg.DefaultSensorStatus.RUNNING
    return dg.DefaultSensorStatus.STOPPED


def landing_sensor(space: Space, job: Any) -> dg.SensorDefinition:
    """Starts the refresh when messages wait: files that landed, or loads not yet resolved."""

    @dg.sensor(
        name="new_messages",
        job=job,
        minimum_interval_seconds=_EVERY_SECONDS,
        default_status=status(space),
        description="New files in the landing folder start a refresh.",
    )
    def new_messages(context: dg.SensorEvaluationContext, space: SpaceResource) -> Any:
        if _queued(context, {REFRESH_TAG: space.space}):
            return dg.SkipReason("a refresh waits in the queue already")
        waiting = refresh.waiting(space.open(), now=space.now())
        if waiting is None:
            return dg.SkipReason("no new messages")
        return dg.RunRequest(run_key=waiting)

    return new_messages


def sync_sensors(space: Space, jobs: dict[str, Any]) -> list[dg.SensorDefinition]:
    """One sensor: it starts the sync job of each destination that has something to hear."""
    if not jobs:
        return []

    @dg.sensor(
        name="changes",
        jobs=list(jobs.values()),
        minimum_interval_seconds=_SYNC_EVERY_SECONDS,
        default_status=status(space),
        description="A change of a trait or audience starts the syncs of its destinations.",
    )
    def changes(context: dg.SensorEvaluationContext, space: SpaceResource) -> Iterator[Any]:
        requests = [
            # A sync that failed for good is started again every hour, until it gets through.
            dg.RunRequest(
                run_key=f"{name}:{refresh_id}:{space.now():%Y-%m-%dT%H}", job_name=f"sync_{name}"
            )
            for name, refresh_id in sorted(due(space.open(), now=space.now()).items())
            if not _queued(context, {DESTINATION_TAG: f"{space.space}/{name}"})
        ]
        if not requests:
            yield dg.SkipReason("no destination has anything new to hear")
        yield from requests

    return [changes]


def _queued(context: dg.SensorEvaluationContext, tags: dict[str, str]) -> bool:
    """Whether such a run waits for its turn: it will see everything that is there now."""
    filters = dg.RunsFilter(statuses=[dg.DagsterRunStatus.QUEUED], tags=tags)
    return bool(context.instance.get_run_ids(filters, limit=1))
