"""What people decide about identifiers, against the sequential reading that knows the same."""

from __future__ import annotations

import datetime as dt
import random
from pathlib import Path

import pytest

from personas_dagster.errors import PersonasError
from personas_dagster.identity.rules import IdentityRules, TypeRule
from tests.identity.conftest import NewGraph
from tests.identity.graph import NOW, START, Graph, Message, assert_same, message
from tests.identity.nasty import RULES
from tests.identity.oracle import Oracle
from tests.identity.test_identity_oracle import worlds

HOUR = 3600
LATER = START + dt.timedelta(hours=1)


class Both:
    """The production path and the sequential reading, driven together."""

    def __init__(self, graph: Graph) -> None:
        self.graph, self.oracle = graph, Oracle(graph.rules)

    def take(self, *messages: Message) -> None:
        self.oracle.rules = self.graph.rules
        self.oracle.take(list(messages))
        self.graph.take(*messages)

    def decide(self, what: str, kind: str, value: str, **options: object) -> None:
        at = options.get("at", NOW)
        collection = options.get("collection", "users")
        self.graph.decide(what, kind, value, collection=collection, at=at)  # type: ignore[arg-type]
        self.oracle.decide(what, collection, kind, value, at)  # type: ignore[arg-type]

    def rebuild(self, rules: IdentityRules | None = None, *, by_time: bool = False) -> None:
        self.graph.rebuild(rules, by_time=by_time)
        self.oracle.rebuild(rules, by_time=by_time)

    def same(self) -> None:
        assert_same(self.graph, self.oracle)

    def people(self) -> set[frozenset[str]]:
        """Profiles as sets of identifiers."""
        self.same()
        held: dict[str, set[str]] = {}
        for (_, (kind, value)), profile in self.oracle.holders.items():
            held.setdefault(profile.profile_id, set()).add(f"{kind}:{value}")
        return {frozenset(ids) for ids in held.values()}


@pytest.fixture
def both(graph: Graph) -> Both:
    return Both(graph)


def people(*ids: str) -> set[frozenset[str]]:
    return {frozenset(one.split()) for one in ids}


SHARED = [
    message(1, userId="u1", anonymousId="kiosk"),
    message(2, anonymousId="kiosk", properties={"email": "e@x.com"}),
    message(3, userId="u1", anonymousId="own"),
    message(4, anonymousId="kiosk"),
]


def test_a_detached_identifier_is_dropped_beside_its_company_and_free_otherwise(
    both: Both,
) -> None:
    both.take(*SHARED)
    both.decide("detach", "anonymous_id", "kiosk")
    expected = people("user_id:u1 anonymous_id:own", "email:e@x.com", "anonymous_id:kiosk")
    assert both.people() == expected
    # It may join others, and is dropped beside its former company for good.
    both.take(message(5, userId="u1", anonymousId="kiosk"),
              message(6, userId="u2", anonymousId="kiosk"))  # fmt: skip
    expected = people(
        "user_id:u1 anonymous_id:own", "email:e@x.com", "anonymous_id:kiosk user_id:u2"
    )
    assert both.people() == expected
    rows = both.graph.rows(
        "SELECT message_id FROM dropped_identifiers WHERE limit_broken = 'detached' ORDER BY 1",
        "dropped_identifiers",
    )
    assert [row["message_id"] for row in rows] == ["m0001", "m0002", "m0005"]


def test_a_detachment_survives_a_rebuild(both: Both) -> None:
    both.take(*SHARED)
    both.decide("detach", "anonymous_id", "kiosk")
    both.take(message(5, userId="u2", anonymousId="kiosk"))
    before = both.graph.tables()
    both.rebuild(both.graph.rules)
    assert both.graph.tables() == before
    both.same()


def test_a_second_detachment_adds_to_the_first(both: Both) -> None:
    both.take(*SHARED)
    both.decide("detach", "anonymous_id", "kiosk")
    both.take(message(5, userId="u2", anonymousId="kiosk"))
    both.decide("detach", "anonymous_id", "kiosk")
    assert frozenset({"anonymous_id:kiosk"}) in both.people()
    both.take(message(6, userId="u1", anonymousId="kiosk"),
              message(7, userId="u2", anonymousId="kiosk"))  # fmt: skip
    assert frozenset({"anonymous_id:kiosk"}) in both.people()


def test_ids_taken_before_are_not_given_again(both: Both) -> None:
    both.take(message(1, anonymousId="kiosk"), message(2, userId="u1", anonymousId="kiosk"))
    (before,) = {row[0] for row in both.graph.tables()["profiles"]}
    both.decide("detach", "anonymous_id", "kiosk")
    both.same()
    after = {row[0] for row in both.graph.tables()["profiles"]}
    assert len(after) == 2 and before not in after


def test_a_deleted_identifier_is_ignored_up_to_the_deletion(both: Both) -> None:
    both.take(
        message(1, userId="u1", anonymousId="a"),
        message(2, userId="u1", properties={"email": "e@x.com"}),
        message(3, anonymousId="a"),
    )
    both.decide("delete", "anonymous_id", "a", at=LATER)
    assert both.people() == people("user_id:u1 email:e@x.com")
    # A late message too; one that is received later brings it back, as somebody new.
    both.take(message(4, anonymousId="a", at=50), message(5, anonymousId="a", at=2 * HOUR))
    assert both.people() == people("user_id:u1 email:e@x.com", "anonymous_id:a")
    assert [t for t in both.graph.tables()["events"] if t[0] == "m0004"] == [("m0004", None, None)]
    both.rebuild(both.graph.rules)
    both.same()


def test_a_deletion_at_the_instant_of_a_message(both: Both) -> None:
    both.take(message(1, anonymousId="a"))
    both.decide("delete", "anonymous_id", "a", at=LATER)
    micro = dt.timedelta(microseconds=1)
    both.take({**message(2, anonymousId="a"), "receivedAt": LATER},
              {**message(3, anonymousId="a"), "receivedAt": LATER + micro})  # fmt: skip
    assert {t[0]: t[1] is None for t in both.graph.tables()["events"]} == {
        "m0001": True, "m0002": True, "m0003": False
    }  # fmt: skip
    both.same()


def test_a_deleted_identifier_that_created_a_profile_comes_back_under_another_id(
    both: Both,
) -> None:
    both.take(message(1, anonymousId="a"))
    before = {row[0] for row in both.graph.tables()["profiles"]}
    both.decide("delete", "anonymous_id", "a", at=LATER)
    both.take(message(2, anonymousId="a", at=2 * HOUR))
    both.same()
    assert not before & {row[0] for row in both.graph.tables()["profiles"]}


def test_block_and_allow_hold_for_the_loads_that_come_later(both: Both) -> None:
    both.take(message(1, userId="u1", anonymousId="kiosk"))
    both.decide("block", "anonymous_id", "kiosk")
    both.take(message(2, userId="u2", anonymousId="kiosk"), message(3, anonymousId="kiosk"))
    assert both.people() == people("user_id:u1 anonymous_id:kiosk", "user_id:u2")
    both.decide("allow", "anonymous_id", "kiosk")
    both.take(message(4, userId="u3", properties={"email": "e@x.com"}),
              message(5, anonymousId="kiosk", properties={"email": "e@x.com"}))  # fmt: skip
    before = both.graph.tables()
    both.rebuild(both.graph.rules)
    assert both.graph.tables() == before
    both.same()


def test_by_time_decisions_hold_from_their_instant(both: Both) -> None:
    both.take(message(1, userId="u1", anonymousId="kiosk"))
    both.decide("block", "anonymous_id", "kiosk", at=START + dt.timedelta(seconds=50))
    both.take(message(2, userId="u2", anonymousId="kiosk", at=40),
              message(3, userId="u3", anonymousId="kiosk", at=60))  # fmt: skip
    both.decide("allow", "anonymous_id", "kiosk", at=START + dt.timedelta(seconds=80))
    both.take(message(4, anonymousId="kiosk", at=70), message(5, anonymousId="kiosk", at=90))
    both.rebuild(both.graph.rules, by_time=True)
    both.same()
    of = {t[0]: t[1] for t in both.graph.tables()["events"]}
    assert of["m0004"] is None and of["m0005"] == of["m0001"]
    # It is one load from now on, and replays as such.
    before = both.graph.tables()
    both.rebuild()
    assert both.graph.tables() == before
    both.take(message(6, userId="u1", anonymousId="later", at=100))
    both.same()


def test_a_rebuild_takes_the_rules_of_now(both: Both) -> None:
    both.take(message(1, userId="u1", anonymousId="a"))
    both.graph.rules = IdentityRules(types={"user_id": TypeRule(1, 2)})
    both.take(message(2, userId="u2", anonymousId="a"), message(3, userId="u9", anonymousId="b"))
    assert both.people() == people(
        "user_id:u1 user_id:u2 anonymous_id:a", "user_id:u9 anonymous_id:b"
    )
    both.rebuild(IdentityRules())
    assert people("user_id:u1 anonymous_id:a", "user_id:u2") < both.people()
    # Decisions replay each load under the rules that it has now.
    both.decide("detach", "anonymous_id", "b")
    both.same()


def test_detaching_keeps_the_rules_of_each_load(both: Both) -> None:
    both.take(message(1, userId="u1", anonymousId="a"), message(2, userId="u2", anonymousId="a"))
    both.graph.rules = IdentityRules(types={"user_id": TypeRule(1, 2)})
    both.take(message(3, userId="u5", anonymousId="b"), message(4, userId="u6", anonymousId="b"))
    both.decide("detach", "anonymous_id", "a")
    assert people("user_id:u1", "user_id:u2", "anonymous_id:a",
                  "user_id:u5 user_id:u6 anonymous_id:b") != both.people()  # fmt: skip
    assert frozenset({"user_id:u5", "user_id:u6", "anonymous_id:b"}) in both.people()


def test_an_account_identifier(both: Both) -> None:
    listed = {"externalIds": [{"id": "7", "type": "vat", "collection": "accounts"}]}
    both.take(message(1, userId="u", groupId="g", context=listed))
    both.decide("detach", "vat", "7", collection="accounts")
    both.same()
    assert len([row for row in both.graph.tables()["profiles"] if row[1] == "accounts"]) == 1


@pytest.mark.parametrize("what", ["detach", "delete"])
def test_an_identifier_that_is_on_no_profile(graph: Graph, what: str) -> None:
    graph.take(message(1, userId="u"))
    with pytest.raises(PersonasError, match="anonymous_id:x is on no user's profile"):
        graph.decide(what, "anonymous_id", "x")


def test_what_cannot_be_decided(graph: Graph) -> None:
    graph.take(message(1, userId="u"))
    with pytest.raises(PersonasError, match="only identifier of its profile"):
        graph.decide("detach", "user_id", "u")
    with pytest.raises(PersonasError, match=r"blocked by the rules.*identity\.yaml"):
        graph.decide("allow", "anonymous_id", "null")
    graph.decide("block", "anonymous_id", "x")
    with pytest.raises(PersonasError, match="anonymous_id:x is blocked already"):
        graph.decide("block", "anonymous_id", "x")


@pytest.mark.postgres
def test_on_postgresql(tmp_path: Path, postgres_url: str) -> None:
    both = Both(Graph(tmp_path, url=postgres_url))
    try:
        both.take(*SHARED)
        both.decide("block", "email", "e@x.com")
        both.take(message(5, userId="u2", properties={"email": "e@x.com"}))
        both.decide("detach", "anonymous_id", "kiosk")
        both.decide("delete", "anonymous_id", "own", at=LATER)
        both.take(message(6, userId="u2", anonymousId="own", at=2 * HOUR))
        both.rebuild(both.graph.rules, by_time=True)
        both.same()
    finally:
        both.graph.state.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", RULES)
def test_decisions_among_nasty_streams(name: str, new_graph: NewGraph) -> None:
    rng, at = random.Random(name), START
    both = Both(new_graph(RULES[name]))
    found = worlds(name, count=50)
    for start in range(0, len(found), 350):
        both.take(*found[start : start + 350])
        for what in ("detach", "block", "delete", "allow", "detach"):
            last = max(m["receivedAt"] for m in found[: start + 350])
            at = max(at, last + dt.timedelta(days=rng.choice([-3, 0, 2])))
            held = sorted(both.oracle.holders.items(), key=lambda one: str(one[0]))
            crowded = [name for name, profile in held if len(profile.seen) > 2]
            collection, (kind, value) = rng.choice(crowded)
            if both.oracle.is_blocked(kind, value):
                continue
            both.graph.decide(what, kind, value, collection=collection, at=at)
            both.oracle.decide(what, collection, kind, value, at)
    both.same()
    assert {fact["what"] for fact in both.oracle.decided} == {"detach", "delete", "block", "allow"}
    before = both.graph.tables()
    both.rebuild()
    assert both.graph.tables() == before
    both.rebuild(RULES[name], by_time=True)
    both.same()
