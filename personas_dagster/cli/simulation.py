"""`personas dev --simulate`: a simulator for each destination, for as long as the UI runs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from personas_dagster.cli.shell import Shell
from personas_dagster.simulated import VARIABLE, Simulation, account
from personas_dagster.simulators import SIMULATORS, simulator
from personas_dagster.simulators.serving import Served
from personas_dagster.spaces import open_space

_LOUD = "bold white on red"


@contextmanager
def simulating(shell: Shell) -> Iterator[dict[str, str]]:
    """The environment of processes whose syncs reach simulators, and no tool.

    What the simulators were told is kept in a folder that goes when the block ends.
    """
    project = shell.project
    with tempfile.TemporaryDirectory(prefix="personas-simulation-") as folder, Served() as served:
        settings: dict[str, dict[str, dict[str, object]]] = {}
        lines: list[str] = []
        for space in sorted(project.spaces):
            for name, model in sorted(open_space(project, space).destinations.items()):
                if model.type not in SIMULATORS:
                    lines.append(f"  {space}: {name} ({model.type}) has no simulator: not synced")
                    continue
                made = simulator(model.type)
                url = served.add(account(space, name), made)
                settings.setdefault(space, {})[name] = made.settings(url)
                lines.append(f"  {space}: {name} is {url}; what it holds: {url}/_simulator")
        simulation = Simulation(served.url, Path(folder), settings)
        path = simulation.write()
        shell.console.print(
            "SIMULATED: no destination of this project is reached, and nothing that is sent is "
            "kept.",
            style=_LOUD,
        )
        for line in lines:
            shell.console.print(line, highlight=False)
        shell.say(f"To sync by hand into it: {VARIABLE}={path} personas sync")
        yield {VARIABLE: str(path)}
