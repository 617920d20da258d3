"""What the core asks of its stores: small protocols that the adapters fulfil.

What belongs here: the shape of the lake, the engine and the state, as far as the core uses
them. What does not: how any of them works (`lake/`, `engines/`, `state/`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol, TypeAlias

import pyarrow as pa
from sqlglot import exp

Data: TypeAlias = pa.Table | pa.RecordBatchReader
Days: TypeAlias = tuple[dt.date, dt.date]
"""The first and the last one."""


class Part(NamedTuple):
    """A data file: how many rows it has, and of which loads; None where its writer did not say."""

    file: str
    rows: int | None
    first_load: int | None
    last_load: int | None


class Indexed(Protocol):
    """A table's indexes, and what they do not cover."""

    @property
    def rows(self) -> int:
        """How many rows the indexes cover."""

    @property
    def rest(self) -> Sequence[str]:
        """The data files that no index covers."""

    def find(self, key: str, wanted: pa.Table, names: Sequence[str] = ()) -> pa.Table:
        """These columns (default: all of `lake.indexes.columns`) of the others' rows with one of
        the `wanted` keys.

        `key` begins the names of two columns (`*_high`, `*_low`); `wanted` has `high` and `low`,
        without nulls, each pair once.
        """


class Lake(Protocol):
    """Named tables (`lake.tables.TABLES`) with snapshots. Writers hold the space's lease."""

    def append(self, name: str, data: Data, *, once: tuple[str, int] | None = None) -> int:
        """Add rows in one commit; returns how many.

        `once=(writer, number)` makes it idempotent: a second append by the same writer with the
        same or a smaller number does nothing and returns 0.
        """

    def replace(
        self,
        name: str,
        data: Data,
        *,
        where: str | None = None,
        once: tuple[str, int] | None = None,
    ) -> int:
        """Put `data` in place of the rows that match the Delta predicate `where` (all, if None)."""

    def adopt(self, name: str, source: str, *, once: tuple[str, int] | None = None) -> int:
        """Append all rows of the table `source`, which has the same columns, in one commit.

        Its files are taken as they are, so nothing is read or written anew. Returns how many rows.
        """

    def forget(self, name: str) -> None:
        """Remove what earlier versions of a table left: data files, and the log that names them.

        Snapshots of earlier versions cannot be read any more.
        """

    def files(
        self, name: str, *, after_load: int | None = None, days: Days | None = None
    ) -> list[str]:
        """The data files of the table as it stands (empty when it was never written).

        With `after_load`, those that may hold rows of later loads, without opening any; with
        `days`, those that may hold messages received then.
        """

    def parts(self, name: str) -> list[Part]:
        """The data files of a table with loads, without opening any."""

    def compact(self, name: str, *, above: int) -> int:
        """Join small files where there are more than this; returns how many files went.

        Rows and their order of writing stay, and readers see one commit. What went stays on disk
        for readers of earlier snapshots, until `sweep`.
        """

    def sweep(self, *, hours: int) -> int:
        """Delete data files of all tables that went so many hours ago, and at least a week; and
        those that old that a writer left behind when it died. Returns how many.
        """

    def index(self, name: str) -> None:
        """Index the rows that were added, where that is worth it; remove indexes of rows that went.

        Indexes follow from the data files: without them the same is found, by scanning.
        """

    def indexed(self, name: str) -> Indexed:
        """The table's indexes as it stands."""

    def derived(self, name: str) -> list[str]:
        """The names of the columns that writers added to those of the table."""

    def versions(self) -> dict[str, int]:
        """Each written table's version: together, a snapshot."""

    def at(self, versions: Mapping[str, int], *, live: Collection[str] = ()) -> Lake:
        """The same lake as it was: only the tables named, at these versions. For readers.

        The tables in `live` are as they are now, and can be written.
        """


class Session(Protocol):
    """A connection of an engine: SQL over views, nothing kept when it closes."""

    def view(
        self,
        name: str,
        table: str | None = None,
        *,
        after_load: int | None = None,
        days: Days | None = None,
    ) -> None:
        """Make the lake's `table` (default: the same name) readable as `name`.

        With `after_load`, rows of that load and of earlier ones may be missing; with `days`, those
        of messages received on others. A view opens all its files.
        """

    def indexed(
        self, name: str, table: str, key: str, wanted: pa.Table, names: Sequence[str] = ()
    ) -> None:
        """Make readable as `name` what the indexes of the lake's `table` find (`Indexed.find`)."""

    def newest(self, table: str, column: str) -> int:
        """The largest number in a column of the lake's `table`, 0 where there is none: what files
        tell of themselves, without their rows."""

    def keep(self, name: str, table: str) -> None:
        """Keep the relation `name`, which follows from a view of the lake's `table`, in memory for
        later sessions of this engine."""

    def recall(self, name: str, table: str) -> bool:
        """Make `name` again what a session kept of the same rows of `table`, of which this session
        has a view. False where none did.
        """

    def unindexed(self, name: str, table: str) -> None:
        """Make readable as `name` the rows of the lake's `table` that no index covers."""

    def is_empty(self, table: str) -> bool:
        """Whether the lake's `table` has no row; costs nothing where it is indexed."""

    def layers(self, table: str, columns: Collection[str]) -> list[tuple[str, frozenset[str]]]:
        """Make the lake's `table` readable as views that together hold its rows: each with the
        table's columns and those derived `columns` that are filled in its files.
        """

    def register(self, name: str, data: Data) -> None:
        """Make Arrow data readable as `name`."""

    def run(self, query: exp.Expr | str, parameters: Sequence[Any] | None = None) -> None:
        """Execute one statement: an expression tree, or fixed text with bound parameters."""

    def fetch(self, query: exp.Expr | str, parameters: Sequence[Any] | None = None) -> pa.Table:
        """The whole result as one Arrow table."""

    def stream(
        self, query: exp.Expr | str, parameters: Sequence[Any] | None = None
    ) -> pa.RecordBatchReader:
        """The result in batches, for results larger than memory."""


class Engine(Protocol):
    """Runs SQL over a lake's files and keeps no state."""

    dialect: str

    def session(self, lake: Lake, *, memory: str | None = None) -> AbstractContextManager[Session]:
        """A session on the lake as it stands.

        Beyond `memory`, a size ("1GB") or a share of what there is ("25%"; by default, half),
        work goes to disk, unless the engine's own settings say another.
        """
