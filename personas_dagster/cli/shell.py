"""What every command shares: its options, where it prints, how it shows progress."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from personas_dagster.project.loader import Project, load_project
from personas_dagster.spaces import Space, open_space

ProjectOption = Annotated[
    Path, typer.Option("--project", help="The project's folder.", show_default="this folder")
]
SpaceOption = Annotated[
    str | None, typer.Option("--space", help="The space; default: the project's default space.")
]
QuietOption = Annotated[bool, typer.Option("-q", "--quiet", help="Print results only.")]
VerboseOption = Annotated[bool, typer.Option("-v", "--verbose", help="Show details and traces.")]
AsOfOption = Annotated[
    str | None,
    typer.Option("--as-of", metavar="T", help="An instant, ISO 8601; UTC where no zone is given."),
]


@dataclass
class Shell:
    """One invocation. Data goes to standard output, everything else to standard error."""

    root: Path
    space_name: str | None = None
    quiet: bool = False
    verbose: bool = False
    console: Console = field(default_factory=lambda: Console(stderr=True, soft_wrap=True))

    @cached_property
    def project(self) -> Project:
        return load_project(self.root)

    @cached_property
    def space(self) -> Space:
        return open_space(self.project, self.space_name)

    def say(self, *what: Any) -> None:
        """Something for a person, unless they asked for quiet."""
        if not self.quiet:
            self.console.print(*what, highlight=False)

    @contextmanager
    def working(self, what: str) -> Iterator[Progress]:
        """A progress display on a terminal, gone when the work is done."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        with Progress(
            *columns,
            console=self.console,
            transient=True,
            disable=self.quiet or not self.console.is_terminal,
        ) as progress:
            progress.add_task(what, total=None)
            yield progress


def emit(row: Mapping[str, Any]) -> None:
    """One JSON line on standard output."""
    sys.stdout.write(json.dumps(row, ensure_ascii=False, default=_plain) + "\n")


def _plain(value: object) -> str:
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    if isinstance(value, date | Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


def instant(text: str | None) -> datetime | None:
    """An instant that a person typed; UTC where they gave no zone."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"found `{text}`, expected ISO 8601 such as 2026-03-01T00:00Z"
        ) from error
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
