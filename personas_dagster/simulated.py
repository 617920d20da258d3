"""A simulation: all destinations of a project replaced, and what they are told kept elsewhere.

`personas dev --simulate` writes a file that says where the simulators are, and hands its name to
the processes that it starts. The space's own ledger, intents and audit trail are neither read nor
written: a real destination never learns that somebody tried, and is told everything later.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from personas_dagster.errors import PersonasError
from personas_dagster.lake import DeltaLake
from personas_dagster.state import State

VARIABLE = "PERSONAS_SIMULATION"


@dataclass(frozen=True)
class Simulation:
    """`settings` maps spaces to destinations to the settings of their simulators."""

    url: str
    folder: Path
    settings: Mapping[str, Mapping[str, Mapping[str, Any]]]

    def of(self, space: str, destination: str) -> Mapping[str, Any]:
        """The settings that stand for a destination's own; PersonasError where there are none."""
        found = self.settings.get(space, {}).get(destination)
        if found is None:
            raise PersonasError(
                f"destination {destination} has no simulator, and this is a simulation: nothing "
                "is sent; end `personas dev --simulate` to sync it"
            )
        return found

    def shown_at(self, space: str, destination: str) -> str:
        """Where a person sees what the simulator holds."""
        return f"{self.url}/{account(space, destination)}/_simulator"

    def state(self, space: str) -> State:
        self._folder(space).mkdir(parents=True, exist_ok=True)
        return State(f"sqlite:///{self._folder(space) / 'state.db'}")

    def ledger(self, space: str) -> DeltaLake:
        return DeltaLake(self._folder(space) / "lake")

    def _folder(self, space: str) -> Path:
        return self.folder / space

    def write(self) -> Path:
        """The file that processes are told of."""
        path = self.folder / "simulation.json"
        path.write_text(json.dumps({"url": self.url, "settings": self.settings}))
        return path


def account(space: str, destination: str) -> str:
    """The name of a destination's account at the simulators."""
    return f"{space}.{destination}"


def read_simulation() -> Simulation | None:
    """The simulation that this process is part of, if it is."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    path = Path(named)
    try:
        found = json.loads(path.read_text())
    except OSError as error:
        raise PersonasError(
            f"{VARIABLE} names {path}, which cannot be read: {error.strerror}; the simulation has "
            f"ended: unset {VARIABLE}, or start `personas dev --simulate` again"
        ) from error
    return Simulation(found["url"], path.parent, found["settings"])
