"""A failed run tells somebody, through Apprise: after its last retry, or on each attempt."""

import datetime as dt
import os
from typing import Any

import dagster as dg

from personas_dagster.alerting import tell
from personas_dagster.project import models
from personas_dagster.spaces import Space

_WILL_RETRY = "dagster/will_retry"
_UI = "PERSONAS_UI_URL"


def alert_sensor(space: Space) -> dg.SensorDefinition | None:
    """None where no alert URL is declared."""
    declared = space.project.alerts
    if not declared.urls:
        return None

    @dg.run_failure_sensor(
        name="failure_alerts",
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Alerts on failed runs.",
    )
    def failure_alerts(context: dg.RunFailureSensorContext) -> Any:
        run = context.dagster_run
        if declared.when == "failure" and run.tags.get(_WILL_RETRY) == "true":
            return dg.SkipReason("the run is started again; the last attempt alerts")
        title, body = describe(space.name, context)
        tell([models.resolve(url) for url in declared.urls], title=title, body=body)
        return None

    return failure_alerts


def describe(space: str, context: dg.RunFailureSensorContext) -> tuple[str, str]:
    """What failed, since when, what was affected, and where to look."""
    run = context.dagster_run
    attempt = int(run.tags.get("dagster/retry_number", "0")) + 1
    reasons = [
        str(event.event_specific_data.error.cause or event.event_specific_data.error)  # type: ignore[union-attr]
        for event in context.get_step_failure_events()
        if event.event_specific_data is not None
    ] or [context.failure_event.message or "no reason was given"]
    steps = sorted({event.step_key or "" for event in context.get_step_failure_events()})
    started = context.instance.get_run_stats(run.run_id).start_time
    since = f"{_instant(started)} UTC" if started else "before it started"
    base = os.environ.get(_UI, "http://127.0.0.1:3000").rstrip("/")
    lines = [
        f"{run.job_name} of space {space} failed (attempt {attempt}).",
        f"Since: {since}",
        f"Steps: {', '.join(steps) or 'none ran'}; what lies downstream of them did not run",
        *(f"Reason: {_first_lines(reason)}" for reason in reasons),
        f"Run: {base}/runs/{run.run_id}",
    ]
    return f"{space}: {run.job_name} failed", "\n".join(lines)


def _instant(seconds: float) -> str:
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%d %H:%M:%S")


def _first_lines(text: str, limit: int = 500) -> str:
    shown = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
