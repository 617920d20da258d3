"""A project that runs as people run it: `personas dev`, with webserver, daemon and code servers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import dagster as dg
import httpx
import psutil

from personas_dagster.project.loader import load_project
from personas_dagster.spaces import Space, open_space
from tests.serving.server_process import free_port

ROOT = Path(__file__).parents[2]
DECLARED = ("assets", "resources", "sensors", "workspace.yaml", "dagster.yaml")
PATIENCE = 240.0  # seconds; the machine may be busy with other things
T = TypeVar("T")

_LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}
"""
_BACKFILL = """
mutation ($params: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $params) {
    __typename
    ... on LaunchBackfillSuccess { backfillId }
    ... on PythonError { message }
  }
}
"""
_LOCATIONS = """
{ workspaceOrError { ... on Workspace { locationEntries {
    name loadStatus
    locationOrLoadError { __typename ... on PythonError { message } }
} } } }
"""
_RELOAD = """
mutation ($name: String!) {
  reloadRepositoryLocation(repositoryLocationName: $name) {
    __typename ... on WorkspaceLocationEntry { loadStatus } ... on PythonError { message }
  }
}
"""


def copy_declarations(root: Path) -> None:
    """The repository's own declarations, as a project in another folder."""
    for name in DECLARED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, root / name)
        else:
            shutil.copy(ROOT / name, root / name)


def eventually(
    ask: Callable[[], T | None], what: str, *, timeout: float = PATIENCE, every: float = 0.5
) -> T:
    """The first answer that is not None or empty; an error that says what was waited for."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        found = ask()
        if found:
            return found
        time.sleep(every)
    raise TimeoutError(f"waited {timeout:.0f} s for {what}")


class Running:
    """`personas dev` on a free port, with a Dagster instance of its own; to be used in `with`."""

    def __init__(self, root: Path, env: Mapping[str, str], *options: str) -> None:
        self._options = options
        self.root, self.home = root, root / "dagster_home"
        self.home.mkdir()
        shutil.copy(root / "dagster.yaml", self.home / "dagster.yaml")
        self.port, self.serve_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = {
            **os.environ,
            "DAGSTER_HOME": str(self.home),
            "PERSONAS_UI_URL": self.url,
            **env,
        }
        self._log = root / "dev.log"
        self._http = httpx.Client(base_url=self.url, timeout=60)

    def __enter__(self) -> Self:
        command = Path(sys.executable).parent / "personas"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [
                    command,
                    "dev",
                    "--project",
                    str(self.root),
                    "--port",
                    str(self.port),
                    "--serve-port",
                    str(self.serve_port),
                    *self._options,
                ],
                env=self._env,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # A shell in the background hands on a SIGINT that is ignored.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        try:
            eventually(self._is_up, "the webserver and its code locations")
            self.instance = dg.DagsterInstance.from_config(str(self.home))
        except BaseException:
            self.stop()
            sys.stderr.write(self.log)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.instance.dispose()
        self.stop()

    def stop(self) -> None:
        """End what was started here: politely, and after a while by force, each by its id."""
        self._http.close()
        started = psutil.Process(self._process.pid)
        tree = [started, *started.children(recursive=True)]
        self._process.send_signal(signal.SIGINT)
        _, alive = psutil.wait_procs(tree, timeout=45)
        for process in alive:
            process.kill()
        self._process.wait()

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def graphql(self, query: str, **variables: Any) -> dict[str, Any]:
        answer = self._http.post("/graphql", json={"query": query, "variables": variables})
        found = answer.json()
        assert "errors" not in found, json.dumps(found["errors"], indent=1)[:2000]
        data: dict[str, Any] = found["data"]
        return data

    def locations(self) -> dict[str, str]:
        """Each code location, with what it is: a location, or an error's message."""
        entries = self.graphql(_LOCATIONS)["workspaceOrError"]["locationEntries"]
        return {
            one["name"]: one["locationOrLoadError"].get("message")
            or one["locationOrLoadError"]["__typename"]
            for one in entries
            if one["loadStatus"] == "LOADED"
        }

    def _is_up(self) -> bool:
        assert self._process.poll() is None, f"personas dev ended: {self.log}"
        try:
            return len(self.locations()) == 2
        except httpx.TransportError:
            return False

    def reload(self, space: str) -> None:
        found = self.graphql(_RELOAD, name=space)["reloadRepositoryLocation"]
        assert found["__typename"] == "WorkspaceLocationEntry", found

    def launch(
        self,
        space: str,
        job: str,
        *,
        tags: Mapping[str, str] | None = None,
        select: Sequence[str] = (),
    ) -> str:
        """Launch a run as the UI does; its id."""
        params = {
            "selector": {
                "repositoryLocationName": space,
                "repositoryName": "__repository__",
                "pipelineName": job,
                "assetSelection": [{"path": [space, *one.split("/")]} for one in select] or None,
            },
            "mode": "default",
            "executionMetadata": {
                "tags": [{"key": k, "value": v} for k, v in (tags or {}).items()]
            },
        }
        found = self.graphql(_LAUNCH, params=params)["launchRun"]
        assert found["__typename"] == "LaunchRunSuccess", found
        run_id: str = found["run"]["runId"]
        return run_id

    def backfill(self, space: str, asset: str, partitions: Sequence[str]) -> str:
        params = {
            "assetSelection": [{"path": [space, asset]}],
            "partitionNames": list(partitions),
        }
        found = self.graphql(_BACKFILL, params=params)["launchPartitionBackfill"]
        assert found["__typename"] == "LaunchBackfillSuccess", found
        backfill_id: str = found["backfillId"]
        return backfill_id

    def ended(self, run_id: str) -> dg.RunRecord:
        """The run's record, when it has ended."""

        def ask() -> dg.RunRecord | None:
            record = self.instance.get_run_record_by_id(run_id)
            return record if record and record.dagster_run.is_finished else None

        return eventually(ask, f"the end of run {run_id}")

    def succeeded(self, run_id: str) -> dg.RunRecord:
        record = self.ended(run_id)
        status = record.dagster_run.status
        assert status == dg.DagsterRunStatus.SUCCESS, self.told(run_id)
        return record

    def told(self, run_id: str) -> str:
        """What the run's log says, for an assertion's message."""
        logs = self.instance.all_logs(run_id)
        errors = [
            str(e.dagster_event.step_failure_data.error)
            for e in logs
            if e.dagster_event and e.dagster_event.is_step_failure
        ]
        return "\n".join([e.user_message or e.message for e in logs][-15:] + errors)

    def retry_of(self, run_id: str) -> str:
        """The id of the run that the daemon started in place of a failed one."""

        def ask() -> str | None:
            found = self.instance.get_runs(dg.RunsFilter(tags={"dagster/parent_run_id": run_id}))
            return found[0].run_id if found else None

        return eventually(ask, f"the retry of run {run_id}")

    def materialised(self, run_id: str) -> set[str]:
        of_type = dg.DagsterEventType.ASSET_MATERIALIZATION
        events = [entry.dagster_event for entry in self.instance.all_logs(run_id, of_type=of_type)]
        return {"/".join(event.asset_key.path[1:]) for event in events if event and event.asset_key}

    def worker(self, run_id: str) -> int | None:
        """The process that executes a run, once it said so."""
        for entry in self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
            event = entry.dagster_event
            if event is not None and (pid := event.engine_event_data.metadata.get("pid")):
                return int(str(pid.value))
        return None

    def has_begun(self, run_id: str, step: str) -> bool:
        of_type = dg.DagsterEventType.STEP_START
        entries = self.instance.all_logs(run_id, of_type=of_type)
        return any(entry.step_key == step for entry in entries)

    def space(self, name: str) -> Space:
        """The space as it is declared now, read from this process."""
        return open_space(load_project(self.root), name)
