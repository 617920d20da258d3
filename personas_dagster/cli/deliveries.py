"""Commands that move data out: sync."""

from __future__ import annotations

import datetime as dt
import os
from getpass import getuser
from pathlib import Path
from typing import Annotated, Any
from uuid import uuid4

import typer

from personas_dagster import deliver
from personas_dagster.activation.report import SyncReport
from personas_dagster.alerting import tell_all
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
    app.command()(sync)


def sync(
    connections: Annotated[
        list[str] | None, typer.Argument(metavar="[CONNECTION]...", help="Default: all.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would be sent; send nothing.")
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Let a held trait or audience pass once."),
    ] = None,
    reason: Annotated[str, typer.Option(help="Why it may pass; kept in the audit trail.")] = "",
    resync: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY", help="Send everything of this connection or key again."),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also before the destination's interval has passed.")
    ] = False,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Deliver what changed to the destinations.

    Example: personas sync big_spenders_to_webhook --dry-run
    """
    shell = Shell(project, space, quiet, verbose)
    if allow and not reason:
        raise typer.BadParameter("--allow needs --reason TEXT: it is kept with who and when")
    chosen = _chosen(shell, connections or ())
    _check(chosen, "--allow", allow or ())
    _check(chosen, "--resync", resync or ())
    if shell.space.simulation:
        shell.console.print("SIMULATED: no destination is reached", style="bold red")
    failures = []
    for destination in sorted(set(chosen.values())):
        with shell.working(f"syncing {destination}") as progress:
            task = progress.task_ids[0]

            def told(done: int, total: int, task: Any = task, shown: Any = progress) -> None:
                shown.update(task, completed=done, total=total)

            try:
                report = deliver.deliver(
                    shell.space,
                    destination,
                    owner=f"{_person()[:30]} {uuid4().hex}",
                    now=lambda: dt.datetime.now(dt.UTC),
                    only=tuple(connections or ()),
                    dry_run=dry_run,
                    allow=dict.fromkeys(allow or (), reason),
                    resync=resync or (),
                    force=force,
                    progress=told,
                )
            except PersonasError as error:
                failures.append(str(error))
                continue
        failures += _show(shell, report)
    if failures:
        raise PersonasError("; ".join(failures))


def _chosen(shell: Shell, names: list[str] | tuple[str, ...]) -> dict[str, str]:
    """Connections, or keys of theirs, to the destinations that are to be synced."""
    known = shell.space.connections
    for name in names:
        if name not in known:
            there = ", ".join(sorted(known)) or "none is declared"
            raise PersonasError(
                f"no connection `{name}` in space {shell.space.name}; expected one of: {there}"
            )
    models = [known[name] for name in names or sorted(known)]
    return {part: one.destination for one in models for part in (one.name, one.key)}


def _check(chosen: dict[str, str], option: str, names: list[str] | tuple[str, ...]) -> None:
    for name in names:
        if name not in chosen:
            there = ", ".join(sorted(chosen)) or "none is declared"
            raise PersonasError(
                f"{option} {name}: found no such connection or key among those that are synced; "
                f"expected one of: {there}"
            )


def _person() -> str:
    """Who is at it, for the audit trail."""
    try:
        return getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return f"uid {os.getuid()}"


def _show(shell: Shell, report: SyncReport) -> list[str]:
    """Print what a sync did; returns what went wrong."""
    skipped = {"skipped": report.skipped} if report.skipped else {}
    emit(
        {
            "destination": report.destination,
            "dry_run": report.dry_run,
            **skipped,
            **report.counts,
        }
    )
    if report.skipped:
        shell.say(report.skipped.replace("or sooner if forced", "or now with --force"))
    for row in deliver.rows(report):
        shell.say(", ".join(f"{k}: {v}" for k, v in row.items() if v not in ("", 0)))
    if report.dry_run:
        for example in report.examples:
            shell.say(str(example))
        if report.seconds is not None:
            shell.say(f"{report.requests} requests, {report.seconds:.1f} s at the tool's rate")
        return []
    failed = deliver.failure(report)
    return [*([failed] if failed else []), *_alert(shell, report)]


def _alert(shell: Shell, report: SyncReport) -> list[str]:
    """Tell the space's channels what is held or unusual, as a run's sensor would."""
    odd = [f"Unusual: {found}" for found in deliver.unusual(shell.space, report)]
    held = [
        f"Held: connection {name}: {why} (let it pass once: personas sync {name} --allow {name} "
        "--reason TEXT)"
        for name, why in report.held.items()
    ]
    for line in [*held, *odd]:
        shell.say(line)
    urls = shell.space.project.alerts.urls
    if not urls or not (held or odd):
        return []
    name = shell.space.name
    body = "\n".join([*held, *odd, f"`personas sync` of {report.destination}, by {_person()}"])
    try:
        tell_all(urls, title=f"{name}: a sync needs a look", body=body)
    except PersonasError as error:
        return [str(error)]
    return []
