"""Rows of the identity tables by key, from the indexes and, where there are none, by a scan.

A key is a pair of narrow columns (`keys.py`). What an index covers costs by what is found
(`lake/indexes.py`); of the rest, the narrow columns are read from end to end.
"""

from __future__ import annotations

from collections.abc import Sequence

from personas_dagster.interfaces import Session
from personas_dagster.lake.halves import same


def look_up(
    session: Session,
    name: str,
    table: str,
    key: str,
    wanted: str,
    *,
    of: str | None = None,
    more: Sequence[str] = (),
) -> None:
    """Make `name` of the rows of `table` with a `key` that the relation `wanted` has.

    There the key is called `of` (default: the same). Shape: the key's columns, and those of
    `lake.indexes.columns` that are asked for.
    """
    of, columns = of or key, [f"{key}_high", f"{key}_low", *more]
    session.run(
        f"CREATE OR REPLACE TEMP TABLE wanted_keys AS "
        f"SELECT DISTINCT {of}_high AS {key}_high, {of}_low AS {key}_low FROM {wanted} "
        f"WHERE {of}_high IS NOT NULL AND {of}_low IS NOT NULL"
    )
    keys = session.fetch(f"SELECT {key}_high AS high, {key}_low AS low FROM wanted_keys")
    session.indexed("indexed_rows", table, key, keys, columns)
    session.unindexed("unindexed_rows", table)
    names = ", ".join(columns)
    scanned = ", ".join(f"r.{column}" for column in columns)
    session.run(
        f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT {names} FROM indexed_rows UNION ALL "
        f"SELECT {scanned} FROM unindexed_rows r JOIN wanted_keys w "
        f"ON {same(f'w.{key}', f'r.{key}')}"
    )
