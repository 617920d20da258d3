"""Commands about one definition: preview, export."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from personas_dagster.answers import export as exporting
from personas_dagster.answers import preview as previewing
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

_TELL_FROM = 20.0  # seconds from which on an export's time is told


class Layout(StrEnum):
    """How a CSV is laid out."""

    UNFORMATTED = "unformatted"
    FORMATTED = "formatted"
    SINGLE = "single"


KeyArgument = Annotated[str, typer.Argument(help="Its key.")]
OutOption = Annotated[Path, typer.Option(help="The CSV file to write.")]
LayoutOption = Annotated[Layout, typer.Option("--format", help="The columns.")]
IdTypeOption = Annotated[
    str | None, typer.Option(metavar="T", help="The type of a single column, such as email.")
]
RawOption = Annotated[
    bool, typer.Option("--raw", help="A single column as it is, not as SHA-256; needs `pii`.")
]
RowsOption = Annotated[
    bool, typer.Option("--rows", help="More values of a type in rows of their own.")
]


def add_to(app: typer.Typer) -> None:
    app.command()(preview)
    export = typer.Typer(no_args_is_help=True, help="CSV files.")
    export.command("audience")(export_audience)
    export.command("trait")(export_trait)
    app.add_typer(export, name="export")


def preview(
    what: Annotated[str, typer.Argument(metavar="FILE|KEY", help="A definition file, or a key.")],
    compare_with: Annotated[
        str | None, typer.Option("--with", metavar="KEY", help="The overlap with this audience.")
    ] = None,
    as_of: AsOfOption = None,
    sql: Annotated[bool, typer.Option("--sql", help="Print the compiled SQL only.")] = False,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """What a definition gives on stored data: size, sample, identifiers. Nothing is written.

    Example: personas preview assets/audiences/big_spenders.yaml --with repeat_buyers
    """
    shell = Shell(project, space, quiet, verbose)
    definition = previewing.of_file_or_key(shell.space, what)
    at = instant(as_of) or previewing.last_instant(shell.space)
    if sql:
        typer.echo(previewing.sql(shell.space, definition, as_of=at))
        return
    with shell.working("evaluating"):
        found = previewing.preview(shell.space, definition, as_of=at, compare_with=compare_with)
    for warning in found.warnings:
        shell.say(f"warning: {warning}")
    noun = "members" if found.kind == "audience" else "profiles with a value"
    shell.say(
        f"{found.key}: {found.size:,} {noun} as of {found.as_of:%Y-%m-%d %H:%M} UTC "
        f"({found.seconds:.2f} s)"
    )
    if found.identifiers:
        table = Table("identifier", "share of profiles")
        for kind, share in found.identifiers.items():
            table.add_row(kind, f"{share:.1%}")
        shell.say(table)
    if found.overlap:
        shell.say(
            f"{found.overlap.both:,} of them are among the {found.overlap.size:,} of "
            f"{found.overlap.audience}"
        )
    emit(found.as_json())


def export_audience(
    key: KeyArgument,
    out: OutOption,
    format: LayoutOption = Layout.UNFORMATTED,
    id_type: IdTypeOption = None,
    raw: RawOption = False,
    rows: RowsOption = False,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write an audience's members to a CSV file.

    Example: personas export audience big_spenders --format single --id-type email --out big.csv
    """
    chosen = exporting.Export(key, "audience", format.value, id_type, raw, rows)
    _export(Shell(project, space, quiet, verbose), chosen, out)


def export_trait(
    key: KeyArgument,
    out: OutOption,
    format: LayoutOption = Layout.UNFORMATTED,
    id_type: IdTypeOption = None,
    raw: RawOption = False,
    rows: RowsOption = False,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write everybody's value of a trait to a CSV file.

    Example: personas export trait lifetime_revenue --format formatted --out revenue.csv
    """
    chosen = exporting.Export(key, "trait", format.value, id_type, raw, rows)
    _export(Shell(project, space, quiet, verbose), chosen, out)


def _export(shell: Shell, chosen: exporting.Export, out: Path) -> None:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    shown = shell.console.is_terminal and not shell.quiet
    with Progress(*columns, console=shell.console, transient=True, disable=not shown) as bar:
        task = bar.add_task(f"writing {out}", total=None)

        def expected(profiles: int, seconds: float) -> None:
            bar.update(task, total=profiles)
            if seconds >= _TELL_FROM:
                shell.say(f"{profiles:,} profiles; that takes about {seconds:,.0f} s")

        written = exporting.write(
            shell.space,
            chosen,
            out,
            expected=expected,
            progress=lambda done: bar.update(task, completed=done),
        )
    noun: Literal["members", "profiles"] = "members" if chosen.kind == "audience" else "profiles"
    shell.say(f"{written.profiles} {noun} of {chosen.key} in {out}")
    result: dict[str, Any] = {chosen.kind: chosen.key, "rows": written.rows, "file": str(out)}
    as_of = previewing.last_instant(shell.space)
    emit({**result, "format": chosen.layout, "as_of": as_of})
