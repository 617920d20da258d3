"""Alerts on syncs that ended well and still need a look, and on refreshes that are late."""

import datetime as dt
from collections.abc import Sequence
from typing import Any

import dagster as dg

from personas_dagster.alerting import tell_all
from personas_dagster.assets.destinations import BREAKER, DELIVERED, USUAL
from personas_dagster.resources import SpaceResource
from personas_dagster.sensors.alerts import run_url
from personas_dagster.spaces import Space

_LATE_EVERY_SECONDS = 60
_LONGEST = dt.timedelta(days=800)  # between two ticks of a schedule


def delivery_sensors(space: Space) -> list[dg.SensorDefinition]:
    """Empty where no alert URL is declared."""
    if not space.project.alerts.urls:
        return []
    found = [_delivery_alerts(space)]
    return [*found, _late_refreshes(space)] if space.settings.automation else found


def _delivery_alerts(space: Space) -> dg.SensorDefinition:
    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name="delivery_alerts",
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Alerts on what the circuit breaker holds, and on unusual changes.",
    )
    def delivery_alerts(context: dg.RunStatusSensorContext) -> Any:
        lines = _findings(space, context.instance, context.dagster_run.run_id)
        if not lines:
            return dg.SkipReason("nothing out of the ordinary")
        lines.append(f"Run: {run_url(context.dagster_run.run_id)}")
        tell_all(
            space.project.alerts.urls,
            title=f"{space.name}: a sync needs a look",
            body="\n".join(lines),
        )
        return None

    return delivery_alerts


def _findings(space: Space, instance: dg.DagsterInstance, run_id: str) -> list[str]:
    """What is new in a run's checks of connections: one line each."""
    lines: list[str] = []
    affected: list[str] = []
    told: set[str] = set()
    record = instance.get_run_record_by_id(run_id)
    began = record.start_time if record and record.start_time else 0.0
    for found in _evaluations(instance, run_id):
        connection = found.asset_key.path[-1]
        attempts = found.metadata.get("failed_attempts")
        if found.check_name == BREAKER and not found.passed:
            since = float(found.metadata["since"].value or 0)  # type: ignore[arg-type]
            if since >= began or space.project.alerts.when == "every_attempt":
                at = dt.datetime.fromtimestamp(since, dt.UTC)
                lines.append(f"Connection {connection}: {found.description}")
                lines.append(f"Held since: {at:%Y-%m-%d %H:%M:%S} UTC")
                affected.append(connection)
        elif found.check_name == USUAL and not found.passed:
            lines.append(f"Unusual: {found.description}")
            affected.append(connection)
        elif found.check_name == DELIVERED and attempts is not None and not told:
            if space.project.alerts.when == "every_attempt":
                told.add(connection)
                lines.append(f"Attempts that failed and were made again: {attempts.value}")
    if affected:
        lines.append(f"Affected: {', '.join(f'connections/{one}' for one in affected)}")
    return lines


def _evaluations(instance: dg.DagsterInstance, run_id: str) -> Sequence[dg.AssetCheckEvaluation]:
    of_type = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    events = [entry.dagster_event for entry in instance.all_logs(run_id, of_type=of_type)]
    found = [event.asset_check_evaluation_data for event in events if event is not None]
    return [one for one in found if "connections" in one.asset_key.path[-2:-1]]


def _late_refreshes(space: Space) -> dg.SensorDefinition:
    """Once for each time that refreshes stop coming."""

    @dg.sensor(
        name="late_refreshes",
        minimum_interval_seconds=_LATE_EVERY_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Alerts when a refresh is later than its schedule allows.",
    )
    def late_refreshes(context: dg.SensorEvaluationContext, space: SpaceResource) -> Any:
        opened, now = space.open(), space.now()
        last = opened.last_refresh()
        due = last_tick(opened.project.schedules.refresh, now)
        allowed = opened.project.alerts.late_after
        if last is None or last["finished_at"] >= due or now < due + allowed:
            return dg.SkipReason("the last refresh is as new as the schedule wants")
        if context.cursor == str(last["refresh_id"]):
            return dg.SkipReason("late, and told already")
        runs = context.instance.get_runs(dg.RunsFilter(job_name="refresh"), limit=1)
        body = [
            f"The refresh of space {opened.name} is later than its schedule allows.",
            f"Due at: {due:%Y-%m-%d %H:%M} UTC (`{opened.project.schedules.refresh}`), "
            f"and {allowed} later at most",
            f"Last finished: {last['finished_at']:%Y-%m-%d %H:%M:%S} UTC",
            "Affected: all traits, audiences and destinations are as that refresh left them",
            f"Run: {run_url(runs[0].run_id) if runs else 'none was started'}",
        ]
        tell_all(
            opened.project.alerts.urls,
            title=f"{opened.name}: the refresh is late",
            body="\n".join(body),
        )
        context.update_cursor(str(last["refresh_id"]))
        return None

    return late_refreshes


def last_tick(cron: str, now: dt.datetime) -> dt.datetime:
    """The last instant up to now at which a schedule, in UTC, was due."""
    ticks = dg.TimeWindowPartitionsDefinition(
        start=now - _LONGEST, fmt="%Y-%m-%dT%H:%M", cron_schedule=cron, timezone="UTC"
    )
    with dg.partition_loading_context(effective_dt=now):
        window = ticks.get_last_partition_window()
    return window.end if window else now - _LONGEST
