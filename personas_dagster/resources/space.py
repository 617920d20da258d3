"""The space as a Dagster resource: it holds where the space is declared, and hands it out."""

from __future__ import annotations

import datetime as dt
import time
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import dagster as dg
from pydantic import PrivateAttr

from personas_dagster import refresh
from personas_dagster.errors import Busy
from personas_dagster.project.loader import Project, load_project
from personas_dagster.spaces import Space, open_space
from personas_dagster.state import Lease

AS_OF_TAG = "personas/as_of"
REFRESH_TAG = "personas/refresh"
DESTINATION_TAG = "personas/destination"

Context: TypeAlias = dg.AssetExecutionContext | dg.AssetCheckExecutionContext

_PATIENCE = 3600.0  # seconds that a run waits for the one before it
_POLL_SECONDS = 1.0


_READ: dict[Path, Project] = {}


@lru_cache(maxsize=8)
def declared(root: Path) -> Project:
    """The project's declarations, read once per process: a reload starts a new one."""
    return _READ.pop(root, None) or load_project(root)


def remember(project: Project) -> None:
    """Spare this process reading a project again that it has just read."""
    _READ[project.root] = project


class SpaceResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """`root` is the project's folder, `space` the name of the space."""

    root: str
    space: str
    _leases: dict[str, Lease] = PrivateAttr(default_factory=dict)

    def open(self) -> Space:
        """The space itself. Its stores connect when they are first used."""
        return opened(Path(self.root), self.space)

    def now(self) -> dt.datetime:
        """The one place where a run reads the clock."""
        return dt.datetime.now(dt.UTC)

    def hold(self, context: Context) -> Space:
        """The space, held for this run until it ends: one refresh at a time.

        A run that the daemon started waits for another one's end. A run in a person's own
        process raises `Busy`, which says who holds the space.
        """
        space = self.open()
        run = context.run
        if "refresh" not in self._leases:
            lease = space.state.lease("refresh", owner=run.run_id, holder=f"run {run.run_id[:8]}")
            deadline = time.monotonic() + (_PATIENCE if run.remote_job_origin else 0)
            self._leases["refresh"] = _patiently(lease, context, deadline)
        return space

    def begin(self, context: dg.AssetExecutionContext) -> tuple[Space, refresh.Refresh]:
        """The space and the refresh of this run."""
        space = self.hold(context)
        wanted = context.run.tags.get(AS_OF_TAG)
        as_of = dt.datetime.fromisoformat(wanted) if wanted else None
        return space, refresh.begin(space, run_id=context.run.run_id, now=self.now(), as_of=as_of)

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Give back what the run held, however it ended."""
        while self._leases:
            self._leases.popitem()[1].release()


def _patiently(lease: Lease, context: Context, deadline: float) -> Lease:
    told = False
    while True:
        try:
            return lease.acquire()
        except Busy as error:
            if time.monotonic() >= deadline:
                raise
            if not told:
                context.log.info(f"waiting: {error}")
                told = True
            time.sleep(_POLL_SECONDS)


@lru_cache(maxsize=32)
def opened(root: Path, name: str) -> Space:
    return open_space(declared(root), name)
