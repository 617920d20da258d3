"""Commands about one definition: preview, explain, history, export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from personas_dagster import unset, warehousing
from personas_dagster.answers import explain as explaining
from personas_dagster.answers import export as exporting
from personas_dagster.answers import history as historic
from personas_dagster.answers import planning
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
from personas_dagster.erasing.exports import EXPORT
from personas_dagster.errors import PersonasError
from personas_dagster.freshness import Freshness, freshness, of_draft
from personas_dagster.project.loader import load_project, read_sql_trait

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
    app.command()(plan)
    app.command()(history)
    explain = typer.Typer(no_args_is_help=True, help="Why something is as it is.")
    explain.command("audience")(explain_audience)
    app.add_typer(explain, name="explain")
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
    if what in shell.space.sql_traits or what.endswith(".sql"):
        _preview_sql_trait(shell, what)
        return
    definition = previewing.of_file_or_key(shell.space, what)
    at = instant(as_of) or previewing.last_instant(shell.space)
    if sql:
        typer.echo(previewing.sql(shell.space, definition, as_of=at))
        return
    with shell.working("evaluating"):
        found = previewing.preview(shell.space, definition, as_of=at, compare_with=compare_with)
    unread = unset.warnings(shell.space, [definition]).get(definition.key, [])
    found = replace(found, warnings=(*found.warnings, *unread))
    for warning in found.warnings:
        shell.say(f"warning: {warning}")
    fresh = of_draft(shell.space, definition, as_of=at, now=datetime.now(UTC))
    _warn(shell, found.key, fresh)
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
    emit({**found.as_json(), **fresh.as_json()})


def _preview_sql_trait(shell: Shell, what: str) -> None:
    """The first rows of its query, checked by its rules, and which ids the graph knows."""
    path = Path(what)
    if what not in shell.space.sql_traits and not path.is_file():
        raise PersonasError(f"{what} is not a file; give a SQL trait's file or its key")
    trait = shell.space.sql_traits.get(what) or read_sql_trait(path)
    with shell.working("asking the warehouse"):
        rows = warehousing.preview(shell.space, trait)
    known = sum(row.profile_id is not None for row in rows)
    shell.say(f"{trait.key}: of the first {len(rows)} rows, the graph knows {known}")
    for row in rows:
        values = {key: value and json.loads(value) for key, value in row.values.items()}
        emit({**asdict(row), "values": values})


def _warn(shell: Shell, key: str, fresh: Freshness) -> None:
    """An answer that is not to be taken as current says so before it is shown."""
    for why in fresh.stale:
        shell.say(f"warning: {key} is stale: {why}")


def plan(
    against: Annotated[
        Path | None,
        typer.Option(help="Another folder of the project; default: what was stored last."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="JSON Lines, not Markdown.")] = False,
    as_of: AsOfOption = None,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """What the definitions, as they are now, would change: who enters and leaves, who is told.

    Writes nothing; Markdown for a pull request. Example: personas plan --against ../main > plan.md
    """
    shell = Shell(project, space, quiet, verbose)
    at = instant(as_of) or previewing.last_instant(shell.space)
    other = None
    if against is not None:
        other = planning.on_data_of(shell.space, load_project(against))
    with shell.working("evaluating"):
        found = planning.plan(shell.space, against=other, as_of=at)
    if as_json:
        for one in found:
            emit(planning.as_json(one, at))
    else:
        typer.echo(planning.as_markdown(found, at), nl=False)


def history(
    key: KeyArgument,
    first: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="The first day.")
    ] = None,
    last: Annotated[
        datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="The last day.")
    ] = None,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """How large an audience (or how common a trait) was on each day that was backfilled.

    Example: personas history big_spenders --from 2026-01-01
    """
    shell = Shell(project, space, quiet, verbose)
    found = historic.sizes(
        shell.space, key, first=first.date() if first else None, last=last.date() if last else None
    )
    largest = max(*found.values(), 1)
    for day, number in found.items():
        shell.say(f"{day} {'█' * round(40 * number / largest):<40} {number:,}")
        emit({"key": key, "day": day, "profiles": number})


def explain_audience(
    key: KeyArgument,
    identifier: Annotated[str, typer.Argument(metavar="TYPE:VALUE", help="user_id:42, or an id")],
    at: Annotated[
        str | None, typer.Option("--at", metavar="T", help="An instant; default: the last refresh.")
    ] = None,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Why somebody is in an audience, or not: its conditions, and the messages that decided.

    Example: personas explain audience big_spenders user_id:42 --at 2026-03-01
    """
    shell = Shell(project, space, quiet, verbose)
    with shell.working("explaining"):
        found = explaining.explain(shell.space, key, identifier, as_of=instant(at))
    definition = next(one for one in shell.space.definitions if one.key == key)
    fresh = of_draft(shell.space, definition, as_of=found.as_of, now=datetime.now(UTC))
    _warn(shell, key, fresh)
    is_in = "is in" if found.outcome else "is not in"
    tree = Tree(f"{identifier} {is_in} {key} as of {found.as_of:%Y-%m-%d %H:%M} UTC")
    _grow(tree, found.tree)
    shell.say(tree)
    emit({**found.as_json(), **fresh.as_json()})


def _grow(tree: Tree, node: Mapping[str, Any]) -> None:
    """A condition and what stands below it."""
    mark = "yes" if node["outcome"] else "no "
    who = f"{node['user']}: " if "user" in node else ""
    value = (
        f"   (value: {json.dumps(node['value'], ensure_ascii=False)})" if "value" in node else ""
    )
    branch = tree.add(Text(f"{mark} {who}{node['text']}{value}"))
    for part in node.get("of", ()):
        _grow(branch, part)
    for part in (node, *node.get("values", ())):
        for message in part.get("messages", ()):
            branch.add(Text(_message(message)))
        for message in part.get("left_out", ()):
            by = ", ".join(message["left_out_by"]) or "its filters together"
            branch.add(Text(f"{_message(message)}   left out by {by}"))
        because = part.get("because")
        if because and "outcome" in because:
            _grow(branch.add(Text(f"{because['definition']}:")), because)
        for message in (because or {}).get("messages", ()):
            branch.add(Text(_message(message)))


def _message(message: Mapping[str, Any]) -> str:
    facts = json.dumps(message["properties"], ensure_ascii=False)
    return f"{message['timestamp']:%Y-%m-%d %H:%M:%S} {message['event']} {facts}"


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
    shell.space.state.audit(
        EXPORT,
        str(out.resolve()),
        at=datetime.now(UTC),
        outcome="finished",
        counts={chosen.kind: chosen.key, "rows": written.rows},
    )
    noun: Literal["members", "profiles"] = "members" if chosen.kind == "audience" else "profiles"
    shell.say(f"{written.profiles} {noun} of {chosen.key} in {out}")
    result: dict[str, Any] = {chosen.kind: chosen.key, "rows": written.rows, "file": str(out)}
    fresh = freshness(shell.space, now=datetime.now(UTC)).get(
        chosen.key, Freshness(previewing.last_instant(shell.space))
    )
    _warn(shell, chosen.key, fresh)
    emit({**result, "format": chosen.layout, "as_of": fresh.as_of, **fresh.as_json()})
