"""Memberships: who is in, since when, and who entered and exited at a refresh.

`audience_memberships` is a log, so that an hour costs what it changed: the last row of an
audience and profile holds, and has `exited_at` when it is a member no more.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
from sqlglot import exp

from personas_dagster.interfaces import Lake, Session
from personas_dagster.query import sql

_NO_CHANGES = """
CREATE OR REPLACE TEMP TABLE member_changes (
    audience VARCHAR, collection VARCHAR, profile_id VARCHAR, change VARCHAR, "at" TIMESTAMPTZ,
    as_of TIMESTAMPTZ, run_id VARCHAR, refresh_id BIGINT)
"""
_NO_ROWS = """
CREATE OR REPLACE TEMP TABLE member_rows (
    audience VARCHAR, collection VARCHAR, profile_id VARCHAR, entered_at TIMESTAMPTZ,
    exited_at TIMESTAMPTZ, refresh_id BIGINT)
"""
_MOVED = """
CREATE OR REPLACE TEMP TABLE member_moves AS
SELECT coalesce(n.audience, b.audience) AS audience,
       coalesce(n.collection, b.collection) AS collection,
       coalesce(n.profile_id, b.profile_id) AS profile_id,
       CASE WHEN b.profile_id IS NULL THEN 'entered' ELSE 'exited' END AS change
FROM members_now n FULL JOIN members_before b USING (audience, profile_id)
WHERE n.profile_id IS NULL OR b.profile_id IS NULL
"""
_CHANGES = """
INSERT INTO member_changes
SELECT audience, collection, {named}, change, $1::TIMESTAMPTZ, $1::TIMESTAMPTZ, $2, $3::BIGINT
FROM member_moves m {joined}
"""
_BEFORE = """
CREATE OR REPLACE TEMP TABLE members_before AS
SELECT m.* FROM members m SEMI JOIN evaluated_audiences USING (audience)
"""
_ENTERED = """
INSERT INTO member_rows
SELECT audience, collection, {named}, $1::TIMESTAMPTZ, NULL, $2::BIGINT
FROM member_moves m {joined} WHERE change = 'entered'
"""
# Who exits does so with every profile that was merged into it.
_EXITED = """
INSERT INTO member_rows
SELECT s.audience, s.collection, s.stored_id, s.entered_at, $1::TIMESTAMPTZ, $2::BIGINT
FROM stored_members s JOIN member_moves m USING (audience, profile_id) WHERE m.change = 'exited'
"""
_ITSELF = {"named": "m.profile_id", "joined": ""}
_OF_NUMBER = {
    "named": "i.profile_id",
    "joined": "JOIN {numbers} i ON i.number = m.profile_id AND i.profile_id = i.root_id",
}
_FEW = 100_000  # rows that are not worth writing the log anew
_WHOLE = """
SELECT audience, collection, profile_id, entered_at, NULL::TIMESTAMPTZ AS exited_at,
       $1::BIGINT AS refresh_id
FROM members ORDER BY profile_id, audience
"""


@dataclass(frozen=True)
class Movement:
    """One audience at one refresh: its size, and how many came and went."""

    size: int
    entered: int
    exited: int


def no_changes(session: Session) -> None:
    """Leave empty `member_changes` and `member_rows`."""
    session.run(_NO_CHANGES)
    session.run(_NO_ROWS)


def compare(
    session: Session,
    audiences: Collection[str],
    *,
    as_of: dt.datetime,
    refresh_id: int,
    run_id: str,
    numbers: str | None = None,
) -> dict[str, int]:
    """Add to both where `results` differ from `members`; returns how many are in now.

    A merge moves a membership: `members` is led through the graph's parents already. Where
    profiles go by numbers, the relation `numbers(profile_id, root_id, number)` names them.
    """
    session.register(
        "evaluated_audiences", pa.table({"audience": pa.array(sorted(audiences), pa.string())})
    )
    session.run(_BEFORE)
    session.run(_now(sorted(audiences)))
    session.run(_MOVED)
    names = {key: text.format(numbers=numbers) for key, text in _OF_NUMBER.items()}
    names = names if numbers else _ITSELF
    session.run(_CHANGES.format(**names), [as_of, run_id, refresh_id])
    session.run(_ENTERED.format(**names), [as_of, refresh_id])
    session.run(_EXITED, [as_of, refresh_id])
    sizes = session.fetch("SELECT audience, count(*) AS n FROM members_now GROUP BY ALL")
    return {row["audience"]: row["n"] for row in sizes.to_pylist()}


def _now(audiences: Sequence[str]) -> exp.Expr:
    names = (("key", "audience"), ("collection", "collection"), ("profile_id", "profile_id"))
    query = sql.select(
        [sql.named(sql.column(name), alias) for name, alias in names],
        sql.table("results"),
        where=sql.one_of("key", audiences),
    )
    temporary = exp.Properties(expressions=[exp.TemporaryProperty()])
    return exp.Create(
        this=sql.table("members_now"),
        kind="TABLE",
        replace=True,
        properties=temporary,
        expression=query,
    )


def append(
    session: Session, lake: Lake, sizes: Mapping[str, int], *, refresh_id: int
) -> dict[str, Movement]:
    """Append the changes, once per refresh; `sizes` are those of each audience now."""
    counted = session.fetch(
        "SELECT audience, change, count(*) AS n FROM member_changes GROUP BY ALL"
    ).to_pylist()
    moved = {(row["audience"], row["change"]): row["n"] for row in counted}
    if moved:
        lake.append(
            "audience_changes",
            session.stream("SELECT * FROM member_changes ORDER BY profile_id, audience"),
            once=("refresh", refresh_id),
        )
        lake.append(
            "audience_memberships",
            session.stream("SELECT * FROM member_rows ORDER BY profile_id, audience"),
            once=("refresh", refresh_id),
        )
    return {
        key: Movement(size, moved.get((key, "entered"), 0), moved.get((key, "exited"), 0))
        for key, size in sizes.items()
    }


def tidy(session: Session, lake: Lake, *, members: int, refresh_id: int) -> bool:
    """Write `audience_memberships` anew when it has grown to twice what it says.

    `members` are at least as many as it says of some audiences.
    """
    stored = _count(session, "audience_memberships")
    if stored <= 2 * members + _FEW or stored <= 2 * _count(session, "members") + _FEW:
        return False
    lake.replace("audience_memberships", session.fetch(_WHOLE, [refresh_id]))
    return True


def _count(session: Session, relation: str) -> int:
    query = sql.select([sql.count_all()], sql.table(relation))
    return int(session.fetch(query).column(0)[0].as_py())
