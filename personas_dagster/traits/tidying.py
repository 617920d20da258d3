"""Logs of traits without the rows that later ones replaced, so that they grow with what they say.

What belongs here: which rows nobody reads any more. Readers take the last row of a key and
profile, and look for rows since a refresh; so the last rows stay as they are, removals too.
Earlier snapshots keep the files that they were made of.
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from sqlglot import exp

from personas_dagster.interfaces import Lake, Session
from personas_dagster.lake.tables import TABLES
from personas_dagster.traits import slices
from personas_dagster.traits.standing import scalar

FEW = 1_000_000  # rows that are not worth writing a log anew
MANY_FILES = 100
_HELD = 20_000_000  # rows that are held at once
_SIZE = "SELECT count(*) FROM {log}"
_LAST = """
SELECT collection, profile_id, key, last.*, refresh_id FROM (
    SELECT collection, profile_id, key, max(refresh_id) AS refresh_id,
           arg_max(struct_pack(value := value, updated_at := updated_at, source_id := source_id),
                   refresh_id) AS last
    FROM {log} WHERE {some} GROUP BY collection, profile_id, key
) ORDER BY profile_id, key
"""


def tidy(session: Session, lake: Lake, log: str, *, held: int | None, finished: int) -> int:
    """Write a log anew without replaced rows when it has twice as many as it had after the last
    time, `held` (None or 0: there was nothing to tidy); returns what to give the next time.

    Where that is not due yet, many small files become few. `finished` is the last refresh that
    did; rows of a later one may be taken back yet, so while there are some, nothing is dropped.
    """
    session.view(log)
    named = exp.to_identifier(log, quoted=True).sql(dialect="duckdb")
    rows = scalar(session, _SIZE.format(log=named))
    if not held:
        return rows
    if rows <= 2 * held + FEW or session.newest(log, "refresh_id") > finished:
        lake.compact(log, above=MANY_FILES)
        return held
    schema = TABLES[log].schema

    def batches() -> Iterator[pa.RecordBatch]:
        for some in slices.conditions(rows, most=_HELD):
            found = session.fetch(_LAST.format(log=named, some=some)).select(schema.names)
            yield from found.cast(schema).to_batches()

    left = lake.replace(log, pa.RecordBatchReader.from_batches(schema, batches()))
    lake.compact(log, above=0)  # what went earlier is deleted with it
    return left
