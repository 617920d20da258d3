"""Computed traits and audiences of a refresh: one plan, one snapshot, one `as_of`.

Evaluates all definitions together, appends what changed to `computed_traits` and
`audience_changes`, and brings `audience_memberships` in step.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from personas_dagster.audiences.membership import Movement, record_members
from personas_dagster.interfaces import Lake, Session
from personas_dagster.query import Definition, evaluate, plan, typed_columns
from personas_dagster.traits.changes import record
from personas_dagster.traits.world import prepare_world

_NOW = """
CREATE OR REPLACE TEMP TABLE trait_now AS
SELECT collection, profile_id, key, value, $1::TIMESTAMPTZ AS updated_at,
       NULL::VARCHAR AS source_id
FROM results WHERE kind = 'trait'
"""
_BEFORE = """
CREATE OR REPLACE TEMP VIEW trait_before AS
SELECT c.* FROM current_computed_traits c SEMI JOIN evaluated_keys USING (key)
"""
# Numbers in ten steps between the 5th and the 95th percentile, other values by frequency.
_DISTRIBUTION = """
WITH valued AS (
    SELECT key, value, TRY_CAST(value AS DOUBLE) AS number FROM trait_now
),
spans AS (
    SELECT key, quantile_cont(number, 0.05) AS low, quantile_cont(number, 0.95) AS high,
           count(DISTINCT number) AS distinct_numbers
    FROM valued WHERE number IS NOT NULL GROUP BY key
),
steps AS (
    SELECT v.key,
           CASE WHEN v.number IS NULL THEN left(v.value, 40)
                WHEN s.distinct_numbers <= 12 OR s.high <= s.low THEN v.number::VARCHAR
                ELSE printf('%.2f and more', s.low + (s.high - s.low) / 10
                     * greatest(0, least(9, floor(10 * (v.number - s.low) / (s.high - s.low)))))
           END AS step, v.number
    FROM valued v LEFT JOIN spans s USING (key)
)
SELECT key, step, count(*) AS profiles FROM steps
GROUP BY key, step
QUALIFY row_number() OVER (PARTITION BY key ORDER BY count(*) DESC, step) <= 12
ORDER BY key, min(number) NULLS LAST, profiles DESC, step
"""


@dataclass(frozen=True)
class Computed:
    """What one evaluation changed, in profiles, per trait and per audience."""

    traits_changed: Mapping[str, int]
    traits_held: Mapping[str, int]
    distributions: Mapping[str, Sequence[Mapping[str, Any]]]
    movements: Mapping[str, Movement]


def compute(
    session: Session,
    lake: Lake,
    definitions: Sequence[Definition],
    *,
    as_of: dt.datetime,
    refresh_id: int,
    run_id: str,
    audiences: Collection[str] = (),
) -> Computed:
    """Evaluate `definitions` and record what changed.

    `audiences` are all audiences of the space, also those that are not evaluated now.

    The session must have the graph's relations and those of `prepare_values`.
    """
    layers = prepare_world(session, typed=typed_columns(tuple(definitions)))
    evaluate(session, plan(definitions, as_of=as_of, audiences=audiences, layers=layers))
    keys = [definition.key for definition in definitions if definition.kind == "trait"]
    session.register("evaluated_keys", pa.table({"key": pa.array(keys, pa.string())}))
    session.run(_NOW, [as_of])
    session.run(_BEFORE)
    changed = record(
        session,
        lake,
        "computed_traits",
        now_values="trait_now",
        before="trait_before",
        at=as_of,
        refresh_id=refresh_id,
    )
    held = session.fetch("SELECT key, count(*) AS n FROM trait_now GROUP BY key ORDER BY key")
    return Computed(
        traits_changed={key: changed.get(key, 0) for key in keys},
        traits_held={row["key"]: row["n"] for row in held.to_pylist()},
        distributions=_distributions(session),
        movements=record_members(
            session,
            lake,
            {d.key: d.collection for d in definitions if d.kind == "audience"},
            as_of=as_of,
            refresh_id=refresh_id,
            run_id=run_id,
        ),
    )


def _distributions(session: Session) -> dict[str, list[dict[str, Any]]]:
    """How the values of each trait spread: steps of numbers, or the most frequent values."""
    found: dict[str, list[dict[str, Any]]] = {}
    for row in session.fetch(_DISTRIBUTION).to_pylist():
        found.setdefault(row.pop("key"), []).append(row)
    return found
