r"""Walks into JSON: dotted paths of the language as SQL over JSON text.

What belongs here: how a path finds its value or, with `$`, its list of values. What does not: how
a value is read (`values`).

>>> json_path(("a", "b c"))
'$."a"."b c"'
>>> json_path(("x*", "y/z"))
'/x*/y~1z'
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from sqlglot import exp

from personas_dagster.query import sql

EACH = "$"


def json_path(keys: Sequence[str]) -> str:
    """A JSONPath, or a JSON pointer where JSONPath would read a key as a wildcard."""
    if any("*" in key for key in keys):
        return "".join("/" + key.replace("~", "~0").replace("/", "~1") for key in keys)
    quoted = (key.replace("\\", "\\\\").replace('"', '\\"') for key in keys)
    return "$" + "".join(f'."{key}"' for key in quoted)


def split(keys: Sequence[str]) -> list[tuple[str, ...]]:
    """The keys between the `$`s.

    >>> split(("products", "$", "sku")), split(("a", "b"))
    ([('products',), ('sku',)], [('a', 'b')])
    """
    parts: list[tuple[str, ...]] = [()]
    for key in keys:
        if key == EACH:
            parts.append(())
        else:
            parts[-1] = (*parts[-1], key)
    return parts


def one(document: exp.Expr, keys: Sequence[str]) -> exp.Expr:
    """The JSON value at `keys` (all of the document without any)."""
    if not keys:
        return document
    return sql.call("json_extract", document, sql.text(json_path(keys)))


def as_text(value: exp.Expr) -> exp.Expr:
    """JSON as VARCHAR, with null as absent."""
    return sql.call("nullif", sql.cast(value, "VARCHAR"), sql.text("null"))


def many(array: exp.Expr, parts: Sequence[Sequence[str]]) -> exp.Expr:
    """The values below each element of a JSON array, as a list of VARCHAR (null: absent).

    `parts` are the keys between the `$`s that follow; inner arrays are flattened.
    """
    names = (f"e{index}" for index in count())
    items = sql.call("json_extract", array, sql.text("$[*]"))
    for keys in parts[:-1]:
        name = next(names)
        inner = sql.call("json_extract", one(sql.column(name), keys), sql.text("$[*]"))
        items = sql.call("flatten", sql.each(items, name, inner))
    name = next(names)
    return sql.each(items, name, as_text(one(sql.column(name), parts[-1])))
