"""Commands about who may do what: token, grant."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from personas_dagster import access
from personas_dagster.cli.shell import (
    ProjectOption,
    QuietOption,
    Shell,
    SpaceOption,
    VerboseOption,
    emit,
)
from personas_dagster.project import editing


class Role(StrEnum):
    """What a token may do."""

    READ = "read"
    DEFINE = "define"
    SYNC = "sync"
    ADMIN = "admin"


class Permission(StrEnum):
    """What the operator of the command line has to be granted."""

    PII = "pii"


NameArgument = Annotated[str, typer.Argument(help="The token's name, such as shop/production.")]


def add_to(app: typer.Typer) -> None:
    token = typer.Typer(no_args_is_help=True, help="Access tokens of a space.")
    token.command("create")(create)
    token.command("list")(list_tokens)
    token.command("revoke")(revoke)
    app.add_typer(token, name="token")
    app.command()(grant)


def create(
    name: NameArgument,
    role: Annotated[list[Role], typer.Option(help="What it may do (several times).")],
    pii: Annotated[bool, typer.Option("--pii", help="It sees e-mails and phones.")] = False,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Make an access token. It is shown this once: only its hash is stored.

    Example: personas token create shop/production --role read
    """
    shell = Shell(project, space, quiet, verbose)
    token, text = access.create(
        shell.space.state,
        shell.space.name,
        name,
        roles=[one.value for one in role],
        has_pii=pii,
        now=dt.datetime.now(dt.UTC),
    )
    emit({**_shown(token), "token": text})
    shell.say("keep the token now: it cannot be shown again")


def list_tokens(
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Every token of the space, also those that were revoked; never their secrets.

    Example: personas token list
    """
    shell = Shell(project, space, quiet, verbose)
    for token in access.all_tokens(shell.space.state, shell.space.name):
        emit(_shown(token))


def revoke(
    name: NameArgument,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Stop a token at once.

    Example: personas token revoke shop/production
    """
    shell = Shell(project, space, quiet, verbose)
    now = dt.datetime.now(dt.UTC)
    access.revoke(shell.space.state, shell.space.name, name, now=now)
    emit({"name": name, "space": shell.space.name, "revoked_at": now})


def _shown(token: access.Token) -> dict[str, object]:
    return {
        "name": token.name,
        "space": token.space,
        "roles": [role for role in access.ROLES if role in token.roles],
        "pii": token.has_pii,
        "created_at": token.created_at,
        "revoked_at": token.revoked_at,
    }


def grant(
    permission: Annotated[Permission, typer.Argument(help="What to grant.")],
    take_back: Annotated[
        bool, typer.Option("--revoke", help="Take the permission back instead.")
    ] = False,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Let the command line show e-mails, phones and raw exports: `operator` in the space's file.

    Example: personas grant pii --space production
    """
    shell = Shell(project, space, quiet, verbose)
    opened = shell.space
    path = opened.project.root / opened.project.spaces[opened.name].path
    held = [one for one in opened.settings.operator if one != permission.value]
    wanted = held if take_back else [*held, permission.value]
    editing.write(
        path, editing.changed(path.read_text(encoding="utf-8"), {"operator": wanted or None})
    )
    outcome = "revoked" if take_back else "granted"
    opened.state.audit("grant", permission.value, at=dt.datetime.now(dt.UTC), outcome=outcome)
    emit({"space": opened.name, "operator": wanted, "file": str(path)})
