"""`personas delete`: a person leaves everything that is stored."""

from __future__ import annotations

import datetime as dt
import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from personas_dagster.cli.shell import (
    ProjectOption,
    QuietOption,
    Shell,
    SpaceOption,
    VerboseOption,
    emit,
)
from personas_dagster.curating import identifier as read
from personas_dagster.erasing import flow
from personas_dagster.erasing.person import Person
from personas_dagster.errors import NotFound, PersonasError


def add_to(app: typer.Typer) -> None:
    app.command()(delete)


def delete(
    identifier: Annotated[str, typer.Argument(metavar="TYPE:VALUE", help="Such as user_id:42.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Scan every byte stored afterwards; fail on a find.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")] = False,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Delete a person: messages, identifiers, traits, memberships, deliveries, landed files.

    Prints a receipt that names nobody. What names the person's identifiers later is not stored.
    Example: personas delete email:ann@example.com --verify
    """
    from personas_dagster.resources import history  # loads Dagster

    shell, name = Shell(project, space, quiet, verbose), read(identifier)
    if name[0] != "users":
        raise PersonasError(f"{name[1]} names an account; only persons can be deleted")
    try:
        person = flow.look_up(shell.space, name)
    except NotFound:
        if not flow.is_suppressed(shell.space, name):
            raise
        person = Person((), (name[1:],))
    if person.profile_ids and not yes:
        _ask(shell, person)
    done = None
    with shell.working(f"deleting {name[1]}") as progress:
        task = progress.task_ids[0]
        if person.profile_ids or flow.is_open(shell.space, name):
            done, person = flow.erase(
                shell.space,
                name,
                now=dt.datetime.now(dt.UTC),
                by=getpass.getuser(),
                step=lambda text: progress.update(task, description=text),
            )
        history.forget(shell.root, person.telling)
    if done is not None:
        emit(done.as_json())
    else:
        shell.say("this person was deleted before")
    if verify:
        _verify(shell, person, history.home(shell.root))


def _ask(shell: Shell, person: Person) -> None:
    shell.say(
        f"profiles, with those merged into it: {len(person.profile_ids)}; identifiers: "
        + ", ".join(f"{n} {kind}" for kind, n in person.types.items())
    )
    shell.say("all messages that name one of them will be deleted; nothing brings them back")
    if not sys.stdin.isatty():
        raise PersonasError("nobody is there to ask; say --yes to delete")
    typer.confirm("delete this person?", abort=True, err=True)


def _verify(shell: Shell, person: Person, runs: Path) -> None:
    with shell.working("scanning what is stored"):
        left = flow.leftovers(shell.space, person, [runs])
    if left:
        raise PersonasError(
            f"{len(left)} files still hold an identifier of the person: "
            + ", ".join(str(path) for path in left[:5])
        )
    emit({"verified": True, "found": 0})
