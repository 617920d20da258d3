"""Commands about destinations: list, test, import."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

import typer

from personas_dagster import accounts
from personas_dagster.cli.shell import (
    ProjectOption,
    QuietOption,
    Shell,
    SpaceOption,
    VerboseOption,
    emit,
)
from personas_dagster.errors import PersonasError


def add_to(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True, help="The accounts at tools that are synced to.")
    group.command("list")(list_)
    group.command("test")(test)
    group.command("import")(import_)
    app.add_typer(group, name="destination")


def list_(
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """The destinations of the space: one JSON line each, with what is connected and the last sync.

    Example: personas destination list --space production
    """
    for row in accounts.listed(Shell(project, space, quiet, verbose).space):
        emit(row)


def test(
    name: Annotated[str, typer.Argument(help="The destination's name.")],
    to: Annotated[
        str | None,
        typer.Option(metavar="TYPE:VALUE", help="Also send a test message to this person."),
    ] = None,
    key: Annotated[
        str, typer.Option(help="What the test message says of them: KEY is true.")
    ] = accounts.TEST_KEY,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Whether a destination works: its settings, its secrets, what the tool says.

    Without --to nothing is sent; the tool is asked what it can be asked.

    Example: personas destination test braze --to email:me@example.com
    """
    shell = Shell(project, space, quiet, verbose)
    with shell.working(f"testing {name}"):
        found = accounts.tried(shell.space, name, to=to, key=key)
    emit({"destination": name, **found.row})
    for line in found.said:
        shell.say(line)
    if found.problems:
        raise PersonasError(f"destination {name}: {'; '.join(found.problems)}")


def import_(
    name: Annotated[str, typer.Argument(help="The destination's name in the other space.")],
    from_: Annotated[str, typer.Option("--from", metavar="SPACE", help="The space that has it.")],
    as_: Annotated[
        str | None,
        typer.Option("--as", metavar="NEW", help="Copy the settings to a destination of its own."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Take over a destination's settings from another space; shows the change and asks first.

    Secrets stay where they are: the file names the same environment variables or secret files, and
    no value is read or written.

    Example: personas destination import braze --from staging --space production
    """
    shell = Shell(project, space, quiet, verbose)
    changes = accounts.imported(shell.space, name, source=from_, new=as_)
    for change in changes:
        for line in _difference(shell, change):
            shell.console.print(line, highlight=False, markup=False)
    if not yes and not typer.confirm("Write this?", err=True):
        raise PersonasError("nothing was changed")
    for change in changes:
        change.path.parent.mkdir(parents=True, exist_ok=True)
        change.path.write_text(change.after, encoding="utf-8")
    root = shell.project.root
    emit({"destination": as_ or name, "space": shell.space.name,
          "changed": [str(one.path.relative_to(root)) for one in changes]})  # fmt: skip


def _difference(shell: Shell, change: accounts.Change) -> list[str]:
    name = str(change.path.relative_to(shell.project.root))
    old: Any = change.before.splitlines()
    return list(
        difflib.unified_diff(
            old, change.after.splitlines(), f"{name} (now)", f"{name} (then)", lineterm=""
        )
    )
