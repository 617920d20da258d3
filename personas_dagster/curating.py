"""What people do with the identity graph of a space: look at what would be, decide, ask why.

Nothing here changes the graph itself: a decision is recorded, and the next refresh derives the
graph anew (`refresh.derive_anew`) and publishes it.
"""

from __future__ import annotations

import datetime as dt
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any
from uuid import uuid4

import sqlalchemy as sa

from personas_dagster import masking
from personas_dagster.asking import audience_sizes
from personas_dagster.errors import PersonasError
from personas_dagster.identity import rebuilding, replaying
from personas_dagster.identity.comparing import Comparison, compare
from personas_dagster.identity.component import derived, put
from personas_dagster.identity.deciding import (
    Deciding,
    check_deletable,
    decide,
    let_refused_pass,
    seen,
    stands,
)
from personas_dagster.identity.decisions import Decision, decisions
from personas_dagster.identity.explain import explain as explain_two
from personas_dagster.identity.facts import Identifier
from personas_dagster.identity.loads import finish
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.interfaces import Lake
from personas_dagster.lake import DeltaLake
from personas_dagster.lake.overlay import Overlay
from personas_dagster.lake.tables import IDENTITY_TABLES
from personas_dagster.spaces import Space
from personas_dagster.state.schema import identity_loads, identity_rebuilds

_MERGES = """
SELECT collection, parent_id, child_id, merged_at AS at, message_id, identifiers FROM merges
ORDER BY merged_at DESC, message_id, child_id LIMIT $1
"""
_DROPS = """
SELECT type, value, collection, limit_broken, received_at AS at, message_id, profiles_apart
FROM dropped_identifiers ORDER BY received_at DESC, message_id, type, value LIMIT $1
"""
_WRITTEN = ("events", *IDENTITY_TABLES, *(f"candidate_{name}" for name in IDENTITY_TABLES))


def identifier(text: str, collection: str | None = None) -> Identifier:
    """An identifier as a person typed it, `TYPE:VALUE`; `group_id` names an account."""
    kind, colon, value = text.partition(":")
    value = value.strip().lower() if kind == "email" else value.strip()
    if not colon or not kind or not value:
        raise PersonasError(f"found `{text}`, expected TYPE:VALUE, for example user_id:42")
    return (collection or ("accounts" if kind == "group_id" else "users"), kind, value)


@contextmanager
def what_if(
    space: Space,
    *,
    rules: IdentityRules | None = None,
    extra: Sequence[Decision] = (),
    in_time: bool = False,
    with_events: bool = False,
    progress: replaying.Progress | None = None,
) -> Iterator[Lake]:
    """The lake as the last refresh published it, with the graph that would be.

    Under `rules` (default: each load's own), with `extra` decisions, as loads or by time.
    """
    snapshot = space.snapshot()
    with space.engine.session(snapshot) as session:
        last = session.newest("events", "load_id")
    loads = [load for load in replaying.recorded_loads(space.state, rules) if load.load_id <= last]
    if in_time:
        loads = replaying.by_time(loads)
    decided = (*decisions(space.state), *extra)
    names = {one.identifier for one in extra}
    alone = not (rules or in_time or with_events or rebuilding.due(space.state))
    with tempfile.TemporaryDirectory(prefix="personas-what-if-") as folder:
        lake = Overlay(snapshot, DeltaLake(folder), _WRITTEN)
        if alone and rebuilding.is_separable(loads, names):
            with derived(
                snapshot, space.engine, loads, decided, names, space_id=space.name
            ) as found:
                put(found, lake)
        else:
            replaying.replay(
                lake,
                space.engine,
                loads,
                decided,
                space_id=space.name,
                with_events=with_events,
                progress=progress,
            )
        yield lake


def preview(
    space: Space,
    *,
    rules: IdentityRules | None = None,
    extra: Sequence[Decision] = (),
    in_time: bool = False,
    progress: replaying.Progress | None = None,
) -> Comparison:
    """How the graph would differ from the one that readers see."""
    with what_if(space, rules=rules, extra=extra, in_time=in_time, progress=progress) as lake:
        return compare(space.engine, space.snapshot(), lake)


def simulate(
    space: Space,
    rules: IdentityRules,
    *,
    as_of: dt.datetime,
    progress: replaying.Progress | None = None,
) -> tuple[Comparison, dict[str, dict[str, int]]]:
    """What other rules would make of all stored messages: the graph, and audiences' sizes.

    Both sizes are evaluated at `as_of`.
    """
    with what_if(space, rules=rules, with_events=True, progress=progress) as lake:
        found = compare(space.engine, space.snapshot(), lake)
        before = audience_sizes(space, space.snapshot(), as_of=as_of)
        after = audience_sizes(space, lake, as_of=as_of)
    return found, {key: {"before": before[key], "after": after[key]} for key in before}


def planned(space: Space, what: str, name: Identifier, *, now: dt.datetime) -> Decision:
    """The decision that `decide` would record, to look at what it would do."""
    place = _place(space, now=now)
    if what == "delete":
        check_deletable(place, name)
    return seen(place, what, name, space.rules)


def settle(
    space: Space, what: str, name: Identifier, *, now: dt.datetime, by: str, reason: str
) -> Decision:
    """Record a decision: block, allow, detach or delete. Raises PersonasError or Busy."""
    with _held(space, f"personas identity {what}"):
        place = _place(space, now=now, by=by, reason=reason)
        if what == "delete":
            check_deletable(place, name)
        done = decide(place, what, name, space.rules)
    _audit(space, f"identity {what}", now=now, by=by, reason=reason)
    return done


def delete_external_id(
    space: Space, looked_up: str, name: Identifier, *, now: dt.datetime, by: str, reason: str = ""
) -> Decision:
    """Delete an identifier of the profile that is looked up by this user id.

    Raises PersonasError for what must not be deleted, NotFound when there is no such profile.
    """
    with _held(space, "a deletion of an identifier"):
        place = _place(space, now=now, by=by, reason=reason)
        check_deletable(place, name, looked_up=("users", "user_id", looked_up))
        done = decide(place, "delete", name, space.rules)
    _audit(space, "identity delete", now=now, by=by, reason=reason)
    return done


def let_pass(space: Space, *, now: dt.datetime, by: str, reason: str) -> Decision:
    """Let the messages of the load that was refused last through once."""
    with _held(space, "personas identity pass"):
        done = let_refused_pass(_place(space, now=now, by=by, reason=reason))
    _audit(space, "identity pass", now=now, by=by, reason=reason)
    return done


def rebuild(space: Space, *, now: dt.datetime, by: str, in_time: bool) -> None:
    """Ask for the graph to be derived anew under the rules of now; the next refresh does it."""
    with _held(space, "personas identity rebuild"):
        finish(space.lake, space.engine, space.state, now=now)
        why = "rebuild by time" if in_time else "rebuild"
        with space.state.begin() as connection:
            rebuilding.ask(connection, why=why, now=now, rules=space.rules, in_time=in_time)
    _audit(space, f"identity {why}", now=now, by=by, reason="")


def last_rebuild(space: Space) -> dict[str, Any]:
    """Rows and digests of the tables after the last rebuild, as JSON."""
    query = (
        sa.select(identity_rebuilds)
        .where(identity_rebuilds.c.status == "done")
        .order_by(identity_rebuilds.c.rebuild_id.desc())
        .limit(1)
    )
    found = space.state.rows(query)
    return {"rows": found[0]["counts"], "digests": found[0]["digests"]} if found else {}


def explain(space: Space, a: Identifier, b: Identifier) -> dict[str, Any]:
    """Why two identifiers are one profile or two, as JSON.

    With what was decided about them, and about those that kept them apart.
    """
    if a[0] != b[0]:
        raise PersonasError(f"{a[1]} is of {a[0]} and {b[1]} of {b[0]}; they are never one profile")
    decided = decisions(space.state)
    loads = replaying.recorded_loads(space.state)
    with space.session() as session:
        found = explain_two(session, loads, decided, a[1:], b[1:], collection=a[0])
    show, about = _show(space), {a, b, *((a[0], *drop.identifier) for drop in found.drops)}
    return {
        "one_profile": found.is_one_profile,
        "profile_ids": list(found.profile_ids),
        "chain": [
            {**asdict(step), "identifiers": [show(*i) for i in step.identifiers]}
            for step in found.chain
        ],
        "drops": [{**asdict(drop), "identifier": show(*drop.identifier)} for drop in found.drops],
        "decisions": [_told(space, one) for one in decided if one.identifier in about],
    }


def newest_loads(space: Space, *, limit: int) -> list[dict[str, Any]]:
    """The newest loads: where each stands, what it did, and the digests that it left."""
    found = []
    for row in _loads(space, limit):
        counts = row["counts"]
        kept = ("messages", "without_profile", "counts", "dropped_by_limit", "failed_checks")
        names = ("load_id", "status", "reason", "proposed_at", "applied_at", "digests")
        found.append({**{name: row[name] for name in names},
                      **{name: counts[name] for name in kept if name in counts}})  # fmt: skip
    return found


def newest_hubs(space: Space, *, limit: int) -> list[dict[str, Any]]:
    """The hubs of the newest loads, each once, and what a person decided about it."""
    decided, show = decisions(space.state), _show(space)
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for row in _loads(space, limit):
        for hub in row["counts"].get("hubs", ()):
            name = (hub["type"], hub["value"])
            decision = stands(decided, ("users", *name))
            told = {"load_id": row["load_id"], "degree": hub["degree"], "decision": decision}
            found.setdefault(name, {"identifier": show(*name), **told})
    return list(found.values())[:limit]


def newest_merges(space: Space, *, limit: int) -> list[dict[str, Any]]:
    """The newest merges, with the identifiers that joined."""
    show = _show(space)
    return [
        {**row, "identifiers": [show(i["type"], i["id"]) for i in json.loads(row["identifiers"])]}
        for row in _newest(space, _MERGES, limit)
    ]


def newest_drops(space: Space, *, limit: int) -> list[dict[str, Any]]:
    """The identifiers that were last removed from a message, and why."""
    show = _show(space)
    return [
        {"identifier": show(row.pop("type"), row.pop("value")), **row,
         "profiles_apart": json.loads(row["profiles_apart"])}
        for row in _newest(space, _DROPS, limit)
    ]  # fmt: skip


def _newest(space: Space, query: str, limit: int) -> list[dict[str, Any]]:
    with space.session() as session:
        session.view("dropped_identifiers")
        rows: list[dict[str, Any]] = session.fetch(query, [limit]).to_pylist()
    return rows


def _loads(space: Space, limit: int) -> list[dict[str, Any]]:
    query = sa.select(identity_loads).order_by(identity_loads.c.load_id.desc()).limit(limit)
    return space.state.rows(query)


def newest_decisions(space: Space, *, limit: int) -> list[dict[str, Any]]:
    """What people decided last."""
    return [_told(space, one) for one in decisions(space.state)[::-1][:limit]]


def _told(space: Space, one: Decision) -> dict[str, Any]:
    show = _show(space)
    named = {"identifier": show(*one.identifier[1:])} if one.what != "pass" else {}
    return {"what": one.what, **named, "at": one.at, "by": one.by, "reason": one.reason}


def _show(space: Space) -> Callable[[str, str], dict[str, str]]:
    return shown_id if space.operator_has_pii else masked_id


def shown_id(kind: str, value: str) -> dict[str, str]:
    """An identifier as JSON."""
    return {"type": kind, "id": value}


def masked_id(kind: str, value: str) -> dict[str, str]:
    """An identifier as JSON, for those without the permission `pii`."""
    return {"type": kind, "id": masking.mask_id(kind, value)}


def comparison_rows(found: Comparison, *, has_pii: bool) -> list[Mapping[str, Any]]:
    """A comparison as JSON: its figures, then its examples."""
    show = shown_id if has_pii else masked_id
    rows: list[Mapping[str, Any]] = [found.counts]
    for one in found.examples:
        parts = [[show(*name) for name in part] for part in one.parts]
        whole = [name for part in parts for name in part]
        before, after = (parts, [whole]) if one.change == "merged" else ([whole], parts)
        rows.append({"example": one.change, "before": before, "after": after})
    if found.lost:
        rows.append({"example": "on no profile any more",
                     "identifiers": [show(*name) for name in found.lost]})  # fmt: skip
    return rows


def _place(space: Space, *, now: dt.datetime, by: str = "", reason: str = "") -> Deciding:
    return Deciding(
        space.lake, space.engine, space.state, space.name, now, by, reason, space.snapshot()
    )


@contextmanager
def _held(space: Space, holder: str) -> Iterator[None]:
    with space.state.lease("refresh", owner=uuid4().hex, holder=holder):
        yield


def _audit(space: Space, what: str, *, now: dt.datetime, by: str, reason: str) -> None:
    """The trail says who did what when; the identifier stays with the fact."""
    note = f"by {by}: {reason}" if reason else f"by {by}"
    space.state.audit(what, space.name, at=now, outcome="recorded", reason=note)
