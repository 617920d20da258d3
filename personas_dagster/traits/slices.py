"""Profiles in slices, in order of their ids: for what is too much to be held of all of them.

What belongs here: where the slices begin and end. Ids are hexadecimal digests
(`identity.outcome`), so equal ranges of their first digits hold about as many each; other ids are
in some slice too. A slice of what lies in a log reads the log whole, since rows name those who held
them then: so few and large slices are better.
"""

from __future__ import annotations

_DIGITS = 4


def conditions(rows: int, *, most: int, column: str = "profile_id") -> list[str]:
    """SQL conditions on an id, in order: together all ids, each for about `most` of the `rows`."""
    count = min(max(1, -(-rows // most)), 16**_DIGITS)
    bounds = [f"'{16**_DIGITS * index // count:0{_DIGITS}x}'" for index in range(1, count)]
    return [
        " AND ".join(filter(None, (low and f"{column} >= {low}", high and f"{column} < {high}")))
        or "true"
        for low, high in zip(["", *bounds], [*bounds, ""], strict=True)
    ]
