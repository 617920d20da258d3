"""Running a space's jobs from outside the UI: the project's Dagster instance, runs in process."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
from filelock import FileLock

from personas_dagster.assets.keys import Names
from personas_dagster.definitions import build
from personas_dagster.resources.space import AS_OF_TAG, remember
from personas_dagster.spaces import Space, data_folder


@dataclass(frozen=True)
class Outcome:
    """How a run ended; `reason` says why it failed."""

    run_id: str
    success: bool
    reason: str = ""


def dagster_home(root: Path) -> Path:
    """The folder of the project's Dagster instance, with the project's `dagster.yaml` in it.

    `DAGSTER_HOME` in the environment goes first.
    """
    chosen = os.environ.get("DAGSTER_HOME")
    home = Path(chosen) if chosen else data_folder(root.resolve()) / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    declared, there = root / "dagster.yaml", home / "dagster.yaml"
    if not chosen and declared.exists():
        if not there.exists() or there.read_bytes() != declared.read_bytes():
            shutil.copyfile(declared, there)
    return home


def run_job(
    space: Space,
    job: str,
    *,
    only: Sequence[str] = (),
    as_of: str | None = None,
    tags: Mapping[str, str] | None = None,
    verbose: bool = False,
) -> Outcome:
    """Run a job of the space in this process, so that the run shows in the UI.

    `only` limits a refresh to these traits and audiences, with everything before them.
    """
    names = Names(space)
    remember(space.project)
    definitions = build(space.project.root, space.name)
    selection = _selection(space, names, only) if only else None
    level = "DEBUG" if verbose else "CRITICAL"
    with _instance(space.project.root) as instance:
        result = definitions.resolve_job_def(job).execute_in_process(
            instance=instance,
            tags={**(tags or {}), **({AS_OF_TAG: as_of} if as_of else {})},
            run_config={"loggers": {"console": {"config": {"log_level": level}}}},
            asset_selection=selection,
            raise_on_error=False,
        )
    if result.success:
        return Outcome(result.run_id, True)
    return Outcome(result.run_id, False, _reason(result))


def _instance(root: Path) -> dg.DagsterInstance:
    """The project's instance. Its databases are made by one process while others wait."""
    home = dagster_home(root)
    with FileLock(home / "instance.lock"):
        return dg.DagsterInstance.from_config(str(home))


def _selection(space: Space, names: Names, only: Sequence[str]) -> list[dg.AssetKey]:
    stages = ("landing", "merge_candidates", "identity_graph", "events", "custom_traits")
    return [
        *map(names.key, stages),
        *map(names.connected, only),
        names.key("audience_memberships"),
        names.key("audience_changes"),
        names.key("published"),
        names.key("profile_store"),
    ]


def _reason(result: dg.ExecuteInProcessResult) -> str:
    for event in result.all_events:
        if event.is_step_failure:
            error = event.step_failure_data.error
            cause = error.cause if error and error.cause else error
            if event.step_failure_data.user_failure_data:
                return event.step_failure_data.user_failure_data.description or "failed"
            if cause is not None:
                return cause.message.strip().split(": ", 1)[-1]
    return "the run failed; run it again with -v to see why"
