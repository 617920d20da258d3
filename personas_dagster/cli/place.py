"""Commands about a project as a whole: init, check, dev."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib import resources
from importlib.abc import Traversable
from pathlib import Path
from typing import Annotated

import typer

from personas_dagster.answers import cases
from personas_dagster.cli.serve import serving
from personas_dagster.cli.shell import (
    ProjectOption,
    QuietOption,
    Shell,
    SpaceOption,
    VerboseOption,
    emit,
)
from personas_dagster.cli.simulation import simulating
from personas_dagster.errors import DefinitionError, PersonasError
from personas_dagster.project.declared import query_definitions
from personas_dagster.project.loader import read_project
from personas_dagster.query import parse, unparse
from personas_dagster.spaces import destination_problems, open_space


def add_to(app: typer.Typer) -> None:
    app.command()(init)
    app.command()(check)
    app.command()(dev)


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to make the project.")],
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make a new project with a sample space that runs as it is.

    Example: personas init shop && cd shop && personas check
    """
    shell = Shell(folder, quiet=quiet, verbose=verbose)
    template = resources.files("personas_dagster") / "samples" / "project"
    taken = [name for name in _files(template) if (folder / name).exists()]
    if taken:
        raise PersonasError(
            f"{folder / taken[0]} is there already; choose an empty folder, nothing was written"
        )
    for name in _files(template):
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(template.joinpath(name).read_bytes())
    shell.say(f"made a project in {folder}; next:")
    shell.say(f"  cd {folder}")
    shell.say("  personas ingest MESSAGES.jsonl.gz")
    shell.say("  personas refresh")


def _files(folder: Traversable, prefix: str = "") -> list[str]:
    found: list[str] = []
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        name = f"{prefix}{entry.name}"
        if entry.is_dir():
            found += [] if entry.name == "__pycache__" else _files(entry, f"{name}/")
        else:
            found.append(name)
    return found


def check(
    print_queries: Annotated[
        bool, typer.Option("--print", help="Print every definition's query, one a line, as JSON.")
    ] = False,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Validate every definition and run its tests; problems as file:line:column: message.

    Example: personas check --project shop
    """
    shell = Shell(project, space, quiet, verbose)
    found, problems = read_project(shell.root)
    problems += destination_problems(found)
    if problems:
        raise DefinitionError(problems)
    opened = open_space(found, space)
    ran = cases.run(opened)
    if ran.problems:
        raise DefinitionError(ran.problems)
    if print_queries:
        for key, declared, definition in query_definitions(found, lambda model: True):
            form = declared.model.form
            emit(
                {
                    "key": key,
                    "kind": definition.kind,
                    "collection": definition.collection,
                    "form": form[0] if form else None,
                    "query": unparse(parse(definition.query)),
                }
            )
    for warning in found.warnings:
        shell.say(f"warning: {warning}")
    parts = {
        "sources": found.sources,
        "computed traits": found.computed_traits,
        "SQL traits": found.sql_traits,
        "audiences": found.audiences,
        "destinations": found.destinations,
        "connections": found.connections,
        "spaces": found.spaces,
    }
    counts = [f"{len(part)} {name}" for name, part in parts.items()]
    if ran.cases:
        counts.append(f"{ran.cases} tests")
    shell.say("ok: " + ", ".join(counts))


def dev(
    project: ProjectOption = Path(),
    port: Annotated[int, typer.Option(help="The UI's port.")] = 3000,
    host: Annotated[str, typer.Option(help="The UI's address.")] = "127.0.0.1",
    serve_port: Annotated[int, typer.Option(help="The HTTP application's port.")] = 8080,
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Sync to simulators in place of all destinations.")
    ] = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run the Dagster UI and daemon and the HTTP application, with all spaces, until Ctrl-C.

    Example: personas dev --port 3000
    """
    from personas_dagster.resources.launch import dagster_home

    shell = Shell(project, quiet=quiet, verbose=verbose)
    root = shell.project.root
    home = dagster_home(root)
    if not (root / "workspace.yaml").exists():
        raise PersonasError(f"{root}/workspace.yaml is missing; copy it from a new project")
    context: AbstractContextManager[dict[str, str]]
    context = simulating(shell) if simulate else nullcontext({})
    webserver = f"http://{host}:{port}"
    with context as more, serving(shell, host, serve_port, webserver=webserver):
        shell.say(f"Dagster UI: http://{host}:{port} (instance in {home}); Ctrl-C stops it")
        raise typer.Exit(_run_ui(root, home, host, port, more, verbose))


def _run_ui(
    root: Path, home: Path, host: str, port: int, more: Mapping[str, str], verbose: bool
) -> int:
    """The UI and the daemon until they end; the exit code. `more`: of their environment."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "dagster", "dev", "-w", str(root / "workspace.yaml")),
            *("--host", host, "--port", str(port)),
            *(() if verbose else ("--log-level", "warning")),
        ],
        cwd=root,
        env={
            "PERSONAS_UI_URL": f"http://{host}:{port}",  # where alerts lead to
            **os.environ,
            "DAGSTER_HOME": str(home),
            "PERSONAS_PROJECT": str(root),
            **more,
        },
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.send_signal(signal.SIGINT)
        code = process.wait()
    return 0 if code in (0, -signal.SIGINT) else 1
