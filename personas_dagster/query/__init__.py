"""The query language of audiences and computed traits: text to tree to plan to SQL.

What belongs here: grammar, tree, type rules, logical plan, compiler to sqlglot expressions. What
does not: where messages and profiles come from (the caller makes them readable in a session).

    text --parse--> Query --check--> Checked --order, plan--> Plan --evaluate--> results
"""

from personas_dagster.query.checker import Checked, check
from personas_dagster.query.compile_events import Layer
from personas_dagster.query.definition import Definition
from personas_dagster.query.parser import parse
from personas_dagster.query.plan import Plan, evaluate, plan, typed_columns
from personas_dagster.query.printer import unparse
from personas_dagster.query.references import order
from personas_dagster.query.tree import Query
from personas_dagster.query.typed import Typed

__all__ = [
    "Checked",
    "Definition",
    "Layer",
    "Plan",
    "Query",
    "Typed",
    "check",
    "evaluate",
    "order",
    "parse",
    "plan",
    "typed_columns",
    "unparse",
]
