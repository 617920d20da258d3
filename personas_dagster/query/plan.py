"""The compiler's table of contents: definitions to one plan, and a plan to results.

What belongs here: the order of the passes and the shape of the result. What does not: how any
part is written in SQL (`compile_*`), what values mean (`values`).

>>> from datetime import datetime, timezone
>>> one = Definition("orders", "trait", "users", "event('Order').count()")
>>> made = plan([one], as_of=datetime(2024, 1, 1, tzinfo=timezone.utc))
>>> [name for name, _ in made.statements]
['query_users_1', 'results']
"""

from __future__ import annotations

import gc
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from sqlglot import exp

from personas_dagster.interfaces import Session
from personas_dagster.query import sql
from personas_dagster.query.compile_events import MESSAGES, Layer
from personas_dagster.query.definition import Definition
from personas_dagster.query.planner import RESULTS, Planner
from personas_dagster.query.typed import KEPT, Typed


@dataclass(frozen=True)
class Plan:
    """SELECTs in order, each to be made a temporary table of its name; the last, `results`, is
    a view. `events` are the names of the events that they read."""

    statements: tuple[tuple[str, exp.Select], ...]
    events: frozenset[str]

    def sql(self, dialect: str = "duckdb") -> str:
        """The whole plan as text."""
        return "\n\n".join(
            f"{_create(name, query).sql(dialect=dialect, pretty=True)};"
            for name, query in self.statements
        )


def plan(
    definitions: Sequence[Definition],
    *,
    as_of: datetime,
    audiences: Collection[str] = (),
    layers: Sequence[Layer] = MESSAGES,
) -> Plan:
    """One plan for all definitions: equal parts once, one scan per event name.

    `audiences` are the keys that are audiences without being among `definitions`: their state is
    read from the stored traits. `layers` are the relations that hold the messages.
    """
    with _uncollected():
        planner = Planner(definitions, as_of, audiences, layers)
        return Plan(tuple(planner.statements()), frozenset(planner.rows.events))


@lru_cache(maxsize=8)
def typed_columns(definitions: tuple[Definition, ...]) -> tuple[Typed, ...]:
    """The properties that definitions read, as columns that `events` can keep."""
    with _uncollected():
        planner = Planner(definitions, datetime(2000, 1, 1, tzinfo=UTC), ())
        for _ in planner.statements():
            pass
    found = {one for event in planner.rows.events.values() for one in event.views}
    return tuple(sorted(one for one in found if one.view in KEPT))


def evaluate(session: Session, plan: Plan, *, kept: Collection[str] = ()) -> None:
    """Run a plan; leaves the view `results(key, kind, collection, profile_id, value)`.

    The view reads the tables of values; each other table is dropped once nothing reads it,
    but for those named `kept`.
    """
    made = {name for name, _ in plan.statements}
    last: dict[str, str] = {}
    for name, query in plan.statements:
        last |= {one.name: name for one in query.find_all(exp.Table) if one.name in made}
    with ThreadPoolExecutor(1) as pool:  # writes the next statement's text while one is run
        texts = pool.map(_text, plan.statements)
        for (name, _), text in zip(plan.statements, texts, strict=True):
            session.run(text)
            for table in [table for table, at in last.items() if at == name != RESULTS]:
                if table not in kept:
                    session.run(exp.Drop(tables=[sql.table(table)], kind="TABLE"))


def _text(statement: tuple[str, exp.Select]) -> str:
    return _create(*statement).sql(dialect="duckdb", copy=False)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without Python's garbage collector: a plan is many small objects, and none is garbage."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _create(name: str, query: exp.Select) -> exp.Create:
    temporary = exp.Properties(expressions=[exp.TemporaryProperty()])
    kind = "VIEW" if name == RESULTS else "TABLE"
    return exp.Create(
        this=sql.table(name), kind=kind, replace=True, properties=temporary, expression=query
    )
