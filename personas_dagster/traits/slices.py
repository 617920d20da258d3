"""Profiles in slices, in order of their ids: for what is too much to be held of all of them.

What belongs here: where the slices begin and end. Ids are hexadecimal digests
(`identity.outcome`), so equal ranges of their first digits hold about as many each; other ids are
in some slice too. A slice of what lies in a log reads the log whole, since rows name those who held
them then: so few and large slices are better.
"""

from __future__ import annotations

from dataclasses import dataclass

_DIGITS = 4


@dataclass(frozen=True)
class Slice:
    """The ids from `low` on, up to but without `high`; None: without end."""

    low: str | None
    high: str | None

    def of(self, column: str) -> str:
        """The SQL condition on a column of ids."""
        low = f"{column} >= '{self.low}'" if self.low else ""
        high = f"{column} < '{self.high}'" if self.high else ""
        return " AND ".join(filter(None, (low, high))) or "true"


def slices(rows: int, *, most: int) -> list[Slice]:
    """In order, together all ids, each for about `most` of the `rows`."""
    count = min(max(1, -(-rows // most)), 16**_DIGITS)
    bounds = [f"{16**_DIGITS * index // count:0{_DIGITS}x}" for index in range(1, count)]
    return [Slice(*ends) for ends in zip([None, *bounds], [*bounds, None], strict=True)]


def conditions(rows: int, *, most: int, column: str = "profile_id") -> list[str]:
    """The same as SQL conditions on an id."""
    return [one.of(column) for one in slices(rows, most=most)]
