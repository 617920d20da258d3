"""The compiler's table of contents: definitions to one plan, and a plan to results.

What belongs here: the order of the passes and the shape of the result. What does not: how any
part is written in SQL (`compile_*`), what values mean (`values`).

>>> from datetime import datetime, timezone
>>> one = Definition("orders", "trait", "users", "event('Order').count()")
>>> made = plan([one], as_of=datetime(2024, 1, 1, tzinfo=timezone.utc))
>>> [name for name, _ in made.statements]
['query_users_1', 'query_level_0_users', 'results']
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlglot import exp

from personas_dagster.interfaces import Session
from personas_dagster.query import sql
from personas_dagster.query.definition import Definition
from personas_dagster.query.planner import RESULTS, Planner


@dataclass(frozen=True)
class Plan:
    """SELECTs in order, each to be made a temporary table of its name; the last is `results`."""

    statements: tuple[tuple[str, exp.Select], ...]

    def sql(self, dialect: str = "duckdb") -> str:
        """The whole plan as text."""
        return "\n\n".join(
            f"{_create(name, query).sql(dialect=dialect, pretty=True)};"
            for name, query in self.statements
        )


def plan(
    definitions: Sequence[Definition], *, as_of: datetime, audiences: Collection[str] = ()
) -> Plan:
    """One plan for all definitions: equal parts once, one scan per event name.

    `audiences` are the keys that are audiences without being among `definitions`: their state is
    read from the stored traits.
    """
    return Plan(tuple(Planner(definitions, as_of, audiences).statements()))


def evaluate(session: Session, plan: Plan) -> None:
    """Run a plan; leaves the table `results(key, kind, collection, profile_id, value)`."""
    for name, query in plan.statements:
        session.run(_create(name, query))
    for name, _ in plan.statements:
        if name != RESULTS:
            session.run(exp.Drop(tables=[sql.table(name)], kind="TABLE"))


def _create(name: str, query: exp.Select) -> exp.Create:
    temporary = exp.Properties(expressions=[exp.TemporaryProperty()])
    return exp.Create(
        this=sql.table(name), kind="TABLE", replace=True, properties=temporary, expression=query
    )
