"""A space's landing, lake and state in a temporary folder, and short ways to use them."""

from __future__ import annotations

import datetime as dt
import gzip
import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from personas_dagster.engines.duckdb import DuckDBEngine
from personas_dagster.events import EventSettings, Landing, LoadReport, RebuildReport, load, rebuild
from personas_dagster.lake import TABLES, DeltaLake
from personas_dagster.state import State

NOW = dt.datetime(2024, 6, 1, 12, tzinfo=dt.UTC)
Row = dict[str, Any]


class Intake:
    """What the tests drive."""

    def __init__(self, root: Path, state: Path) -> None:
        self.root = root
        shutil.copy(state, root / "state.db")
        self.state = State(f"sqlite:///{root}/state.db")
        self.landing = Landing(root / "landing", self.state)
        self.lake = DeltaLake(root / "lake")
        self.engine = DuckDBEngine(threads=2)
        self.settings = EventSettings()
        self._names = itertools.count()

    def write(self, *messages: Row | str | bytes, name: str | None = None) -> Path:
        """A file of these lines; `.gz` at the end of its name compresses it."""
        path = self.root / (name or f"messages-{next(self._names)}.jsonl")
        lines = [
            line if isinstance(line, bytes) else line.encode()
            for line in (json.dumps(m) if isinstance(m, dict) else m for m in messages)
        ]
        text = b"".join(line + b"\n" for line in lines)
        path.write_bytes(gzip.compress(text) if path.name.endswith(".gz") else text)
        return path

    def take(self, *messages: Row | str | bytes) -> LoadReport:
        """One file with these messages, loaded."""
        return self.take_files(self.write(*messages))

    def take_files(self, *paths: Path) -> LoadReport:
        self.landing.land(paths, now=NOW)
        return self.load()

    def load(self, now: dt.datetime = NOW) -> LoadReport:
        return load(
            self.landing, self.lake, self.engine, self.state, settings=self.settings, now=now
        )

    def rebuild(self, *dates: dt.date) -> RebuildReport:
        return rebuild(
            self.landing, self.lake, self.engine, self.state, settings=self.settings, dates=dates
        )

    def rows(self, table: str = "raw_events") -> list[Row]:
        """The rows of a table in the order they came."""
        with self.engine.session(self.lake) as session:
            session.view(table)
            found = session.fetch(f"SELECT * FROM {table} ORDER BY load_id, file_id, line")
        assert found.schema.names == TABLES[table].schema.names
        return found.to_pylist()

    def row(self, message: Row) -> Row:
        """What one accepted message is stored as."""
        report = self.take(message)
        assert (report.accepted, report.rejected) == (1, 0), self.rows("rejected_events")
        return self.rows()[-1]


@pytest.fixture(scope="session")
def make_intake(
    tmp_path_factory: pytest.TempPathFactory, empty_state: Path
) -> Callable[[], Intake]:
    """A new space, in a folder of its own."""
    return lambda: Intake(tmp_path_factory.mktemp("space"), empty_state)


@pytest.fixture
def intake(make_intake: Callable[[], Intake]) -> Intake:
    return make_intake()


def message(number: int = 0, **fields: Any) -> Row:
    """A message that breaks no rule."""
    at = NOW - dt.timedelta(days=20) + dt.timedelta(minutes=number)
    base = {
        "messageId": f"m{number}",
        "type": "track",
        "event": "Order Completed",
        "userId": "u1",
        "receivedAt": at.isoformat(),
    }
    return {key: value for key, value in {**base, **fields}.items() if value is not ...}


@pytest.fixture(name="message", scope="session")
def _message() -> Callable[..., Row]:
    return message
