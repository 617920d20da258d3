"""Alerts on identifiers that would join unusually many profiles: a person has to decide."""

from typing import Any

import dagster as dg

from personas_dagster.alerting import tell_all
from personas_dagster.assets.identity import HUBS
from personas_dagster.sensors.alerts import run_url
from personas_dagster.spaces import Space


def hub_sensor(space: Space) -> dg.SensorDefinition | None:
    """None where no alert URL is declared. A run that fails tells of its hubs by itself."""
    if not space.project.alerts.urls:
        return None

    @dg.run_status_sensor(
        run_status=dg.DagsterRunStatus.SUCCESS,
        name="hub_alerts",
        minimum_interval_seconds=5,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Alerts on identifiers that look like hubs, once each.",
    )
    def hub_alerts(context: dg.RunStatusSensorContext) -> Any:
        run_id = context.dagster_run.run_id
        told = _findings(context.instance, run_id)
        if not told:
            return dg.SkipReason("no new hubs")
        body = [
            *told,
            "Decide: `personas identity block TYPE:VALUE`, or `allow` if it is none. Nothing "
            "changes until then.",
            f"Run: {run_url(run_id)}",
        ]
        title = f"{space.name}: an identifier looks like a hub"
        tell_all(space.project.alerts.urls, title=title, body="\n".join(body))
        return None

    return hub_alerts


def _findings(instance: dg.DagsterInstance, run_id: str) -> list[str]:
    of_type = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    events = [entry.dagster_event for entry in instance.all_logs(run_id, of_type=of_type)]
    found = [event.asset_check_evaluation_data for event in events if event is not None]
    return [
        one.description or ""
        for one in found
        if one.check_name == HUBS and not one.passed and one.metadata["new"].value
    ]
