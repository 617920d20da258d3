"""Commands that move data in: ingest, refresh."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from personas_dagster import intake, unset
from personas_dagster import refresh as refreshing
from personas_dagster.cli.shell import (
    AsOfOption,
    ProjectOption,
    QuietOption,
    Shell,
    SpaceOption,
    VerboseOption,
    emit,
    instant,
)
from personas_dagster.errors import PersonasError


def add_to(app: typer.Typer) -> None:
    app.command()(ingest)
    app.command()(refresh)


def ingest(
    paths: Annotated[list[Path], typer.Argument(metavar="PATH...", help="Files or folders.")],
    source: Annotated[str, typer.Option(help="The source that the messages come from.")] = "files",
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Take in messages: JSON Lines (also gzipped), Parquet or CSV.

    Example: personas ingest 2026-03-01.jsonl.gz more/
    """
    shell = Shell(project, space, quiet, verbose)
    now = dt.datetime.now(dt.UTC)
    if source not in shell.space.sources:
        there = ", ".join(sorted(shell.space.sources)) or "none is declared"
        raise PersonasError(
            f"no source `{source}` in space {shell.space.name}; expected one of: {there}"
        )
    landed = shell.space.landing.land(paths, source_id=source, now=now)
    with shell.working(f"taking in {len(landed)} files") as progress:
        task = progress.task_ids[0]
        report = intake.take_in(
            shell.space,
            now=now,
            progress=lambda done: progress.update(
                task, description=f"taking in {len(landed)} files: {done:,} messages"
            ),
        )
    emit({**report.as_json(), "received_dates": _span(report.received_dates)})
    for name, reason in sorted(report.damaged.items()):
        shell.say(f"damaged: {name}: {reason}; what could be read was loaded")
    if report.rejected:
        shell.say(f"{report.rejected} rejected: see the table rejected_events for each one")


def _span(dates: Mapping[dt.date, int]) -> dict[str, Any] | None:
    """The partitions that were touched: the first, the last, how many."""
    if not dates:
        return None
    return {"from": min(dates), "to": max(dates), "days": len(dates)}


def refresh(
    as_of: AsOfOption = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="KEY", help="Only this trait or audience.")
    ] = None,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Run the refresh job: events, identity, traits, audiences; print what changed.

    Example: personas refresh --as-of 2026-03-01T00:00Z
    """
    shell = Shell(project, space, quiet, verbose)
    at = instant(as_of)
    if at is not None:
        refreshing.check_forward(shell.space, at)
    known = {*shell.space.computed_keys, *shell.space.audience_keys}
    for key in only or ():
        if key not in known:
            raise PersonasError(
                f"no trait or audience `{key}` in space {shell.space.name}; "
                f"expected one of: {', '.join(sorted(known))}"
            )
    refreshing.get_ready(shell.space)
    from personas_dagster.resources.launch import run_job  # Dagster: a second

    with shell.working(f"refreshing {shell.space.name}"):
        outcome = run_job(
            shell.space,
            "refresh",
            only=only or (),
            as_of=at.isoformat() if at else None,
            verbose=verbose,
        )
    if not outcome.success:
        raise PersonasError(f"the refresh failed: {outcome.reason}")
    last = shell.space.last_refresh()
    if last is None:
        raise PersonasError("the refresh left nothing behind; run it again with -v")
    _show_refresh(shell, last)
    for key, texts in unset.warnings(shell.space, shell.space.definitions).items():
        for text in texts:
            shell.say(f"warning: {key}: {text}")
    emit({"refresh_id": last["refresh_id"], "as_of": last["as_of"], **_totals(last)})


def _totals(row: dict[str, Any]) -> dict[str, Any]:
    counts = row["counts"] or {}
    moved = counts.get("audiences", {}).values()
    return {
        "identity": counts.get("identity", {}),
        "custom_traits_changed": sum(counts.get("custom_traits_changed", {}).values()),
        "traits_changed": sum(counts.get("traits_changed", {}).values()),
        "entered": sum(one["entered"] for one in moved),
        "exited": sum(one["exited"] for one in moved),
    }


def _show_refresh(shell: Shell, row: dict[str, Any]) -> None:
    counts = row["counts"] or {}
    shell.say(f"space {shell.space.name}, as of {row['as_of']:%Y-%m-%d %H:%M} UTC")
    identity = counts.get("identity")
    if identity:
        table = Table("identity", "new", title_justify="left")
        for name, rows in identity.items():
            table.add_row(name.replace("_", " "), f"{rows:,}")
        shell.say(table)
    held = counts.get("traits_held", {})
    traits = counts.get("traits_changed", {})
    if traits:
        table = Table("computed trait", "profiles", "changed")
        for key, changed in sorted(traits.items()):
            table.add_row(key, f"{held.get(key, 0):,}", f"{changed:,}")
        shell.say(table)
    audiences = counts.get("audiences", {})
    if audiences:
        table = Table("audience", "members", "entered", "exited")
        for key, one in sorted(audiences.items()):
            table.add_row(key, f"{one['size']:,}", f"{one['entered']:,}", f"{one['exited']:,}")
        shell.say(table)
