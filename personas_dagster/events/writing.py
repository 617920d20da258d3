"""From staged rows to the rows of `raw_events` and `rejected_events`, and their counts."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

import pyarrow as pa

from personas_dagster.events import duplicates
from personas_dagster.events.landing import LandedFile
from personas_dagster.interfaces import Session

_ROW_GROUP = 122_880
_HELD_ROWS = 1_500_000

_RAW = """
SELECT message_id, type, event, user_id, anonymous_id, group_id, previous_id, timestamp,
    received_at, sent_at, original_timestamp, properties, traits, context, integrations,
    source_id, load_id, file_id, line, received_date
FROM staged ANTI JOIN dropped USING (file_id, line) ANTI JOIN suppressed USING (file_id, line)
WHERE NOT is_rejected AND received_date BETWEEN $1 AND $2
"""

_REJECTED = """
SELECT reason, detail, raw, names.file AS file, source_id, load_id, file_id, line, received_date
FROM staged JOIN names USING (file_id)
WHERE is_rejected AND received_date BETWEEN $1 AND $2
"""

_COUNTS = """
SELECT staged.file_id, received_date, reason, dropped.line IS NOT NULL AS is_duplicate,
    suppressed.line IS NOT NULL AS is_suppressed,
    count(*) AS messages,
    count(*) FILTER (clock_skew) AS clock_skew,
    count(*) FILTER (oversize) AS oversize,
    count(*) FILTER (empty_group_id) AS empty_group_ids
FROM staged
LEFT JOIN dropped ON dropped.file_id = staged.file_id AND dropped.line = staged.line
LEFT JOIN suppressed
    ON suppressed.file_id = staged.file_id AND suppressed.line = staged.line
GROUP BY ALL
"""


@dataclass
class Counts:
    """What became of the messages of a file or a load."""

    accepted: int = 0
    rejected: int = 0
    duplicates: int = 0
    suppressed: int = 0  # they name an identifier of a person who was deleted
    clock_skew: int = 0
    oversize: int = 0
    empty_group_ids: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    received_dates: Counter[str] = field(default_factory=Counter)  # accepted messages, by date
    rejected_dates: Counter[str] = field(default_factory=Counter)
    read_dates: Counter[str] = field(default_factory=Counter)  # all messages, by date

    def add(self, row: Mapping[str, object]) -> None:
        messages, date = _count(row["messages"]), str(row["received_date"])
        self.read_dates[date] += messages
        if row["reason"] is not None:
            self.rejected += messages
            self.reasons[str(row["reason"])] += messages
            self.rejected_dates[date] += messages
            self.received_dates[date] += 0
        elif row["is_suppressed"]:
            self.suppressed += messages
        elif row["is_duplicate"]:
            self.duplicates += messages
        else:
            self.accepted += messages
            self.received_dates[date] += messages
            self.clock_skew += _count(row["clock_skew"])
            self.oversize += _count(row["oversize"])
            self.empty_group_ids += _count(row["empty_group_ids"])

    def include(self, other: Counts) -> None:
        self.accepted += other.accepted
        self.rejected += other.rejected
        self.duplicates += other.duplicates
        self.suppressed += other.suppressed
        self.clock_skew += other.clock_skew
        self.oversize += other.oversize
        self.empty_group_ids += other.empty_group_ids
        for mine, theirs in (
            (self.reasons, other.reasons),
            (self.received_dates, other.received_dates),
            (self.rejected_dates, other.rejected_dates),
            (self.read_dates, other.read_dates),
        ):
            mine.update(theirs)

    def as_json(self) -> dict[str, object]:
        """For the state database; dates have a column of their own."""
        return {
            "accepted": self.accepted,
            "rejected": self.rejected,
            "duplicates": self.duplicates,
            "suppressed": self.suppressed,
            "clock_skew": self.clock_skew,
            "oversize": self.oversize,
            "empty_group_ids": self.empty_group_ids,
            "reasons": dict(sorted(self.reasons.items())),
        }


def _count(value: object) -> int:
    assert isinstance(value, int)
    return value


def together(parts: Iterable[Counts]) -> Counts:
    total = Counts()
    for part in parts:
        total.include(part)
    return total


@dataclass(frozen=True)
class Span:
    """Partitions that are written in one commit, with what they get."""

    first: dt.date
    last: dt.date
    accepted: int
    rejected: int


def spans(counts: Counts) -> list[Span]:
    """The partitions of a load in spans that a writer can hold at once.

    A writer holds the row group under way of every partition that it has met. The borders
    follow from what the files hold alone, so that a resumed load has the same.
    """
    groups: list[list[str]] = []
    held = 0
    for date, messages in sorted(counts.read_dates.items()):
        share = min(messages, _ROW_GROUP)
        if not groups or held + share > _HELD_ROWS:
            groups.append([])
            held = 0
        groups[-1].append(date)
        held += share
    return [
        Span(
            dt.date.fromisoformat(dates[0]),
            dt.date.fromisoformat(dates[-1]),
            sum(counts.received_dates[date] for date in dates),
            sum(counts.rejected_dates[date] for date in dates),
        )
        for dates in groups
    ]


Suppress: TypeAlias = Callable[[Session, str], pa.Table]
"""Which messages of a relation of staged rows must not be stored: rows of (file_id, line)."""


class StagedRows:
    """The staged rows of a session, with their duplicates told apart."""

    def __init__(
        self,
        session: Session,
        path: Path,
        files: Sequence[LandedFile],
        *,
        windows: Mapping[int, int],
        made_again: Sequence[dt.date] = (),
        suppress: Suppress | None = None,
    ) -> None:
        self._session = session
        session.run("SET VARIABLE staged_file = $1", [str(path)])
        session.run(
            "CREATE OR REPLACE TEMP VIEW staged AS "
            "SELECT * FROM read_parquet(getvariable('staged_file'))"
        )
        names = {"file_id": pa.int64(), "file": pa.string()}
        rows = [{"file_id": file.file_id, "file": file.name} for file in files]
        session.register("names", pa.Table.from_pylist(rows, schema=pa.schema(names)))
        dropped = duplicates.find(session, windows=windows, made_again=made_again)
        session.register("dropped", dropped)
        self.suppressed = dropped.slice(0, 0)
        if suppress is not None:
            session.run(
                "CREATE OR REPLACE TEMP VIEW staged_messages AS "
                "SELECT * FROM staged WHERE NOT is_rejected"
            )
            self.suppressed = suppress(session, "staged_messages")
        session.register("suppressed", self.suppressed)

    def accepted(self, span: Span) -> pa.RecordBatchReader:
        return self._session.stream(_RAW, [span.first, span.last])

    def rejected(self, span: Span) -> pa.RecordBatchReader:
        return self._session.stream(_REJECTED, [span.first, span.last])

    def counts(self) -> dict[int, Counts]:
        """Counts by file."""
        found: dict[int, Counts] = {}
        for row in self._session.fetch(_COUNTS).to_pylist():
            found.setdefault(row["file_id"], Counts()).add(row)
        return found
