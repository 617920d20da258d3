"""A plan run for some profiles at a time: what it holds of all would not fit memory.

What belongs here: which statements of a plan are run once and which for each slice, and how the
slices' values become one `results`. What does not: what a slice is (`limit` says so).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from typing import TypeVar

from sqlglot import exp

from personas_dagster.interfaces import Session
from personas_dagster.query import sql
from personas_dagster.query.plan import Plan, evaluate
from personas_dagster.query.planner import RESULTS

_LINKS = "account_links"  # values of accounts hang on many users'
Statement = tuple[str, exp.Select]
_Slice = TypeVar("_Slice")


def can_be_sliced(plan: Plan) -> bool:
    """Whether a profile's values hang on nobody else's."""
    return all(_LINKS not in _read(query) for _, query in plan.statements)


def evaluate_sliced(
    session: Session,
    plan: Plan,
    slices: Sequence[_Slice],
    *,
    limited: Collection[str],
    limit: Callable[[_Slice], None],
) -> None:
    """Run a plan slice by slice; leaves the view `results` as `evaluate` does.

    The profiles of `slices` are together all. `limit(slice)` makes the relations named `limited`
    (messages, profiles) hold the rows of a slice.
    """
    results = dict(plan.statements)[RESULTS].copy()
    once, sliced = _divided(plan, limited)
    read = set[str]().union(_read(results), *(_read(query) for _, query in sliced))
    evaluate(session, replace(plan, statements=tuple(once)), kept=read)
    placed = sorted(_read(results) & {name for name, _ in sliced})
    for number, some in enumerate(slices):
        limit(some)
        copies = tuple((name, query.copy()) for name, query in sliced)
        evaluate(session, replace(plan, statements=copies), kept=placed)
        for name in placed:  # the next slice makes its own of that name
            session.run(
                exp.Drop(tables=[sql.table(_part(name, number))], kind="TABLE", exists=True)
            )
            session.run(f"ALTER TABLE {name} RENAME TO {_part(name, number)}")
    for name in placed:
        parts = [sql.table(_part(name, number)) for number in range(len(slices))]
        session.run(_view(_all(name), sql.union([_everything(part) for part in parts])))
    for table in results.find_all(exp.Table):
        if table.name in placed:
            table.replace(sql.table(_all(table.name), alias=table.name))
    evaluate(session, replace(plan, statements=((RESULTS, results),)))


def _part(name: str, number: int) -> str:
    return f"{name}_slice_{number}"


def _all(name: str) -> str:
    return f"{name}_slices"


def _everything(part: exp.Expr) -> exp.Expr:
    return sql.select([sql.everything()], part)


def _view(name: str, query: exp.Expr) -> exp.Expr:
    temporary = exp.Properties(expressions=[exp.TemporaryProperty()])
    return exp.Create(
        this=sql.table(name), kind="VIEW", replace=True, properties=temporary, expression=query
    )


def _divided(plan: Plan, limited: Collection[str]) -> tuple[list[Statement], list[Statement]]:
    """Statements that are run once, and those that read what is limited, themselves or through
    others."""
    of_slices = set(limited)
    once: list[Statement] = []
    sliced: list[Statement] = []
    for name, query in plan.statements:
        if name == RESULTS:
            continue
        if of_slices.isdisjoint(_read(query)):
            once.append((name, query))
        else:
            of_slices.add(name)
            sliced.append((name, query))
    return once, sliced


def _read(query: exp.Expr) -> set[str]:
    """The relations that a statement reads."""
    own = {one.alias for one in query.find_all(exp.CTE)}
    return {table.name for table in query.find_all(exp.Table)} - own
