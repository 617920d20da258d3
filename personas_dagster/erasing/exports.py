"""CSV files that were exported and are still where they were written: without the person's rows."""

from __future__ import annotations

import csv
import hashlib
import os
import re
from pathlib import Path

import sqlalchemy as sa

from personas_dagster.erasing.person import Person
from personas_dagster.state import State
from personas_dagster.state.schema import audit

EXPORT = "export"


def written(state: State) -> list[Path]:
    """The files that the audit trail names and that are still there."""
    query = sa.select(audit.c.subject).where(audit.c.what == EXPORT).distinct()
    paths = (Path(row["subject"]) for row in state.rows(query))
    return sorted(path for path in paths if path.is_file())


def remove(state: State, person: Person) -> int:
    """Take the person's rows out of these files; how many."""
    return sum(_without(path, person) for path in written(state))


def _without(path: Path, person: Person) -> int:
    values = {value for _, value in person.identifiers}
    hashed = {hashlib.sha256(value.encode()).hexdigest() for value in values}
    theirs, pattern = {*person.profile_ids, *values, *hashed}, re.compile(person.pattern)
    temporary = path.with_name(f".{os.getpid()}-{path.name}.tmp")
    taken = 0
    try:
        with (
            path.open(encoding="utf-8", newline="") as old,
            temporary.open("w", encoding="utf-8", newline="") as new,
        ):
            writer = csv.writer(new, lineterminator="\n")
            for number, cells in enumerate(csv.reader(old)):
                if number and any(cell in theirs or pattern.search(cell) for cell in cells):
                    taken += 1
                else:
                    writer.writerow(cells)
        if taken:
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return taken
