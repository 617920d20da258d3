"""A plan: what changed definitions would do to members, values and destinations; nothing written.

The definitions of a project are evaluated at one instant and held against what the last refresh
stored, or against the definitions of another folder at the same instant. For pull requests.
"""

from __future__ import annotations

import datetime as dt
import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import pyarrow as pa

from personas_dagster import deliver
from personas_dagster.answers import lean
from personas_dagster.answers.preview import last_instant, shown_ids
from personas_dagster.errors import PersonasError
from personas_dagster.interfaces import Session
from personas_dagster.project.loader import Project
from personas_dagster.query import Definition
from personas_dagster.refresh import dated_definitions
from personas_dagster.spaces import Space
from personas_dagster.state.registry import created
from personas_dagster.traits.world import prepare_values

SAMPLE = 5
Change = Literal["entering", "leaving", "changed"]
_STORED = """
SELECT * FROM (
    SELECT audience AS key, profile_id, 'true' AS value FROM members
    UNION ALL
    SELECT key, profile_id, value FROM trait_values WHERE class = 'computed_trait'
) WHERE key IN (SELECT unnest($1))
"""
_MOVES = """
CREATE OR REPLACE TEMP TABLE moves AS
SELECT coalesce(a.key, b.key) AS key, coalesce(a.profile_id, b.profile_id) AS profile_id,
       CASE WHEN b.key IS NULL THEN 'entering' WHEN a.key IS NULL THEN 'leaving'
            WHEN a.value IS DISTINCT FROM b.value THEN 'changed' END AS change
FROM (SELECT key, profile_id, value FROM results WHERE key IN (SELECT key FROM own)) a
FULL JOIN (SELECT * FROM before_values WHERE key IN (SELECT key FROM compared)) b
    ON a.key = b.key AND a.profile_id = b.profile_id
"""
_SIZES = """
SELECT key, count(*) FILTER (change IS DISTINCT FROM 'entering') AS before,
       count(*) FILTER (change IS DISTINCT FROM 'leaving') AS after,
       count(*) FILTER (change = 'entering') AS entering,
       count(*) FILTER (change = 'leaving') AS leaving,
       count(*) FILTER (change = 'changed') AS changed
FROM moves GROUP BY key
"""
_EXAMPLES = f"""
SELECT m.key, m.change, m.profile_id, coalesce(i.ids, '{{}}') AS ids FROM (
    SELECT * FROM moves WHERE change IS NOT NULL
    QUALIFY row_number() OVER (PARTITION BY key, change
                               ORDER BY hash(profile_id), profile_id) <= {SAMPLE}
) m LEFT JOIN (
    SELECT profile_id, json_group_object(type, vs) AS ids FROM (
        SELECT profile_id, type, list(value ORDER BY first_seen_at, value) AS vs
        FROM graph_identifiers SEMI JOIN moves USING (profile_id) GROUP BY ALL)
    GROUP BY profile_id
) i USING (profile_id) ORDER BY ALL
"""


@dataclass(frozen=True)
class Told:
    """What a connection would send: profiles with a change, and the seconds at the tool's rate
    (None where there is no rate, or where the destination cannot be opened here)."""

    connection: str
    destination: str
    changes: int
    seconds: float | None


@dataclass(frozen=True)
class Planned:
    """One definition: members, or profiles with a value, before and after."""

    key: str
    kind: str
    status: Literal["new", "deleted", "kept"]
    before: int
    after: int
    entering: int
    leaving: int
    changed: int
    examples: Mapping[Change, tuple[Mapping[str, Any], ...]]
    told: tuple[Told, ...]

    @property
    def moves(self) -> int:
        """How many profiles are affected."""
        return self.entering + self.leaving + self.changed


def plan(
    space: Space,
    *,
    against: Space | None = None,
    as_of: dt.datetime | None = None,
    only: Collection[str] | None = None,
) -> list[Planned]:
    """What the definitions of `space` (`only` these keys) would change, by key; those that change
    nothing too.

    Before: what the last refresh stored, or what the definitions of `against` (the same data,
    other files) give. `as_of`: by default the last refresh's instant.
    """
    as_of = as_of or last_instant(space)
    own = {one.key: one for one in dated_definitions(space) if only is None or one.key in only}
    before = _values_of(against, as_of) if against else None
    with lean.evaluated(space, list(own.values()), as_of=as_of) as session:
        there = {one.key for one in against.definitions} if against else set(created(space.state))
        there = there if only is None else there & set(only)
        if before is None:
            before = _stored(space, there)
        session.register("before_values", before)
        session.register("own", pa.table({"key": pa.array(sorted(own), pa.string())}))
        session.register("compared", pa.table({"key": pa.array(sorted(there), pa.string())}))
        session.run(_MOVES)
        sizes = {row["key"]: row for row in session.fetch(_SIZES).to_pylist()}
        examples = _examples(session, space)
    return [
        _planned(space, key, own.get(key), key in there, sizes.get(key), examples)
        for key in sorted({*own, *there})
    ]


def on_data_of(space: Space, project: Project) -> Space:
    """The definitions of another folder, on this space's data."""
    return Space(replace(project, root=space.project.root), space.name)


def _values_of(other: Space, as_of: dt.datetime) -> pa.Table:
    with lean.evaluated(other, dated_definitions(other), as_of=as_of) as session:
        return session.fetch("SELECT key, profile_id, value FROM results")


def _stored(space: Space, keys: Collection[str]) -> pa.Table:
    with space.bare_session() as stored:
        prepare_values(stored, defined=space.computed_keys, keys=sorted(keys))
        return stored.fetch(_STORED, [sorted(keys)])


def _examples(session: Session, space: Space) -> dict[tuple[str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in session.fetch(_EXAMPLES).to_pylist():
        ids = shown_ids(json.loads(row["ids"]), space.operator_has_pii)
        one = {"profile_id": row["profile_id"], "external_ids": ids}
        found.setdefault((row["key"], row["change"]), []).append(one)
    return found


def _planned(
    space: Space,
    key: str,
    definition: Definition | None,
    was_there: bool,
    sizes: Mapping[str, int] | None,
    examples: Mapping[tuple[str, str], list[dict[str, Any]]],
) -> Planned:
    names = ("before", "after", "entering", "leaving", "changed")
    counts = {name: int(sizes[name]) if sizes else 0 for name in names}
    if definition is None:  # its last values stay, as custom traits
        counts |= {"after": counts["before"], "leaving": 0}
    changes: tuple[Change, ...] = ("entering", "leaving", "changed")
    moves = counts["entering"] + counts["leaving"] + counts["changed"]
    return Planned(
        key=key,
        kind=definition.kind if definition else "deleted",
        status="deleted" if definition is None else "kept" if was_there else "new",
        examples={
            one: tuple(examples[key, one])
            for one in changes
            if definition and (key, one) in examples
        },
        told=_told(space, key, moves) if definition else (),
        **counts,
    )


def _told(space: Space, key: str, changes: int) -> tuple[Told, ...]:
    return tuple(
        Told(one.name, one.destination, changes, _seconds(space, one.destination, changes))
        for one in space.connections.values()
        if one.key == key and changes
    )


def _seconds(space: Space, destination: str, changes: int) -> float | None:
    try:
        abilities = deliver.opened(space, destination).abilities
    except PersonasError:  # its secrets need not be there where a change is reviewed
        return None
    if not abilities.requests_per_second:
        return None
    return math.ceil(changes / abilities.batch_size) / abilities.requests_per_second


def as_json(planned: Planned, as_of: dt.datetime) -> dict[str, Any]:
    """One definition as a line of JSON."""
    return {
        "key": planned.key,
        "kind": planned.kind,
        "status": planned.status,
        "as_of": as_of,
        "before": planned.before,
        "after": planned.after,
        "entering": planned.entering,
        "leaving": planned.leaving,
        "changed": planned.changed,
        "examples": {name: list(rows) for name, rows in planned.examples.items()},
        "destinations": [
            {"connection": one.connection, "destination": one.destination,
             "changes": one.changes, "seconds": one.seconds}
            for one in planned.told
        ],
    }  # fmt: skip


def as_markdown(found: list[Planned], as_of: dt.datetime) -> str:
    """The same for a pull request: a table of what moves, then who, then what tools are told."""
    moving = [one for one in found if one.moves or one.status != "kept"]
    head = f"## What this changes, as of {as_of:%Y-%m-%d %H:%M} UTC"
    if not moving:
        return f"{head}\n\nNobody enters or leaves, and no value changes.\n"
    lines = [head, "", "| definition | | before | after | entering | leaving | other values |",
             "| --- | --- | --: | --: | --: | --: | --: |"]  # fmt: skip
    for one in moving:
        lines.append(
            f"| `{one.key}` | {one.status if one.status != 'kept' else 'changed'} | {one.before:,} "
            f"| {one.after:,} | {one.entering:,} | {one.leaving:,} | {one.changed:,} |"
        )
    for one in moving:
        for change, rows in one.examples.items():
            who = "; ".join(_name(row) for row in rows)
            lines += ["", f"`{one.key}` {change}, for example: {who}"]
    told = [(one, to) for one in moving for to in one.told]
    if told:
        lines += ["", "| destination | connection | profiles with a change | time at its rate |",
                  "| --- | --- | --: | --: |"]  # fmt: skip
        for _, to in told:
            time = "" if to.seconds is None else f"{to.seconds:,.1f} s"
            lines.append(f"| {to.destination} | {to.connection} | {to.changes:,} | {time} |")
    unmoved = len(found) - len(moving)
    return "\n".join([*lines, "", f"{unmoved} other definitions change nothing.", ""])


def _name(row: Mapping[str, Any]) -> str:
    ids = row["external_ids"]
    for kind in ("user_id", "group_id", "email", *ids):
        if ids.get(kind):
            return f"{kind}:{ids[kind][0]}"
    return str(row["profile_id"])
