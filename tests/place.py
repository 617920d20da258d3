"""A project in a temporary folder, driven without Dagster: what tests of several folders use."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from personas_dagster import intake, refresh
from personas_dagster.events import LoadReport
from personas_dagster.project.loader import load_project
from personas_dagster.spaces import Space, open_space

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
COMMAND = Path(sys.executable).parent / "personas"
SPACE = """\
default: true
lake: {location: .personas/lake}
engine: {threads: 2}
state: {url: "sqlite:///.personas/state.db"}
landing: .personas/landing
operator: [pii]
"""


class Place:
    """A project in a folder, with one space `main`, driven without Dagster."""

    def __init__(self, root: Path, state: Path) -> None:
        self.root, self.runs = root, 0
        self.write("resources/spaces/main.yaml", SPACE)
        self.write("assets/sources/files.yaml", "name: Files\nkind: file\n")
        (root / ".personas").mkdir()
        shutil.copy(state, root / ".personas" / "state.db")

    def write(self, path: str, text: str) -> Path:
        """A declaration, or any other file."""
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
        return target

    def define(self, queries: Mapping[str, str]) -> None:
        """`audiences/key` or `computed_traits/key` to a query, or to a whole file."""
        for name, text in queries.items():
            whole = text if text.startswith(("query:", "collection:")) else f"query: |\n  {text}\n"
            self.write(f"assets/{name}.yaml", whole)

    @property
    def space(self) -> Space:
        """The space, with the definitions as they are now."""
        return open_space(load_project(self.root), "main")

    def messages(self, *rows: Mapping[str, Any], name: str | None = None) -> Path:
        """A file of messages."""
        name = name or f"{uuid.uuid4().hex}.jsonl"
        return self.write(name, "".join(json.dumps(row) + "\n" for row in rows))

    def take(self, *paths: Path, space: Space | None = None) -> LoadReport:
        """Load files, and resolve them into the graph."""
        space = space or self.space
        if paths:
            space.landing.land(paths, now=NOW)
        report = intake.take_in(space, now=NOW)
        refresh.propose(space, now=NOW)
        refresh.check(space)
        refresh.apply(space, now=NOW)
        refresh.settle(space)
        return report

    def refresh(
        self, *rows: Mapping[str, Any], as_of: dt.datetime = NOW, space: Space | None = None
    ) -> Space:
        """One whole refresh, after taking in these messages; returns the space to read from."""
        space = space or self.space
        self.runs += 1
        this = refresh.begin(space, run_id=f"run-{self.runs}", now=NOW, as_of=as_of)
        self.take(*([self.messages(*rows)] if rows else []), space=space)
        refresh.custom_traits(space, this)
        refresh.compute_definitions(space, this)
        refresh.finish(space, this, now=NOW)
        return space

    def personas(
        self, *arguments: str, env: Mapping[str, str] | None = None, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """The command line, in a process of its own, in the project's folder."""
        return subprocess.run(
            [str(COMMAND), *arguments],
            cwd=self.root,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
