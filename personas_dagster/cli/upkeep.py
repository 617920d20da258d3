"""Commands that look after the tables: `personas events fill`."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from uuid import uuid4

import typer

from personas_dagster import upkeep
from personas_dagster.cli.shell import (
    ProjectOption,
    QuietOption,
    Shell,
    SpaceOption,
    VerboseOption,
    emit,
)


def add_to(app: typer.Typer) -> None:
    events = typer.Typer(help="The table of messages that the compute reads.", no_args_is_help=True)
    events.command()(fill)
    app.add_typer(events, name="events")


def fill(
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Fill the typed columns of properties that definitions read, for all messages at once.

    Example: personas events fill
    """
    shell = Shell(project, space, quiet, verbose)
    lease = shell.space.state.lease(
        "refresh", owner=uuid4().hex, holder="`personas events fill`, which fills columns"
    )
    with lease, shell.working("filling typed columns"):
        tended = upkeep.tend(shell.space, now=dt.datetime.now(dt.UTC), at_most=None)
    emit({"months_filled": list(tended.filled), "months_compacted": list(tended.compacted)})
