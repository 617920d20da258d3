"""The command line in this process: what it printed, and how it ended."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from personas_dagster.cli.main import command


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[Any]:
        """Standard output as JSON Lines; nothing else may stand there."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def lines(self) -> Sequence[str]:
        """Standard error."""
        return self.err.strip().splitlines()


class Personas:
    """Calls `personas` as a person would, in a folder."""

    def __init__(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        self.folder, self._monkeypatch, self._capfd = folder, monkeypatch, capfd

    def __call__(self, *arguments: str | Path) -> Ended:
        self._capfd.readouterr()
        if module := sys.modules.get("personas_dagster.resources.space"):
            for kept in vars(module).values():  # a process reads the declarations once
                if hasattr(kept, "cache_clear"):
                    kept.cache_clear()
        with self._monkeypatch.context() as patch:
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", ["personas", *map(str, arguments)])
            try:
                command()
                code = 0
            except SystemExit as ended:
                code = int(ended.code or 0)
        sys.stdout.flush()
        return Ended(code, *self._capfd.readouterr())
