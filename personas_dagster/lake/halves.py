"""A profile's id as two integers: narrow columns (`*_high`, `*_low`) beside the texts of tables.

An id is an MD5 hash in 32 hexadecimal digits. Its halves are read and sought in half the time of
the text. They are signed, in the order of the texts. A scan joins by `*_low` and then compares
`*_high` (`same`), which costs half of a join by both.
"""

from __future__ import annotations

HALF = 1 << 63


def halves_sql(profile_id: str) -> tuple[str, str]:
    """A profile's id as two integers, as SQL; null for what is no id."""
    high, low = (
        f"try_cast('0x' || substr({profile_id}, {start}, 16) AS UBIGINT)" for start in (1, 17)
    )
    return signed(high), signed(low)


def id_sql(high: str, low: str) -> str:
    """The id of which these are the halves, as SQL."""
    parts = (f"lpad(to_hex(({half}::HUGEINT + {HALF})::UBIGINT), 16, '0')" for half in (high, low))
    return f"lower({' || '.join(parts)})"


def same(left: str, right: str) -> str:
    """A join by the narrow columns with these prefixes, as SQL: by one half, then the other."""
    # Equality of both would be a join by two columns, which takes twice as long.
    return f"{left}_low = {right}_low AND xor({left}_high, {right}_high) = 0"


def signed(half: str) -> str:
    """An unsigned half, as SQL, in the range of a signed integer and the same order."""
    return f"({half}::HUGEINT - {HALF})::BIGINT"
