"""Trait tables are logs of changes: the last row of a key and profile holds.

A removed value is the JSON text `null`. Rows keep the profile they were written for; readers go
through the graph's parents, and of merged profiles the newest row holds.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlglot import exp

from personas_dagster.interfaces import Lake, Session

# What a child's row says yields to its parent's of the same refresh.
_CURRENT = """
SELECT collection, root_id AS profile_id, key,
       arg_max(value, (refresh_id, own)) AS value,
       arg_max(updated_at, (refresh_id, own)) AS updated_at,
       arg_max(source_id, (refresh_id, own)) AS source_id
FROM (
    SELECT t.*, coalesce(m.parent_id, t.profile_id) AS root_id, m.parent_id IS NULL AS own
    FROM {log} t LEFT JOIN graph_parents m ON m.child_id = t.profile_id
    {only}
)
GROUP BY ALL HAVING arg_max(value, (refresh_id, own)) <> 'null'
"""
_CHANGED = """
CREATE OR REPLACE TEMP TABLE trait_changes AS
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


def current(
    session: Session,
    table: str,
    *,
    name: str | None = None,
    of: str | None = None,
    keys: Sequence[str] | None = None,
) -> None:
    """Create `current_<table>(collection, profile_id, key, value, updated_at, source_id)`.

    Of all profiles, or of those in the relation `of(profile_id)`, which holds every child too;
    of all `keys`, or of these. The session must have the graph's relations.
    """
    session.view(table)
    log = exp.to_identifier(table, quoted=True).sql(dialect="duckdb")
    if of is not None:
        some = exp.to_identifier(of, quoted=True).sql(dialect="duckdb")
        log = f"(SELECT * FROM {log} SEMI JOIN {some} USING (profile_id))"
    only = "" if keys is None else "WHERE list_contains($1, t.key)"
    query = _CURRENT.format(log=log, only=only)
    target = exp.to_identifier(name or f"current_{table}", quoted=True).sql(dialect="duckdb")
    session.run(
        f"CREATE OR REPLACE TEMP TABLE {target} AS {query}", None if keys is None else [list(keys)]
    )


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
    for name, relation in (("now_values", now_values), ("before_values", before)):
        quoted = exp.to_identifier(relation, quoted=True).sql(dialect="duckdb")
        session.run(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM {quoted}")
    session.run(_CHANGED, [at, refresh_id])
    counts = session.fetch("SELECT key, count(*) AS n FROM trait_changes GROUP BY key ORDER BY key")
    if counts.num_rows:
        lake.append(
            table,
            session.stream("SELECT * FROM trait_changes ORDER BY key, profile_id"),
            once=("refresh", refresh_id),
        )
    return {row["key"]: row["n"] for row in counts.to_pylist()}
