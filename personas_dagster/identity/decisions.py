"""What people decided about identifiers, recorded once and replayed like rules.

A decision has its place in the order of loads: `after_load` is the last raw load that the graph
held when it was made. Rows are only ever added.

- `block` and `allow` hold for the loads that come after their place; for a load that reaches
  over it (after `rebuild --by-time`), for the messages received after their instant.
- `detach` and `delete` hold from the start: the graph is derived anew under them.
- `pass` lets the messages of a refused load through once, past the checks that it names.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import sqlalchemy as sa

from personas_dagster.identity.facts import Facts, Identifier, Ignored
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.interfaces import Session
from personas_dagster.state import State
from personas_dagster.state.schema import identity_facts

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_SPAN = """
SELECT min(epoch_us(received_at)) AS first, max(epoch_us(received_at)) AS last
FROM raw_events WHERE load_id > $1 AND load_id <= $2
"""


@dataclass(frozen=True)
class Decision:
    """One recorded fact. `company`: the other identifiers of a detached one's profile, as shown;
    `taken`: whether the identifier had given a profile its id; `checks`: what `pass` lets through.
    """

    what: str  # block, allow, detach, delete, pass
    identifier: Identifier
    at: dt.datetime
    after_load: int
    by: str = ""
    reason: str = ""
    company: tuple[tuple[str, str], ...] = ()
    taken: bool = False
    checks: tuple[str, ...] = ()
    through_load: int = 0
    fact_id: int = field(default=0, compare=False)

    @property
    def instant(self) -> int:
        """Microseconds since 1970."""
        return (self.at - _EPOCH) // dt.timedelta(microseconds=1)


def record(connection: sa.Connection, decision: Decision) -> int:
    """Add a decision within a transaction; returns its number."""
    collection, kind, value = decision.identifier
    row = sa.insert(identity_facts).values(
        what=decision.what,
        collection=collection,
        type=kind,
        value=value,
        at=decision.at,
        by=decision.by,
        reason=decision.reason,
        after_load=decision.after_load,
        details={
            "company": [list(one) for one in decision.company],
            "taken": decision.taken,
            "checks": list(decision.checks),
            "through_load": decision.through_load,
        },
    )
    return int(connection.execute(row.returning(identity_facts.c.fact_id)).scalar_one())


def decisions(state: State) -> tuple[Decision, ...]:
    """All that were recorded, in order."""
    rows = state.rows(sa.select(identity_facts).order_by(identity_facts.c.fact_id))
    return tuple(_decision(row) for row in rows)


def _decision(row: Mapping[str, Any]) -> Decision:
    details = row["details"]
    return Decision(
        what=row["what"],
        identifier=(row["collection"], row["type"], row["value"]),
        at=row["at"],
        after_load=row["after_load"],
        by=row["by"],
        reason=row["reason"],
        company=tuple((kind, value) for kind, value in details["company"]),
        taken=details["taken"],
        checks=tuple(details["checks"]),
        through_load=details["through_load"],
        fact_id=row["fact_id"],
    )


def facts_of_load(decided: Sequence[Decision], *, after_load: int, through_load: int) -> Facts:
    """What the decisions say about the load of the raw loads in (after_load, through_load]."""
    ignored: list[Ignored] = []
    detached: dict[Identifier, frozenset[tuple[str, str]]] = {}
    taken, allowed = set[Identifier](), set[Identifier]()
    since: dict[Identifier, int | None] = {}  # those that are blocked, and from when in the load
    for one in decided:
        name = one.identifier
        if one.taken:
            taken.add(name)
        if one.what == "delete":
            ignored.append(Ignored(name, until=one.instant))
        elif one.what == "detach":
            detached[name] = detached.get(name, frozenset()) | {*one.company}
        elif one.what in ("block", "allow") and one.after_load < through_load:
            is_before = one.after_load <= after_load
            if one.what == "block":
                allowed.discard(name)
                since.setdefault(name, None if is_before else one.instant)
            else:
                allowed.add(name)
                start = since.pop(name, -1)
                if start != -1 and not is_before:
                    ignored.append(Ignored(name, start, one.instant))
    ignored += [Ignored(name, start) for name, start in since.items()]
    return Facts(tuple(ignored), detached, frozenset(taken), frozenset(allowed))


def under_facts(
    session: Session,
    rules: IdentityRules,
    decided: Sequence[Decision],
    *,
    after_load: int,
    through_load: int,
) -> IdentityRules:
    """The rules for one load, with the facts that hold for it."""
    facts = facts_of_load(decided, after_load=after_load, through_load=through_load)
    if facts.ignored:
        session.view("raw_events", after_load=after_load)
        first, last = session.fetch(_SPAN, [after_load, through_load]).to_pylist()[0].values()
        facts = facts.within(first, last) if first is not None else Facts()
    return replace(rules, facts=facts)


def let_pass(decided: Sequence[Decision], *, after_load: int, through_load: int) -> frozenset[str]:
    """The checks that a person let this load past: its messages are among those of the fact."""
    return frozenset(
        check
        for one in decided
        if one.what == "pass" and after_load < one.through_load <= through_load
        for check in one.checks
    )
