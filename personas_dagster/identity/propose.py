"""Merge candidates: what a load of messages would do to the graph, before anything is done.

Reads the messages that are not in the graph yet as distinct combinations of identifiers,
resolves them on top of the state that they touch, and writes the outcome to the `candidate_*`
tables under a load id of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from personas_dagster.identity import belonging, outcome
from personas_dagster.identity.keys import identifier_keys
from personas_dagster.identity.messages import Messages
from personas_dagster.identity.numbering import NONE, number
from personas_dagster.identity.resolve import resolve, suspects
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.identity.touched import read_touched
from personas_dagster.interfaces import Data, Lake, Session

COLLECTIONS = ("users", "accounts")
_GRAPH = ("profiles", "identifiers", "merges", "dropped_identifiers")
_PATIENCE = 2
_WRITERS = 2
_FEW = 0.1  # of the messages


@dataclass(frozen=True)
class Proposal:
    """What a load would do: counts per table, and identifiers that look like hubs."""

    load_id: int
    messages: int
    without_profile: int
    touched_profiles: int
    counts: Mapping[str, int]
    dropped_by_limit: Mapping[str, int]
    hubs: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


def propose(
    session: Session,
    lake: Lake,
    rules: IdentityRules,
    *,
    space_id: str,
    load_id: int,
    after_load: int,
    through_load: int,
) -> Proposal:
    """Resolve the messages of the raw loads in (after_load, through_load] and write candidates."""
    session.view("raw_events", after_load=after_load)
    messages = Messages(session, rules, after_load=after_load, through_load=through_load)
    users, accounts = (
        _resolve(session, messages, rules, space_id=space_id, collection=collection)
        for collection in COLLECTIONS
    )
    assigned = belonging.assigned(messages, users, accounts)
    combinations = assigned.combinations(messages, load_id=load_id)
    of_users = outcome.tables(users, rules, load_id=load_id)
    of_accounts = outcome.tables(accounts, rules, load_id=load_id)
    with ThreadPoolExecutor(_WRITERS) as pool:  # tables are made as they are written

        def write(name: str, rows: Data) -> Future[int]:
            return pool.submit(lake.replace, f"candidate_{name}", rows)

        write_others = [
            write("combinations", outcome.stream([combinations])),
            write("message_profiles", assigned.messages(load_id=load_id)),
        ]
        written = {
            name: write(name, outcome.stream([of_users[name], of_accounts[name]]))
            for name in _GRAPH
        }
        links = belonging.links(session, messages, assigned, load_id=load_id)
        written["account_links"] = write("account_links", links)
        counts = {name: one.result() for name, one in written.items()}
        for one in write_others:
            one.result()
    dropped = outcome.left_out_counts(users, rules) + outcome.left_out_counts(accounts, rules)
    return Proposal(
        load_id=load_id,
        messages=messages.total,
        without_profile=assigned.without_profile(messages),
        touched_profiles=users.outcome.existing + accounts.outcome.existing,
        counts=counts,
        dropped_by_limit=dict(dropped),
        hubs=outcome.hubs(users, rules),
    )


def _resolve(
    session: Session, messages: Messages, rules: IdentityRules, *, space_id: str, collection: str
) -> outcome.Resolved:
    """Resolve one collection.

    A combination that was refused once is resolved again with each of its messages. Where few
    could be refused, all messages of those are taken at once; else they are taken as refusals
    are met, and everything is done anew; after some rounds of that, with all messages.
    """
    numbered = number(messages.keys, messages.others, rules, collection)
    numbered.keys = identifier_keys(session, numbered.named(), collection)
    touched = read_touched(session, numbered.keyed())
    before = outcome.before(numbered, touched, rules)
    guarded = suspects(numbered, before, rules)
    first = numbered.first()[: messages.combinations]
    doubtful = first != NONE
    doubtful[doubtful] = guarded[first[doubtful]]
    doubtful &= messages.counts > 1
    wanted = np.zeros(messages.combinations, bool)
    if messages.counts[doubtful].sum() <= messages.total * _FEW:
        wanted |= doubtful
    wanted[np.flatnonzero(numbered.test[: messages.combinations] != NONE)] = True
    detached = numbered.detached[:, 0]
    wanted[detached[detached < messages.combinations]] = True
    messages.take_all(session, np.flatnonzero(wanted))
    rounds = 0
    while True:
        places = messages.places
        found = resolve(numbered, before, rules, places.combination, places.at, guarded)
        refused = np.flatnonzero(found.refused[: messages.combinations] & (messages.counts > 1))
        rounds += 1
        if not messages.take_all(session, refused, everything=rounds >= _PATIENCE):
            break
    taken = rules.facts.taken
    return outcome.name_profiles(
        session, space_id, collection, numbered, touched, found, places, taken
    )
