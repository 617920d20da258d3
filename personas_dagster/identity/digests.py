"""A digest of each table: the sum modulo 2^128 of its rows' MD5 hashes.

A sum does not depend on the order of rows, and a load can carry it forward. What a digest
leaves out (run ids, load numbers, files and lines) is each table's `bookkeeping`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlglot import exp

from personas_dagster.interfaces import Session

_MODULUS = 1 << 128


def digest(session: Session, relation: str, columns: Sequence[str]) -> str:
    """The digest of a relation's columns, as 32 hexadecimal digits."""
    cells = [
        exp.func("coalesce", exp.cast(exp.column(name), "varchar"), exp.Literal.string("\x00"))
        for name in columns
    ]
    row = exp.func("concat_ws", exp.Literal.string("\x1f"), *cells)
    hashed = exp.select(exp.func("md5", row).as_("h")).from_(exp.to_table(relation))
    halves = [
        exp.func(
            "sum",
            exp.cast(
                exp.cast(
                    exp.func(
                        "concat",
                        exp.Literal.string("0x"),
                        exp.func(
                            "substr",
                            exp.column("h"),
                            exp.Literal.number(start),
                            exp.Literal.number(16),
                        ),
                    ),
                    exp.DataType.Type.UBIGINT,
                ),
                exp.DataType.Type.INT128,
            ),
        )
        for start in (1, 17)
    ]
    table = session.fetch(exp.select(*halves).from_(hashed.subquery("hashed")))
    high, low = (int(table.column(i)[0].as_py() or 0) for i in (0, 1))
    return f"{((high << 64) + low) % _MODULUS:032x}"


def difference(whole: str, part: str) -> str:
    """The digest of what is left of a whole without one of its parts."""
    return f"{(int(whole, 16) - int(part, 16)) % _MODULUS:032x}"


def combine(digests: Iterable[str]) -> str:
    """The digest of the union of disjoint parts."""
    return f"{sum(int(part, 16) for part in digests) % _MODULUS:032x}"
