"""A failed run tells somebody, through Apprise: after its last retry, or on each attempt."""

import datetime as dt
import os
from collections.abc import Sequence
from typing import Any, TypeAlias

import dagster as dg

from personas_dagster.alerting import tell_all
from personas_dagster.spaces import Space

_WILL_RETRY = "dagster/will_retry"
_REPOSITORY = ".dagster/repository"
_UI = "PERSONAS_UI_URL"
_LOOK_BACK = 100
_MOST_NAMES = 25

Asset: TypeAlias = dg.AssetsDefinition | dg.AssetSpec


def alert_sensor(space: Space, assets: Sequence[Asset]) -> dg.SensorDefinition | None:
    """None where no alert URL is declared. `assets`: among them the affected ones are found."""
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
        will_retry = context.dagster_run.tags.get(_WILL_RETRY) == "true"
        if declared.when == "failure" and will_retry:
            return dg.SkipReason("the run is started again; the last attempt alerts")
        title, body = describe(space, context, assets)
        if will_retry:
            body += "\nIt is started again."
        tell_all(declared.urls, title=title, body=body)
        return None

    return failure_alerts


def run_url(run_id: str) -> str:
    """Where a person sees a run."""
    base = os.environ.get(_UI, "http://127.0.0.1:3000").rstrip("/")
    return f"{base}/runs/{run_id}"


def describe(
    space: Space, context: dg.RunFailureSensorContext, assets: Sequence[Asset]
) -> tuple[str, str]:
    """What failed and why, since when, what it leaves as it was, and where to look."""
    run = context.dagster_run
    attempt = int(run.tags.get("dagster/retry_number", "0")) + 1
    steps = [event.step_key or "" for event in context.get_step_failure_events()]
    job = "a run of assets" if run.job_name == "__ASSET_JOB" else run.job_name
    lines = [
        f"{job} of space {space.name} failed (attempt {attempt}).",
        f"Failing since: {_since(context.instance, run)}",
        f"Failed: {', '.join(_short(space, step) for step in steps) or 'the run itself'}",
        *(f"Reason: {_first_lines(reason)}" for reason in _reasons(context)),
        f"Affected, left as they were: {_affected(space, assets, steps)}",
        f"Run: {run_url(run.run_id)}",
    ]
    return f"{space.name}: {job} failed", "\n".join(lines)


def _since(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """When the job's first failure after its last success began."""
    ended = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
    same = {_REPOSITORY: run.tags[_REPOSITORY]} if _REPOSITORY in run.tags else {}
    filters = dg.RunsFilter(job_name=run.job_name, statuses=ended, tags=same)
    failures = []
    for record in instance.get_run_records(filters, limit=_LOOK_BACK):
        if record.dagster_run.status == dg.DagsterRunStatus.SUCCESS:
            break
        failures.append(record)
    if run.job_name == "__ASSET_JOB":  # each selects other assets
        failures = [one for one in failures if one.dagster_run.run_id == run.run_id]
    if not failures:
        return "just now"
    began = failures[-1].start_time
    at = dt.datetime.fromtimestamp(began, dt.UTC) if began else failures[-1].create_timestamp
    return f"{at:%Y-%m-%d %H:%M:%S} UTC ({len(failures)} failed since the last success)"


def _reasons(context: dg.RunFailureSensorContext) -> list[str]:
    """Failed checks say why themselves; other steps by the error at the bottom of the stack."""
    found = []
    of_type = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    for entry in context.instance.all_logs(context.dagster_run.run_id, of_type=of_type):
        event = entry.dagster_event
        if event is not None and not event.asset_check_evaluation_data.passed:
            evaluation = event.asset_check_evaluation_data
            found.append(f"{evaluation.check_name}: {evaluation.description or 'did not pass'}")
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        if data.user_failure_data and data.user_failure_data.description:
            found.append(data.user_failure_data.description)
        elif data.error is not None and not (found and "AssetCheckFailed" in _name(data.error)):
            found.append((data.error.cause or data.error).message)
    return found or [context.failure_event.message or "no reason was given"]


def _name(error: Any) -> str:
    return f"{error.cls_name} {error.cause.cls_name if error.cause else ''}"


def _affected(space: Space, assets: Sequence[Asset], steps: Sequence[str]) -> str:
    """What failed steps would have made, and all that lies downstream of it."""
    deps = {spec.key: {dep.asset_key for dep in spec.deps} for spec in _specs(assets)}
    reached: set[dg.AssetKey] = set()
    for one in assets:
        if isinstance(one, dg.AssetsDefinition) and one.is_executable:
            name = one.node_def.name
            if name in steps:
                reached |= set(one.keys)
            elif any(step.startswith(f"{name}_") for step in steps):  # one of its checks
                reached |= {key for key, above in deps.items() if above & set(one.keys)}
    while more := {key for key, above in deps.items() if above & reached} - reached:
        reached |= more
    # a connection goes without saying where its destination is named
    names = ["/".join(key.path[1:]) for key in sorted(reached) if key.path[1] != "connections"]
    if not names:
        return "whatever the run would have made"
    shown = ", ".join(names[:_MOST_NAMES])
    return f"{shown} and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else shown


def _specs(assets: Sequence[Asset]) -> list[dg.AssetSpec]:
    return [
        spec
        for one in assets
        for spec in ([one] if isinstance(one, dg.AssetSpec) else list(one.specs))
    ]


def _short(space: Space, step: str) -> str:
    return step.removeprefix(f"{space.name}__")


def _first_lines(text: str, limit: int = 500) -> str:
    shown = " ".join(line.strip() for line in text.splitlines() if line.strip())
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."
