"""The command that runs the HTTP application."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from personas_dagster.cli.shell import (
    ProjectOption,
    QuietOption,
    Shell,
    VerboseOption,
)
from personas_dagster.errors import PersonasError


def add_to(app: typer.Typer) -> None:
    app.command()(serve)


def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="The port.")] = 8080,
    workers: Annotated[int, typer.Option(min=1, max=64, help="How many processes.")] = 1,
    project: ProjectOption = Path(),
    space: Annotated[
        list[str] | None, typer.Option(help="Serve this space only (may be repeated).")
    ] = None,
    allow_missing_keys: Annotated[
        bool,
        typer.Option("--allow-missing-keys", help="Start without the write keys that are not set."),
    ] = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run the HTTP application until Ctrl-C: messages in, profiles out.

    Example: personas serve --port 8080 --workers 2
    """
    from personas_dagster.serving.server import Settings, open_spaces, prepare, run

    shell = Shell(project, None, quiet, verbose)
    root = shell.root.resolve()
    spaces = tuple(open_spaces(root, space or ()))
    settings = Settings(str(root), spaces, host, port, workers, allow_missing_keys, quiet)
    for missing in prepare(settings):
        shell.say(f"not set: {missing}")
    shell.say(f"serving {', '.join(spaces)} on http://{host}:{port}; Ctrl-C stops it")
    run(settings)


@contextmanager
def serving(shell: Shell, host: str, port: int, *, webserver: str) -> Iterator[None]:
    """The HTTP application of all spaces in a process beside this one, for development: it also
    starts when write keys are not set. It tells Dagster's webserver of changed definitions."""
    from personas_dagster.serving.server import Settings, prepare

    root = shell.project.root
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        raise PersonasError(
            f"port {port} of {host} cannot be used ({error.strerror}); end what uses it, or choose "
            "another with --serve-port"
        ) from error
    for missing in prepare(Settings(str(root), host=host, port=port, allow_missing_keys=True)):
        shell.say(f"not set: {missing}")
    command = [sys.executable, "-m", "personas_dagster.cli", "serve", "--allow-missing-keys", "-q"]
    command += ["--project", str(root), "--host", host, "--port", str(port)]
    environment = {"PERSONAS_WEBSERVER_URL": webserver, **os.environ}
    process = subprocess.Popen(command, cwd=root, env=environment)
    shell.say(f"HTTP application: http://{host}:{port}")
    try:
        yield
    finally:
        process.terminate()
        process.wait()
