"""Two graphs of the same messages side by side: who is joined in one and apart in the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from personas_dagster.identity.views import prepare
from personas_dagster.interfaces import Engine, Lake

_IDS = "SELECT collection, type, value, profile_id FROM graph_identifiers"
_COUNT = "SELECT count(*) AS n FROM graph_profiles"
_BOTH = """
CREATE OR REPLACE TEMP TABLE both_ids AS
SELECT coalesce(a.collection, b.collection) AS collection, coalesce(a.type, b.type) AS type,
       coalesce(a.value, b.value) AS value, b.profile_id AS before, a.profile_id AS after
FROM after_ids a FULL JOIN before_ids b USING (collection, type, value)
"""
# Profiles of one graph whose identifiers are spread over several profiles of the other.
_SPREAD = """
CREATE OR REPLACE TEMP TABLE spread AS
SELECT {whole} AS profile_id, count(DISTINCT {parts}) - 1 AS n
FROM both_ids WHERE before IS NOT NULL AND after IS NOT NULL
GROUP BY ALL HAVING n > 0
"""
_TOTAL = "SELECT count(*) AS profiles, coalesce(sum(n), 0)::BIGINT AS n FROM spread"
_EXAMPLES = """
WITH chosen AS (SELECT * FROM spread ORDER BY n DESC, profile_id LIMIT $1)
SELECT profile_id, list(ids ORDER BY ids) AS parts FROM (
    SELECT c.profile_id, coalesce({parts}, '') AS part,
           list([type, value] ORDER BY type, value)[:{most:d}] AS ids
    FROM chosen c JOIN both_ids b ON b.{whole} = c.profile_id GROUP BY ALL)
GROUP BY profile_id ORDER BY len(parts) DESC, profile_id
"""
_LOST = """
SELECT type, value FROM both_ids WHERE {here} IS NULL ORDER BY type, value LIMIT $1
"""
_LOST_COUNT = "SELECT count(*) AS n FROM both_ids WHERE {here} IS NULL"
_MOST_IDS = 10


@dataclass(frozen=True)
class Example:
    """A profile of one graph as the profiles that it is in the other: parts of identifiers."""

    change: str  # merged, split
    parts: tuple[tuple[tuple[str, str], ...], ...]


@dataclass(frozen=True)
class Comparison:
    """`merges_made`: pairs of profiles that become one; `merges_avoided`: that become two."""

    profiles_before: int
    profiles_after: int
    merges_made: int
    merges_avoided: int
    identifiers_gained: int
    identifiers_lost: int
    examples: tuple[Example, ...]
    lost: tuple[tuple[str, str], ...]

    @property
    def counts(self) -> dict[str, int]:
        """The figures, without examples."""
        return {name: n for name, n in vars(self).items() if isinstance(n, int)}


def compare(engine: Engine, before: Lake, after: Lake, *, examples: int = 10) -> Comparison:
    """How the graph that `after` holds differs from that of `before`."""
    with engine.session(before) as session:
        prepare(session)
        ids = session.fetch(_IDS)
        profiles_before = _number(session, _COUNT)
    with engine.session(after) as session:
        prepare(session)
        session.register("before_ids", ids)
        session.run(f"CREATE OR REPLACE TEMP VIEW after_ids AS {_IDS}")
        session.run(_BOTH)
        found: list[Example] = []
        totals = []
        for change, whole, parts in (("merged", "after", "before"), ("split", "before", "after")):
            session.run(_SPREAD.format(whole=whole, parts=parts))
            totals.append(int(session.fetch(_TOTAL).column("n")[0].as_py()))
            query = _EXAMPLES.format(whole=whole, parts=parts, most=_MOST_IDS)
            for row in session.fetch(query, [examples]).to_pylist():
                found.append(Example(change, _parts(row["parts"])))
        lost = session.fetch(_LOST.format(here="after"), [examples]).to_pylist()
        return Comparison(
            profiles_before=profiles_before,
            profiles_after=_number(session, _COUNT),
            merges_made=totals[0],
            merges_avoided=totals[1],
            identifiers_gained=_number(session, _LOST_COUNT.format(here="before")),
            identifiers_lost=_number(session, _LOST_COUNT.format(here="after")),
            examples=tuple(found),
            lost=tuple((row["type"], row["value"]) for row in lost),
        )


def _parts(parts: Sequence[Sequence[Sequence[str]]]) -> tuple[tuple[tuple[str, str], ...], ...]:
    return tuple(tuple((kind, value) for kind, value in ids) for ids in parts)


def _number(session: Any, query: str) -> int:
    return int(session.fetch(query).column("n")[0].as_py())
