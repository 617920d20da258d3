"""Trait tables are logs of changes: the last row of a key and profile holds.

A removed value is the JSON text `null`. Rows keep the profile they were written for; readers go
through the graph's parents, and of merged profiles the newest row holds.

What a refresh appends lies in order of profiles: a profile's id is there once for all of its
values then, which makes the log a fraction as large and as dear to read as in order of keys.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import pyarrow as pa
from sqlglot import exp

from personas_dagster.interfaces import Lake, Session
from personas_dagster.query import sql

# What a child's row says yields to its parent's of the same refresh.
_CURRENT = """
SELECT collection, root_id AS profile_id, key, arg_max(value, place) AS value,
       arg_max(updated_at, place) AS updated_at, arg_max(source_id, place) AS source_id
FROM (
    SELECT t.*, {root} AS root_id, 2 * refresh_id + {own}::BIGINT AS place
    FROM {log} t {joined} {only}
)
GROUP BY ALL HAVING arg_max(value, place) <> 'null'
"""
_CHANGED = """
INSERT INTO trait_changes
SELECT coalesce(n.collection, c.collection) AS collection,
       coalesce(n.profile_id, c.profile_id) AS profile_id,
       coalesce(n.key, c.key) AS key,
       coalesce(n.value, 'null') AS value,
       coalesce(n.updated_at, $1::TIMESTAMPTZ) AS updated_at,
       coalesce(n.source_id, c.source_id) AS source_id,
       $2::BIGINT AS refresh_id
FROM now_values n FULL JOIN before_values c USING (collection, profile_id, key)
WHERE n.value IS DISTINCT FROM c.value
"""


_NO_CHANGES = """
CREATE OR REPLACE TEMP TABLE trait_changes (
    collection VARCHAR, profile_id VARCHAR, key VARCHAR, value VARCHAR, updated_at TIMESTAMPTZ,
    source_id VARCHAR, refresh_id BIGINT)
"""


def current(
    session: Session,
    table: str,
    *,
    name: str | None = None,
    of: str | None = None,
    keys: Sequence[str] | None = None,
    log: str | None = None,
    roots: str | None = None,
) -> None:
    """Create `current_<table>(collection, profile_id, key, value, updated_at, source_id)`.

    A view: what is asked of it decides how much is read. Of all profiles, or of those in the
    relation `of(profile_id)`, which holds every child too; of all `keys`, or of these. `log` is a
    relation that stands in for the table, `roots(profile_id, root_id, is_root)` for the graph's
    parents; without it the session must have the graph's relations.
    """
    if log is None:
        session.view(table)
    rows = _quoted(log or table)
    if of is not None:
        rows = f"(SELECT * FROM {rows} SEMI JOIN {_quoted(of)} USING (profile_id))"
    among = sql.one_of("key", keys or (), "t")
    query = _CURRENT.format(
        log=rows,
        root="m.root_id" if roots else "coalesce(m.parent_id, t.profile_id)",
        own="m.is_root" if roots else "(m.parent_id IS NULL)",
        joined=f"JOIN {_quoted(roots)} m USING (profile_id)"
        if roots
        else "LEFT JOIN graph_parents m ON m.child_id = t.profile_id",
        only="" if keys is None else f"WHERE {among.sql(dialect='duckdb')}",
    )
    session.run(f"CREATE OR REPLACE TEMP VIEW {_quoted(name or f'current_{table}')} AS {query}")


def record(
    session: Session,
    lake: Lake,
    table: str,
    *,
    now_values: str,
    before: str,
    at: object,
    refresh_id: int,
) -> dict[str, int]:
    """Append to `table` where the relation `now_values` differs from `before`.

    Both have (collection, profile_id, key, value, updated_at, source_id). Returns how many
    profiles changed per key.
    """
    no_changes(session)
    compare(session, now_values=now_values, before=before, at=at, refresh_id=refresh_id)
    return append(session, lake, table, refresh_id=refresh_id)


def no_changes(session: Session) -> None:
    """Leave an empty `trait_changes`."""
    session.run(_NO_CHANGES)


def compare(session: Session, *, now_values: str, before: str, at: object, refresh_id: int) -> None:
    """Add to `trait_changes` where two relations differ."""
    for name, relation in (("now_values", now_values), ("before_values", before)):
        session.run(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM {_quoted(relation)}")
    session.run(_CHANGED, [at, refresh_id])


def append(
    session: Session, lake: Lake, table: str, *, refresh_id: int, slices: Iterable[object] = ()
) -> dict[str, int]:
    """Append `trait_changes`, once per refresh; returns how many profiles changed per key.

    `slices` are for changes that are too many to be held at once: each step leaves those of
    further profiles in `trait_changes`, which are appended after the ones before.
    """
    counted: Counter[str] = Counter()
    batches = _batches(session, slices, counted)
    first = next(batches, None)
    if first is not None:
        rows = pa.RecordBatchReader.from_batches(first.schema, chain([first], batches))
        lake.append(table, rows, once=("refresh", refresh_id))
        for _ in batches:  # counted, where they had been appended before
            pass
    return dict(sorted(counted.items()))


def _batches(
    session: Session, slices: Iterable[object], counted: Counter[str]
) -> Iterator[pa.RecordBatch]:
    for _ in chain([None], slices):
        counts = session.fetch("SELECT key, count(*) AS n FROM trait_changes GROUP BY key")
        counted.update({row["key"]: row["n"] for row in counts.to_pylist()})
        if counts.num_rows:
            yield from session.stream("SELECT * FROM trait_changes ORDER BY profile_id, key")


def _quoted(name: str) -> str:
    return exp.to_identifier(name, quoted=True).sql(dialect="duckdb")
