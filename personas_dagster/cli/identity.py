"""Commands on the identity graph: look at it, ask why, decide, rebuild, simulate."""

from __future__ import annotations

import datetime as dt
import getpass
import sys
from collections.abc import Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.progress import Progress

from personas_dagster import asking, curating
from personas_dagster.cli.shell import (
    ProjectOption,
    QuietOption,
    Shell,
    SpaceOption,
    VerboseOption,
    emit,
)
from personas_dagster.errors import PersonasError
from personas_dagster.identity.comparing import Comparison
from personas_dagster.identity.deciding import name_of
from personas_dagster.project.declared import space_identity
from personas_dagster.project.loader import read_identity
from personas_dagster.refresh import floor_hour

IdArgument = Annotated[str, typer.Argument(metavar="TYPE:VALUE", help="Such as anonymous_id:42.")]
AccountsOption = Annotated[
    bool, typer.Option("--accounts", help="An identifier of accounts, not of users.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
ReasonOption = Annotated[str, typer.Option(help="Why; kept with who and when.")]
ByTimeOption = Annotated[bool, typer.Option("--by-time", help="One order for all messages.")]


def add_to(app: typer.Typer) -> None:
    identity = typer.Typer(no_args_is_help=True, help="The identity graph.")
    for command in (export, show, explain, detach, delete, block, allow, rebuild, simulate):
        identity.command()(command)
    identity.command("pass")(let_pass)
    app.add_typer(identity, name="identity")


def export(
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """The graph: one JSON line per profile.

    Example: personas identity export > graph.jsonl
    """
    shell = Shell(project, space, quiet, verbose)
    with shell.space.session() as session:
        for line in asking.graph(session):
            sys.stdout.write(line + "\n")


class Record(StrEnum):
    """What the graph keeps a record of."""

    MERGES = "merges"
    DROPPED = "dropped"
    HUBS = "hubs"
    LOADS = "loads"
    DECISIONS = "decisions"


_RECORDS = {
    Record.MERGES: curating.newest_merges,
    Record.DROPPED: curating.newest_drops,
    Record.HUBS: curating.newest_hubs,
    Record.LOADS: curating.newest_loads,
    Record.DECISIONS: curating.newest_decisions,
}


def show(
    what: Annotated[Record, typer.Argument(help="What to show.")],
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Merges, identifiers that were dropped, hubs, loads with their digests, decisions.

    Example: personas identity show dropped --limit 100
    """
    shell = Shell(project, space, quiet, verbose)
    for row in _RECORDS[what](shell.space, limit=limit):
        emit(row)


def explain(
    a: Annotated[str, typer.Argument(metavar="A", help="An identifier, TYPE:VALUE.")],
    b: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    accounts: AccountsOption = False,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Why two identifiers are one profile, or why not.

    Example: personas identity explain user_id:42 anonymous_id:a-1
    """
    shell = Shell(project, space, quiet, verbose)
    of = "accounts" if accounts else None
    emit(curating.explain(shell.space, curating.identifier(a, of), curating.identifier(b, of)))


def detach(
    identifier: IdArgument,
    accounts: AccountsOption = False,
    reason: ReasonOption = "",
    yes: YesOption = False,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Take an identifier out of its profile: it does not belong with the others.

    Shows before and after first, and asks.
    Example: personas identity detach anonymous_id:kiosk --reason "a shared device"
    """
    _undo(Shell(project, space, quiet, verbose), "detach", identifier, accounts, reason, yes)


def delete(
    identifier: IdArgument,
    reason: ReasonOption = "",
    yes: YesOption = False,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Delete an identifier of a person: messages received until now do not name it any more.

    Shows before and after first, and asks. Example: personas identity delete email:old@x.com
    """
    _undo(Shell(project, space, quiet, verbose), "delete", identifier, False, reason, yes)


def _undo(shell: Shell, what: str, text: str, accounts: bool, reason: str, yes: bool) -> None:
    name = curating.identifier(text, "accounts" if accounts else None)
    now = dt.datetime.now(dt.UTC)
    if not yes:
        with shell.working(f"looking at what {what} would do") as progress:
            planned = curating.planned(shell.space, what, name, now=now)
            found = curating.preview(shell.space, extra=[planned], progress=_told(progress))
        _show(shell, found)
        _ask(f"{what} {name_of(name)}?")
    curating.settle(shell.space, what, name, now=now, by=_who(), reason=reason)
    _refresh(shell, {"decision": what, "identifier": name_of(name)})


def block(
    identifier: IdArgument,
    accounts: AccountsOption = False,
    reason: ReasonOption = "",
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Do not use this value as an identifier in messages that come from now on.

    Example: personas identity block email:team@x.com --reason "a team mailbox"
    """
    _decide(Shell(project, space, quiet, verbose), "block", identifier, accounts, reason)


def allow(
    identifier: IdArgument,
    accounts: AccountsOption = False,
    reason: ReasonOption = "",
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """This value is no hub: use it as an identifier, and do not alert about it.

    Example: personas identity allow email:ann@x.com
    """
    _decide(Shell(project, space, quiet, verbose), "allow", identifier, accounts, reason)


def _decide(shell: Shell, what: str, text: str, accounts: bool, reason: str) -> None:
    name = curating.identifier(text, "accounts" if accounts else None)
    now = dt.datetime.now(dt.UTC)
    done = curating.settle(shell.space, what, name, now=now, by=_who(), reason=reason)
    shell.say("it holds for messages that come from now on")
    emit({"decision": what, "identifier": name_of(name), "at": done.at, "by": done.by})


def let_pass(
    reason: Annotated[str, typer.Option(help="Why it may pass; kept with who and when.")],
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Let the messages of the load that was refused last into the graph, once.

    Example: personas identity pass --reason "a partner's list, checked" && personas refresh
    """
    shell = Shell(project, space, quiet, verbose)
    if not reason.strip():
        raise typer.BadParameter("--reason needs a text: it is kept with who and when")
    now = dt.datetime.now(dt.UTC)
    done = curating.let_pass(shell.space, now=now, by=_who(), reason=reason)
    shell.say("the next refresh takes these messages up; run `personas refresh`")
    emit({"decision": "pass", "checks": list(done.checks), "at": done.at, "by": done.by})


def rebuild(
    by_time: ByTimeOption = False,
    yes: YesOption = False,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Derive the graph anew from the recorded loads, under the rules of now.

    With --by-time from all messages in one order; shows first what would change, and asks.
    Example: personas identity rebuild
    """
    shell = Shell(project, space, quiet, verbose)
    if by_time and not yes:
        with shell.working("looking at what a rebuild would change") as progress:
            found = curating.preview(
                shell.space, rules=shell.space.rules, in_time=True, progress=_told(progress)
            )
        _show(shell, found)
        _ask("rebuild by time?")
    now = dt.datetime.now(dt.UTC)
    curating.rebuild(shell.space, now=now, by=_who(), in_time=by_time)
    _refresh(shell, {"rebuilt": "by time" if by_time else "by loads"})


def simulate(
    rules: Annotated[Path, typer.Option(help="A file of rules, as assets/identity.yaml is.")],
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """What other identity rules would make of all stored messages. Changes nothing.

    Example: personas identity simulate --rules stricter.yaml
    """
    shell = Shell(project, space, quiet, verbose)
    told = replace(shell.project, identity=read_identity(rules))
    other = space_identity(told, shell.space.settings).rules()
    last = shell.space.last_refresh()
    as_of = last["as_of"] if last else floor_hour(dt.datetime.now(dt.UTC))
    with shell.working("replaying the messages") as progress:
        found, sizes = curating.simulate(shell.space, other, as_of=as_of, progress=_told(progress))
    _show(shell, found)
    for key, size in sizes.items():
        emit({"audience": key, **size})


def _show(shell: Shell, found: Comparison) -> None:
    for row in curating.comparison_rows(found, has_pii=shell.space.operator_has_pii):
        emit(row)


def _ask(question: str) -> None:
    if not sys.stdin.isatty():
        raise PersonasError(f"{question} nobody is there to answer; add --yes to do it")
    if not typer.confirm(question, err=True):
        raise typer.Exit(1)


def _told(progress: Progress) -> Callable[[int, int], None]:
    task = progress.task_ids[0]
    return lambda done, total: progress.update(task, completed=done, total=total)


def _who() -> str:
    return getpass.getuser()


def _refresh(shell: Shell, done: dict[str, Any]) -> None:
    """Run the refresh that derives the graph anew and publishes it."""
    from personas_dagster.resources.launch import run_job

    last = shell.space.last_refresh()
    now = floor_hour(dt.datetime.now(dt.UTC))
    as_of = max(now, last["as_of"]) if last else now
    with shell.working(f"deriving the graph of {shell.space.name} anew"):
        outcome = run_job(shell.space, "refresh", as_of=as_of.isoformat(), verbose=shell.verbose)
    if not outcome.success:
        raise PersonasError(
            f"it is recorded, and holds from the next refresh on; this one failed: {outcome.reason}"
        )
    emit({**done, "as_of": as_of, **curating.last_rebuild(shell.space)})
