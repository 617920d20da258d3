"""A decision replays the component of its identifier, and leaves what a whole rebuild leaves."""

from __future__ import annotations

import random

import pytest

from personas_dagster.identity.deciding import Deciding, decide
from tests.identity.conftest import NewGraph
from tests.identity.graph import NOW, Graph, message
from tests.identity.nasty import RULES
from tests.identity.test_identity_facts import Both
from tests.identity.test_identity_oracle import LENGTH, worlds
from tests.identity.test_identity_rebuild import digests


@pytest.mark.parametrize("name", ["windows", "upside down"])
def test_what_is_left_is_what_a_whole_rebuild_leaves(name: str, new_graph: NewGraph) -> None:
    """Worlds share no identifier: at most one of them is replayed for each decision."""
    rng, both = random.Random(name), Both(new_graph(RULES[name]))
    found = worlds(name, count=30)
    for part in (found[:200], found[200:]):
        both.take(*part)
    for what, collection in (("detach", "users"), ("delete", "users"), ("detach", "accounts"),
                             ("detach", "users")):  # fmt: skip
        held = sorted(both.oracle.holders.items(), key=lambda one: str(one[0]))
        crowded = [i for (c, i), profile in held if c == collection and len(profile.seen) > 1]
        both.decide(what, *rng.choice(crowded), collection=collection)
        rebuilt = both.graph.rebuilt
        assert rebuilt is not None and 0 < rebuilt.messages <= LENGTH
        both.same()
    alone = both.graph.tables(), digests(both.graph)
    assert both.graph.rebuild().messages == len(found)
    assert (both.graph.tables(), digests(both.graph)) == alone


def test_those_whom_protection_kept_apart_are_replayed_too(both: Both) -> None:
    """The tablet was u1's: without it there, the message of u2 keeps it, and so u3's does not."""
    both.take(
        message(1, userId="u1", anonymousId="tablet"),
        message(2, userId="u1", anonymousId="phone"),
        message(3, userId="u2", anonymousId="tablet"),
        message(4, userId="u3", anonymousId="tablet", properties={"email": "e@x.com"}),
        message(5, properties={"email": "e@x.com"}, anonymousId="own"),
        message(6, userId="far", anonymousId="away"),
    )
    both.decide("detach", "anonymous_id", "tablet")
    assert both.graph.rebuilt is not None and both.graph.rebuilt.messages == 5
    assert frozenset({"user_id:u2", "anonymous_id:tablet"}) in both.people()


def test_a_value_that_is_on_no_profile_connects(both: Both) -> None:
    """A sixth e-mail address that two people lost: when one has room for it, they meet by it."""
    for who, start in (("u1", 10), ("u2", 20)):
        both.take(*(message(start + n, userId=who, properties={"email": f"{who}{n}@x.com"})
                    for n in range(5)))  # fmt: skip
    both.take(message(30, userId="u1", properties={"email": "sixth@x.com"}),
              message(31, userId="u2", properties={"email": "sixth@x.com"}))  # fmt: skip
    both.decide("delete", "email", "u10@x.com")
    assert both.graph.rebuilt is not None and both.graph.rebuilt.messages == 12
    both.same()


def test_the_next_load_goes_on_from_what_is_left(both: Both) -> None:
    """Also by the columns that stand for texts, and the digests that it carries on."""
    group = {"context": {"groupId": "g"}}
    both.take(message(1, userId="u1", anonymousId="a", **group), message(2, userId="u2", **group),
              message(3, anonymousId="b", **group))  # fmt: skip
    both.decide("detach", "anonymous_id", "a")
    for table, prefixes in (("profiles", ["profile"]), ("identifiers", ["key", "profile"]),
                            ("account_links", ["user", "account"])):  # fmt: skip
        empty = " OR ".join(f"{one}_high IS NULL OR {one}_low IS NULL" for one in prefixes)
        assert both.graph.rows(f"SELECT * FROM {table} WHERE {empty}", table) == []
    last = [message(4, userId="u2", anonymousId="a", **group),
            message(5, userId="u2", anonymousId="b", **group)]  # fmt: skip
    both.oracle.take(last)
    assert both.graph.take(*last).digests == digests(both.graph)
    both.same()


def test_decisions_that_wait_are_carried_out_together(both: Both) -> None:
    both.take(message(1, userId="u1", anonymousId="a"), message(2, userId="u2", anonymousId="b"),
              message(3, userId="u3", anonymousId="c"))  # fmt: skip
    graph = both.graph
    place = Deciding(graph.lake, graph.engine, graph.state, "test", NOW)
    for value in "ab":
        decide(place, "detach", ("users", "anonymous_id", value), graph.rules)
    rebuilt = graph.run_due()
    assert rebuilt is not None and rebuilt.messages == 2 and graph.run_due() is None
    for value in "ab":
        both.oracle.decide("detach", "users", "anonymous_id", value, NOW)
    both.same()


def test_a_rebuild_that_was_asked_for_too_replays_everything(both: Both) -> None:
    both.take(message(1, userId="u1", anonymousId="a"), message(2, userId="u2"))
    graph = both.graph
    place = Deciding(graph.lake, graph.engine, graph.state, "test", NOW)
    decide(place, "detach", ("users", "anonymous_id", "a"), graph.rules)
    assert graph.rebuild(graph.rules).messages == 2
    both.oracle.decide("detach", "users", "anonymous_id", "a", NOW)
    both.same()


@pytest.fixture
def both(graph: Graph) -> Both:
    return Both(graph)
