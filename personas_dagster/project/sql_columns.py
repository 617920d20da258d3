"""Which traits a SQL trait's query returns, read from its text.

What belongs here: what can be known without running it. What it really returned is known to the
refreshes that ran it.
"""

from __future__ import annotations

import re

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from personas_dagster.traits.sql_rules import IDENTIFIERS

_PLAIN = re.compile(r"[a-z][a-z0-9_]{0,99}")


def trait_columns(query: str, *, dialect: str | None = None) -> tuple[str, ...] | None:
    """The columns that are traits; None where the text does not name all of them (`SELECT *`).

    >>> trait_columns("SELECT user_id, count(*) AS tickets FROM t GROUP BY 1")
    ('tickets',)
    """
    try:
        found = sqlglot.parse_one(query, dialect=dialect)
    except SqlglotError:  # a dialect that is not known here; the warehouse says what is wrong
        return None
    if not isinstance(found, exp.Query) or found.is_star:
        return None
    names = found.named_selects
    if not all(_PLAIN.fullmatch(name) for name in names):
        return None
    return tuple(name for name in names if name not in IDENTIFIERS)
