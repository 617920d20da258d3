"""Deciding about an identifier: what may be decided, and what it sets going.

The caller holds the space's refresh lease. `detach` and `delete` ask for the graph to be derived
anew, which the next run does (`rebuilding.run_due`).
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa

from personas_dagster.errors import NotFound, PersonasError
from personas_dagster.identity.decisions import Decision, decisions, facts_of_load, record
from personas_dagster.identity.facts import Identifier
from personas_dagster.identity.guard import MAY_PASS
from personas_dagster.identity.loads import finish, span
from personas_dagster.identity.outcome import profile_id_sql
from personas_dagster.identity.rebuilding import ask, give_up_candidates
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.identity.views import prepare
from personas_dagster.interfaces import Engine, Lake, Session
from personas_dagster.state import State
from personas_dagster.state.schema import identity_loads

_PROFILE = """
SELECT o.type, o.value FROM graph_identifiers i
JOIN graph_identifiers o ON o.collection = i.collection AND o.profile_id = i.profile_id
WHERE i.collection = $1 AND i.type = $2 AND i.value = $3
ORDER BY o.type, o.value
"""
_TAKEN = f"""
SELECT count(*) AS n FROM (
    SELECT p.profile_id, p.first_message_id, {profile_id_sql("$4", "$1", "$2", "$3")} AS id
    FROM identifiers i JOIN stored_profiles p ON p.profile_id = i.profile_id
    WHERE i.collection = $1 AND i.type = $2 AND i.value = $3
) WHERE profile_id IN (id, md5(id || first_message_id))
"""


@dataclass(frozen=True)
class Deciding:
    """Who decides, where and when."""

    lake: Lake
    engine: Engine
    state: State
    space_id: str
    now: dt.datetime
    by: str = ""
    reason: str = ""
    published: Lake | None = None  # what people are shown; default: the lake itself

    @property
    def shown(self) -> Lake:
        return self.lake if self.published is None else self.published


def company(session: Session, identifier: Identifier) -> tuple[tuple[str, str], ...]:
    """The other identifiers of the identifier's profile. The session must be prepared.

    Raises NotFound when no profile holds the identifier.
    """
    found = session.fetch(_PROFILE, list(identifier)).to_pylist()
    names = [(row["type"], row["value"]) for row in found]
    if not names:
        raise NotFound(
            f"{name_of(identifier)} is on no {identifier[0][:-1]}'s profile; look it up with "
            "`personas identity export`"
        )
    return tuple(name for name in names if name != identifier[1:])


def name_of(identifier: Identifier) -> str:
    """An identifier as people write it."""
    return f"{identifier[1]}:{identifier[2]}"


def decide(place: Deciding, what: str, identifier: Identifier, rules: IdentityRules) -> Decision:
    """Record `block`, `allow`, `detach` or `delete`.

    Raises PersonasError when there is nothing to decide.
    """
    finish(place.lake, place.engine, place.state, now=place.now)
    decision = seen(place, what, identifier, rules)
    with place.state.begin() as connection:
        number = record(connection, decision)
        if what in ("detach", "delete"):
            ask(connection, why=f"{what} an identifier", now=place.now, facts=[number])
        else:
            give_up_candidates(connection)
    return decision


def seen(place: Deciding, what: str, identifier: Identifier, rules: IdentityRules) -> Decision:
    """The decision as it would be recorded now; nothing is written."""
    decided = decisions(place.state)
    shown: tuple[tuple[str, str], ...] = ()
    taken = False
    if what in ("detach", "delete"):
        with place.engine.session(place.shown) as session:
            prepare(session)
            shown = company(session, identifier)
            parameters = [*identifier, place.space_id]
            taken = bool(session.fetch(_TAKEN, parameters).column("n")[0].as_py())
        if what == "detach" and not shown:
            raise PersonasError(
                f"{name_of(identifier)} is the only identifier of its profile; there is nothing "
                "to detach it from"
            )
    elif what == "allow" and rules.is_blocked(*identifier[1:]):
        raise PersonasError(
            f"{name_of(identifier)} is blocked by the rules; take it out of `blocked` in "
            "assets/identity.yaml"
        )
    elif stands(decided, identifier) == what:
        raise PersonasError(f"{name_of(identifier)} is {what}ed already")
    return Decision(
        what,
        identifier,
        place.now,
        span(place.state)[0],
        by=place.by,
        reason=place.reason,
        company=shown if what == "detach" else (),
        taken=taken,
    )


def check_deletable(
    place: Deciding, identifier: Identifier, *, looked_up: Identifier | None = None
) -> None:
    """Raise when this identifier must not be deleted, of the profile that was looked up if any.

    NotFound: no such profile, or it does not hold the identifier. PersonasError: an account's
    identifier, the one that was looked up, or a profile's last user id.
    """
    collection, kind, _ = identifier
    if collection != "users" or kind == "group_id":
        raise PersonasError(f"{kind} names an account; only identifiers of users can be deleted")
    if looked_up == identifier:
        raise PersonasError(
            f"{name_of(identifier)} is what the profile was looked up by; look it up by another "
            "user_id to delete this one"
        )
    with place.engine.session(place.shown) as session:
        prepare(session)
        others = company(session, looked_up or identifier)
    if looked_up and identifier[1:] not in others:
        raise NotFound(f"{name_of(identifier)} is not on the profile of {name_of(looked_up)}")
    if kind == "user_id" and not any(other == "user_id" for other, _ in others):
        raise PersonasError(
            f"{name_of(identifier)} is the profile's last user_id; delete the person instead"
        )


def stands(decided: Sequence[Decision], identifier: Identifier) -> str | None:
    """Whether the identifier is blocked or allowed by what was decided last."""
    end = max((one.after_load for one in decided), default=0)
    facts = facts_of_load(decided, after_load=end, through_load=end + 1)
    if identifier in facts.allowed:
        return "allow"
    return "block" if any(i.identifier == identifier and i.until is None
                          for i in facts.ignored) else None  # fmt: skip


def let_refused_pass(place: Deciding) -> Decision:
    """Let the messages of the load that was refused last through once.

    Past the checks that it failed; a check that the next load fails beside these refuses it.
    Raises PersonasError when none was refused, or when the candidates would break the graph.
    """
    query = (
        sa.select(identity_loads)
        .where(identity_loads.c.status == "refused")
        .order_by(identity_loads.c.load_id.desc())
        .limit(1)
    )
    found = place.state.rows(query)
    if not found:
        raise PersonasError("no load was refused since the last one that was applied")
    row = found[0]
    failed = tuple(row["counts"].get("failed_checks", ()))
    never = [check for check in failed if check not in MAY_PASS]
    if never:
        raise PersonasError(
            f"load {row['load_id']} would break the graph ({', '.join(never)}) and can never "
            "pass; mend the identity rules or the source, then refresh"
        )
    decision = Decision(
        "pass",
        ("", "", ""),
        place.now,
        row["after_load"],
        by=place.by,
        reason=place.reason,
        checks=failed,
        through_load=row["through_load"],
    )
    with place.state.begin() as connection:
        record(connection, decision)
    return decision
