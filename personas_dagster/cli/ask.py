"""Commands that read what the last refresh published: query, profile."""

from __future__ import annotations

import datetime as dt
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from personas_dagster import asking, unset
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
from personas_dagster.freshness import freshness
from personas_dagster.query import check
from personas_dagster.refresh import floor_hour


class Format(StrEnum):
    """How `query` answers."""

    JSONL = "jsonl"
    COUNT = "count"
    SQL = "sql"
    EXPLAIN = "explain"


class Collection(StrEnum):
    """What profiles are of."""

    USERS = "users"
    ACCOUNTS = "accounts"


def add_to(app: typer.Typer) -> None:
    app.command()(query)
    app.command()(profile)


def query(
    text: Annotated[
        str | None, typer.Argument(metavar="QUERY", help="A query of the query language.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="A file of queries, one a line, answered in one plan.")
    ] = None,
    as_of: AsOfOption = None,
    collection: Annotated[Collection, typer.Option(help="Of users or accounts.")] = (
        Collection.USERS
    ),
    format: Annotated[Format, typer.Option(help="How to answer.")] = Format.JSONL,
    include_anonymous: Annotated[
        bool, typer.Option(help="Also profiles that hold an anonymous id only.")
    ] = True,
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Evaluate a query on what is stored, writing nothing.

    Example: personas query "event('Order Completed').count() >= 2" --format count
    """
    if (text is None) == (file is None):
        raise typer.BadParameter("expected either QUERY or --file FILE")
    shell = Shell(project, space, quiet, verbose)
    texts = [text] if text is not None else _lines(file)
    at = instant(as_of) or floor_hour(dt.datetime.now(dt.UTC))
    asked = asking.ask(texts, collection=collection.value, include_anonymous=include_anonymous)
    if format is Format.SQL:
        sys.stdout.write(asking.sql(shell.space, asked, as_of=at) + "\n")
        return
    if format is Format.EXPLAIN:
        for row in asking.explain(shell.space, asked, as_of=at):
            emit(row)
        return
    definitions = [one.definition for one in asked]
    unread = unset.warnings(shell.space, definitions)
    for one in definitions:
        for text in (*check(one).warnings, *unread.get(one.key, ())):
            shell.say(f"warning: {text}")
    with shell.working("evaluating"), asking.answers(shell.space, asked, as_of=at) as session:
        if format is Format.COUNT:
            for row in asking.counts(session, asked):
                emit(row if file else {"count": row["count"]})
            return
        for row in asking.rows(session, asked):
            if not file:
                row.pop("query")
            emit(row)


def _lines(file: Path | None) -> list[str]:
    if file is None or not file.is_file():
        raise PersonasError(f"{file} is not a file; write one query a line into it")
    return file.read_text(encoding="utf-8").splitlines()


def profile(
    identifier: Annotated[str, typer.Argument(metavar="TYPE:VALUE", help="user_id:42, or an id")],
    project: ProjectOption = Path(),
    space: SpaceOption = None,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """One profile as JSON: identifiers, traits, audiences, accounts, last events.

    Example: personas profile email:ann@example.com
    """
    shell = Shell(project, space, quiet, verbose)
    with shell.space.session() as session:
        found = asking.profile(session, identifier)
    last = shell.space.last_refresh()
    kinds = {one.key: one.collection for one in shell.space.definitions}
    stale = {
        key: list(fresh.stale)
        for key, fresh in freshness(shell.space, now=dt.datetime.now(dt.UTC)).items()
        if fresh.is_stale and kinds[key] == found["collection"]
    }
    alike: dict[str, list[str]] = {}  # most are due at the same times
    for key, reasons in stale.items():
        alike.setdefault("; ".join(reasons), []).append(key)
    for why, keys in alike.items():
        verb = "is" if len(keys) == 1 else "are"
        shell.say(f"warning: {', '.join(sorted(keys))} {verb} stale: {why}")
    emit({**found, "as_of": last and last["as_of"], "stale": stale})
