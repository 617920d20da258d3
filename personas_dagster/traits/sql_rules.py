"""What a SQL trait's result must hold before anything of it is stored.

What belongs here: the rules on columns (`shape_of`) and on rows that were staged (`check_rows`),
each with an error that says which rule, what was found and what to do. What does not: the name
of the SQL trait, which `sql` puts in front.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from personas_dagster.errors import WarehouseError
from personas_dagster.interfaces import Session

IDENTIFIERS = ("user_id", "anonymous_id", "email", "group_id")
MAX_COLUMNS = 25
MAX_ROWS = 25_000_000
MAX_ROW_BYTES = 16 * 1024
_KEY = re.compile(r"[a-z][a-z0-9_]{0,99}")
_SHOWN = 200
_EXACT = 2**53
# What Python's str.strip removes, as for identifiers of messages.
_SPACE = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f \x85\xa0\u1680" + "".join(
    map(chr, [*range(0x2000, 0x200B), 0x2028, 0x2029, 0x202F, 0x205F, 0x3000])
)


@dataclass(frozen=True)
class Shape:
    """What the columns of a result are: the key, all identifiers, and the traits."""

    key: str
    identifiers: tuple[str, ...]
    traits: tuple[str, ...]

    @property
    def collection(self) -> str:
        return "accounts" if self.key == "group_id" else "users"


_HELD = """
SELECT DISTINCT source_id AS owner, key FROM current_sql_traits
WHERE collection = $1 AND key IN (SELECT unnest($2)) AND source_id <> $3 ORDER BY ALL
"""


@dataclass(frozen=True)
class Owners:
    """Whose columns are whose: the file of each SQL trait that is declared, and the columns of
    those that ran before in this run."""

    files: Mapping[str, str]
    ran: Mapping[str, Sequence[str]]

    def check(self, session: Session, key: str, shape: Shape) -> None:
        """WarehouseError when a column is a trait of another SQL trait.

        The session has what holds now, `current_sql_traits`.
        """
        taken = {name: other for other, columns in self.ran.items() for name in columns}
        held = session.fetch(_HELD, [shape.collection, list(shape.traits), key]).to_pylist()
        for row in held:  # one that ran without it has given it up
            if row["owner"] in self.files and row["owner"] not in self.ran:
                taken.setdefault(row["key"], row["owner"])
        if both := [name for name in shape.traits if name in taken]:
            other = taken[both[0]]
            raise WarehouseError(
                f"column `{both[0]}`{self._in(key)} is a trait of the SQL trait `{other}`"
                f"{self._in(other)} already; rename it with AS"
            )

    def _in(self, key: str) -> str:
        return f" of {self.files[key]}" if key in self.files else ""


def shape_of(schema: pa.Schema, known_types: Collection[str]) -> Shape:
    """Check the columns; no row is read."""
    names: list[str] = schema.names
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise WarehouseError(
            f"columns must have different names: found {_list(twice)} more than once; "
            "rename with AS"
        )
    identifiers = tuple(name for name in IDENTIFIERS if name in names)
    if not identifiers:
        raise WarehouseError(
            f"a key column is needed, one of {_list(IDENTIFIERS)}: found {_list(names)}"
        )
    if {"user_id", "anonymous_id"} <= set(identifiers):
        raise WarehouseError(
            "one key column: found both `user_id` and `anonymous_id`; leave one of them out"
        )
    for name in identifiers:
        if name not in known_types:
            raise WarehouseError(
                f"identifier type `{name}` is not known to the space, which knows "
                f"{_list(sorted(known_types))}"
            )
    if len(names) > MAX_COLUMNS:
        raise WarehouseError(f"at most {MAX_COLUMNS} columns: found {len(names)}")
    traits = tuple(name for name in names if name not in identifiers)
    if not traits:
        raise WarehouseError(
            f"at least one trait column beside the identifiers: found {_list(names)} only"
        )
    for name in traits:
        if not _KEY.fullmatch(name):
            raise WarehouseError(
                f"trait columns are named in snake_case (a small letter, then letters, digits "
                f"and _, at most 100): found `{name}`; rename it with AS"
            )
        if kind_of(schema.field(name).type) is None:
            raise WarehouseError(
                f"only scalar types: column `{name}` is {schema.field(name).type}; cast it to "
                "text or a number in the query, or leave it out"
            )
    return Shape(identifiers[0], identifiers, traits)


def kind_of(found: pa.DataType) -> str | None:
    """How values of a type are written: the name of a kind, None when it is not scalar.

    >>> kind_of(pa.decimal128(10, 2)), kind_of(pa.date32()), kind_of(pa.binary())
    ('number', 'date', None)
    """
    if pa.types.is_dictionary(found):
        return kind_of(found.value_type)
    kinds = {
        "nothing": pa.types.is_null,
        "whole": pa.types.is_integer,
        "boolean": pa.types.is_boolean,
        "date": pa.types.is_date,
        "instant": pa.types.is_timestamp,
    }
    for kind, holds in kinds.items():
        if holds(found):
            return kind
    if pa.types.is_floating(found) or pa.types.is_decimal(found):
        return "number"
    return "text" if _is_text(found) else None


def identifier(name: str, values: pa.Array) -> pa.Array:
    """Identifiers as the graph holds them: text without white space around it, whole numbers
    in decimal, e-mails in small letters; null where nothing is left.
    """
    kind = kind_of(values.type)
    if kind == "number":
        values = _whole(name, values)
    elif kind not in ("text", "whole", "nothing"):
        raise WarehouseError(
            f"identifiers are text or whole numbers: column `{name}` is {values.type}; cast it "
            "to text in the query"
        )
    text = pc.utf8_trim(values.cast(pa.string()), characters=_SPACE)
    text = pc.if_else(pc.equal(text, ""), pa.scalar(None, pa.string()), text)
    return _lower(text) if name == "email" else text


def check_count(rows: int) -> None:
    if rows > MAX_ROWS:
        raise WarehouseError(f"at most {MAX_ROWS:,} rows: found more; narrow it with WHERE")


def check_rows(session: Session, shape: Shape) -> None:
    """Check the staged result, `sql_rows`: no key is null, none is there twice."""
    if nulls := session.fetch(_NULLS).column(0)[0].as_py():
        raise WarehouseError(
            f"no null or empty identifiers: {nulls:,} rows without `{shape.key}`, such as "
            f"{'; '.join(samples(session, shape, _NULL_ROWS))}; leave them out with WHERE "
            f"{shape.key} IS NOT NULL"
        )
    session.run(_TWICE)
    if repeated := session.fetch("SELECT count(*) FROM sql_twice").column(0)[0].as_py():
        paired = shape.key != "group_id" and "group_id" in shape.identifiers
        what = f"pairs of `{shape.key}` and `group_id`" if paired else f"`{shape.key}`"
        raise WarehouseError(
            f"no duplicate identifiers: {repeated:,} values of {what} are there more than once, "
            f"such as {'; '.join(samples(session, shape, _TWICE_ROWS))}; return one row for each"
        )


def too_large(session: Session, shape: Shape) -> tuple[int, tuple[str, ...]]:
    """How many staged rows are over the limit, and some of them."""
    count: int = session.fetch(_LARGE, [MAX_ROW_BYTES]).column(0)[0].as_py()
    return count, samples(session, shape, _LARGE_ROWS, [MAX_ROW_BYTES]) if count else ()


def samples(
    session: Session, shape: Shape, query: str, parameters: Sequence[Any] = ()
) -> tuple[str, ...]:
    """The first rows that a query finds in `sql_rows`, as short JSON text."""
    shown = []
    for row in session.fetch(query, list(parameters)).to_pylist():
        facts = [f'"{n}": {json.dumps(row[n], ensure_ascii=False)}' for n in shape.identifiers]
        facts += [f'"{k}": {v or "null"}' for k, v in zip(shape.traits, row["said"], strict=True)]
        text = ", ".join(facts)
        shown.append(f"{{{text[:_SHOWN]}...}}" if len(text) > _SHOWN else f"{{{text}}}")
    return tuple(shown)


_NULLS = "SELECT count(*) FROM sql_rows WHERE key IS NULL"
_NULL_ROWS = "SELECT * FROM sql_rows WHERE key IS NULL ORDER BY place LIMIT 5"
_LARGE = "SELECT count(*) FROM sql_rows WHERE bytes > $1"
_LARGE_ROWS = "SELECT * FROM sql_rows WHERE bytes > $1 ORDER BY place LIMIT 5"
# Where a user's identifier stands beside `group_id`, the pair must be single.
_TWICE = """
CREATE OR REPLACE TEMP TABLE sql_twice AS
SELECT key, group_id FROM sql_rows GROUP BY key, group_id HAVING count(*) > 1
"""
_TWICE_ROWS = """
SELECT r.* FROM sql_rows r SEMI JOIN sql_twice t
ON t.key = r.key AND t.group_id IS NOT DISTINCT FROM r.group_id
ORDER BY r.key, r.group_id, r.place LIMIT 5
"""


def _whole(name: str, values: pa.Array) -> pa.Array:
    limit = pc.max(pc.abs(values.cast(pa.float64()))).as_py()
    try:
        if limit is not None and not limit < _EXACT:
            raise ValueError(limit)
        return values.cast(pa.int64())
    except ValueError:
        raise WarehouseError(
            f"identifiers are text or whole numbers below 2^53: column `{name}` is "
            f"{values.type} and holds others; cast it to text in the query"
        ) from None


def _lower(text: pa.Array) -> pa.Array:
    """As Python does, where Arrow differs too: beyond ASCII, one by one."""
    beyond = pc.fill_null(pc.invert(pc.string_is_ascii(text)), False)
    lowered = pc.ascii_lower(text)
    if not pc.any(beyond).as_py():
        return lowered
    by_hand = [value.lower() for value in text.filter(beyond).to_pylist()]
    return pc.replace_with_mask(lowered, beyond, pa.array(by_hand, pa.string()))


def _is_text(found: pa.DataType) -> bool:
    return bool(
        pa.types.is_string(found)
        or pa.types.is_large_string(found)
        or pa.types.is_string_view(found)
    )


def _list(names: Sequence[str]) -> str:
    return ", ".join(f"`{name}`" for name in names) or "none"
