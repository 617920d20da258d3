"""The circuit breaker: which changes of an audience a person should look at first."""

from __future__ import annotations

from dataclasses import dataclass

from personas_dagster.activation.connection import Connection

BREAKER_MEMBERS = 100


@dataclass(frozen=True)
class Size:
    """An audience as the destination knew it, as it is, and how many profiles differ."""

    before: int
    now: int
    changed: int


def reason_to_hold(connection: Connection, size: Size, overdue: str | None = None) -> str | None:
    """Why the circuit breaker does not let this change of an audience pass, if so.

    `overdue` says that a source is, where that is known.
    """
    if connection.kind != "audience":
        return None
    if overdue and size.changed:
        return f"has a source that is overdue: {overdue}"
    if not size.before:
        return None
    if not size.now:
        return f"became empty (it had {size.before} members)"
    share = size.changed / size.before
    if share > connection.max_change and size.changed >= BREAKER_MEMBERS:
        return (
            f"{size.changed} of {size.before} members would change ({share:.0%}, "
            f"max_change is {connection.max_change:.0%})"
        )
    return None
