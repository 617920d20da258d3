"""What a profile store can do: be read, be filled anew, be changed. Which database it is in.

What belongs here: the shape that `sqlite` and `postgres` fulfil.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
import pyarrow as pa
import sqlalchemy as sa


@dataclass(frozen=True)
class Published:
    """A finished refresh, and the keys that were defined at its time."""

    refresh_id: int
    as_of: dt.datetime
    versions: Mapping[str, int]
    computed: tuple[str, ...]
    audiences: tuple[str, ...]


@dataclass(frozen=True)
class Held:
    """What a store was made of. Kept inside it, written with the rows it tells about."""

    format: int
    refresh_id: int
    as_of: dt.datetime
    versions: Mapping[str, int]
    graph_load: int  # the last load whose graph rows it has
    event_load: int  # the last load whose events it has
    computed: tuple[str, ...]  # keys that were defined
    audiences: tuple[str, ...]
    events_since: int = 0  # the first instant whose events it shows, in microseconds since 1970

    def text(self) -> str:
        return msgspec.json.encode(self).decode()

    @staticmethod
    def read(text: str) -> Held | None:
        """None where another format wrote it."""
        try:
            return msgspec.json.decode(text, type=Held)
        except msgspec.DecodeError:
            return None


class Writer(Protocol):
    """A change under way: all of it is seen at once, or nothing."""

    def expect(self, table: str, rows: pa.RecordBatch) -> None:
        """Told of rows that `copy` is going to put in, while others are: not of all of them."""

    def copy(self, table: str, rows: pa.RecordBatchReader) -> int:
        """Add rows to a table of `tables.TABLES` or `tables.STAGED`; returns how many."""

    def run(self, statement: str, parameters: Mapping[str, Any] | None = None) -> None:
        """One statement of `tables`."""

    def counts(self) -> Mapping[str, int]:
        """How many rows the tables `tables.COUNTED` have."""

    def held(self) -> Held | None:
        """What the store holds, as this change sees it."""

    def hold(self, held: Held) -> None:
        """Say what the store holds when this change is done."""


class ProfileStore(Protocol):
    """The profile store of one space. Readers in other processes see whole changes only."""

    def held(self) -> Held | None:
        """What the store holds; None before it was first filled."""

    def get_ready(self) -> None:
        """Start what a change would wait for, beside what is done before it; returns at once."""

    def expect(self, table: str, rows: pa.RecordBatch) -> None:
        """Told of rows that this process's next change puts in: not of all of them. Returns at
        once."""

    def fill(self) -> AbstractContextManager[Writer]:
        """Make all tables anew: readers see the old ones until the context ends without error."""

    def change(self) -> AbstractContextManager[Writer]:
        """Change the tables in one transaction, with `tables.STAGED` at hand, empty."""

    def rows(self, query: str, parameters: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
        """Rows of one query of `reading`; StateUnavailable when the database does not answer."""

    def close(self) -> None:
        """Close this process's connections."""


def open_store(url: sa.URL) -> ProfileStore:
    """The store that belongs to a state database: files beside SQLite's, or a schema there."""
    if url.get_backend_name() == "postgresql":
        from personas_dagster.profiles.postgres import PostgresStore

        return PostgresStore(url)
    from personas_dagster.profiles.sqlite import SqliteStore

    return SqliteStore(Path(url.database or "").parent / "profiles")
