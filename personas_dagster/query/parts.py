"""Which statements of a plan are made within others, and how that is written.

What belongs here: parts of funnels, that only one statement reads, and tables of a WITH.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlglot import exp

from personas_dagster.query.compile_streams import Statement


def wholes(statements: Sequence[Statement]) -> dict[str, str]:
    """The statement that each one is made in: its own, or the one that all readers of a part are
    made in. One statement costs less than many, and keeps all threads busy."""
    readers: dict[str, set[str]] = {one.name: set() for one in statements}
    found: dict[str, str] = {}
    for one in reversed(statements):
        some = {found[name] for name in readers[one.name]}
        found[one.name] = some.pop() if one.part and len(some) == 1 else one.name
        for table in one.query.find_all(exp.Table):
            if table.name in readers:
                readers[table.name].add(one.name)
    return found


def tables_within(inline: Mapping[str, exp.Select], parts: Mapping[str, exp.Select]) -> exp.With:
    """Tables that are made within a statement; `parts`, which may be read twice, once."""

    def made(name: str, query: exp.Select, once: bool | None) -> exp.CTE:
        alias = exp.TableAlias(this=exp.to_identifier(name))
        return exp.CTE(this=query, alias=alias, materialized=once)

    return exp.With(
        expressions=[
            *(made(name, query, None) for name, query in inline.items()),
            *(made(name, query, True) for name, query in parts.items()),
        ]
    )
