"""What a person asks of the graph."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa

from personas_dagster.errors import PersonasError
from personas_dagster.identity.decisions import decisions
from personas_dagster.identity.explain import Explanation, explain
from personas_dagster.identity.export import export
from personas_dagster.identity.replaying import recorded_loads
from personas_dagster.identity.rules import IdentityRules, TypeRule
from personas_dagster.identity.views import prepare, profiles
from personas_dagster.state.schema import identity_loads
from tests.identity.conftest import NewGraph
from tests.identity.graph import Graph, message
from tests.identity.nasty import RULES
from tests.identity.test_identity_oracle import worlds
from tests.place import Place


def why(graph: Graph, a: str, b: str) -> Explanation:
    with graph.engine.session(graph.lake) as session:
        prepare(session)
        left, right = (tuple(name.split(":", 1)) for name in (a, b))
        loads, decided = recorded_loads(graph.state), decisions(graph.state)
        return explain(session, loads, decided, left, right)  # type: ignore[arg-type]


def exported(graph: Graph, **chosen: Any) -> list[dict[str, Any]]:
    with graph.engine.session(graph.lake) as session:
        prepare(session)
        return list(export(session, **chosen))


def test_explain_a_chain_of_messages(graph: Graph) -> None:
    graph.take(
        message(1, userId="u1", anonymousId="a1"),
        message(2, anonymousId="a2"),
        message(3, userId="u1", anonymousId="a2"),
        message(4, anonymousId="a2", properties={"email": "e@x.com"}),
        message(5, userId="u1", anonymousId="a1"),
    )
    found = why(graph, "anonymous_id:a1", "email:e@x.com")
    assert found.is_one_profile
    assert [step.message_id for step in found.chain] == ["m0001", "m0003", "m0004"]
    assert found.chain[1].identifiers == (("user_id", "u1"), ("anonymous_id", "a2"))
    assert why(graph, "user_id:u1", "user_id:u1").chain == ()


def test_explain_leaves_out_what_was_removed(new_graph: NewGraph) -> None:
    """The message that named both was refused; they came together later, by another way."""
    graph = new_graph(IdentityRules(types={"user_id": TypeRule(1, 1, "day")}))
    graph.take(message(1, userId="u1", anonymousId="a1"))
    graph.take(message(2, userId="u2", anonymousId="a1"))
    graph.take(message(3, userId="u1", anonymousId="b", at=3 * 86_400))
    graph.take(message(4, userId="u2", anonymousId="b", at=4 * 86_400))
    chain = why(graph, "user_id:u2", "anonymous_id:a1").chain
    assert [step.message_id for step in chain] == ["m0004", "m0003", "m0001"]


def test_explain_names_no_identifier_that_was_blocked_then(graph: Graph) -> None:
    """The first message named it too, but joined nothing by it: it came to the profile later."""
    graph.decide("block", "anonymous_id", "kiosk")
    graph.take(message(1, userId="u1", anonymousId="kiosk", properties={"email": "e@x.com"}))
    graph.decide("allow", "anonymous_id", "kiosk")
    graph.take(message(2, anonymousId="kiosk", properties={"email": "e@x.com"}))
    found = why(graph, "user_id:u1", "anonymous_id:kiosk")
    assert [step.message_id for step in found.chain] == ["m0001", "m0002"]
    assert found.chain[0].identifiers == (("user_id", "u1"), ("email", "e@x.com"))


def test_explain_reads_each_message_by_the_rules_of_its_load(graph: Graph) -> None:
    blocked = {"email": ("e@x.com",)}
    graph.rules = IdentityRules(blocked=blocked)
    graph.take(message(1, userId="u1", anonymousId="a", properties={"email": "e@x.com"}))
    graph.rules = IdentityRules()
    graph.take(message(2, anonymousId="a", properties={"email": "e@x.com"}))
    chain = why(graph, "user_id:u1", "email:e@x.com").chain
    assert [step.message_id for step in chain] == ["m0001", "m0002"]
    # Blocked later, it still is what joined them then.
    graph.rules = IdentityRules(blocked=blocked)
    graph.take(message(3, userId="u3"))
    assert why(graph, "user_id:u1", "email:e@x.com").chain == chain


def test_explain_what_kept_two_apart(graph: Graph) -> None:
    graph.take(
        message(1, userId="u1", anonymousId="a1"),
        message(2, userId="u2", anonymousId="a1"),
        message(3, userId="u3"),
    )
    found = why(graph, "user_id:u1", "user_id:u2")
    assert not found.is_one_profile
    (drop,) = found.drops
    assert (drop.message_id, drop.identifier) == ("m0002", ("anonymous_id", "a1"))
    assert drop.limit_broken == "user_id: 1 ever"
    assert why(graph, "user_id:u1", "user_id:u3").drops == ()


def test_explain_what_a_detachment_keeps_apart(graph: Graph) -> None:
    """A device named beside both: nobody else's message names the two."""
    for number in (1, 11):
        graph.take(
            message(number, userId="u1", anonymousId="kiosk"),
            message(number + 1, anonymousId="kiosk", properties={"email": "e@x.com"}),
            message(number + 2, anonymousId="other", properties={"email": "f@x.com"}),
        )
    assert why(graph, "user_id:u1", "email:e@x.com").is_one_profile
    graph.decide("detach", "anonymous_id", "kiosk")
    graph.take(message(20, anonymousId="kiosk"))
    found = why(graph, "user_id:u1", "email:e@x.com")
    assert not found.is_one_profile
    kiosk = ("anonymous_id", "kiosk")
    assert [(drop.message_id, drop.identifier, drop.limit_broken) for drop in found.drops] == [
        ("m0001", kiosk, "detached"),
        ("m0002", kiosk, "detached"),
    ]
    # Beside its own profile, each message that it was taken from.
    found = why(graph, "user_id:u1", "anonymous_id:kiosk")
    assert [drop.message_id for drop in found.drops] == ["m0001", "m0011"]
    assert why(graph, "user_id:u1", "email:f@x.com").drops == ()


def test_explain_an_unknown_identifier(graph: Graph) -> None:
    graph.take(message(1, userId="u1"))
    with pytest.raises(PersonasError, match="user_id:nobody is on no profile"):
        why(graph, "user_id:u1", "user_id:nobody")


@pytest.mark.parametrize("name", ["aliases merge", "windows"])
def test_explain_finds_a_chain_in_any_profile(name: str, new_graph: NewGraph) -> None:
    graph = new_graph(RULES[name])
    graph.take(*worlds(name, count=25))
    for profile in exported(graph)[:60]:
        ids = [f"{one['type']}:{one['id']}" for one in profile["external_ids"]]
        found = why(graph, ids[0], ids[-1])
        assert found.is_one_profile
        assert len(found.chain) > 0 or len(ids) == 1


@pytest.mark.parametrize("name", ["aliases merge", "windows"])
def test_profiles_are_counted(name: str, new_graph: NewGraph) -> None:
    """From how many there ever were and how many are others' now."""
    graph = new_graph(RULES[name])
    graph.take(*worlds(name, count=25))
    with graph.engine.session(graph.lake) as session:
        prepare(session)
        (row,) = session.fetch("SELECT count(*) AS n FROM graph_profiles").to_pylist()
        assert profiles(session) == row["n"]


def test_export(graph: Graph) -> None:
    graph.take(
        message(1, anonymousId="a1"),
        message(2, userId="u1", context={"groupId": "g"}),
        message(3, userId="u1", anonymousId="a1"),
    )
    (profile,) = exported(graph)
    (merge,) = graph.rows("SELECT * FROM merges")
    assert profile == {
        "profile_id": merge["parent_id"],
        "external_ids": [
            {"type": "anonymous_id", "id": "a1"},
            {"type": "user_id", "id": "u1"},
        ],
        "merged": [merge["child_id"]],
    }
    (account,) = exported(graph, collection="accounts")
    assert account["external_ids"] == [{"type": "group_id", "id": "g"}]


def test_totals_where_the_last_load_recorded_none(graph: Graph) -> None:
    """As an earlier version left it: the graph is counted once."""
    graph.take(message(1, userId="u1", anonymousId="a1"), message(2, groupId="g", anonymousId="a2"))
    with graph.state.begin() as connection:
        connection.execute(sa.update(identity_loads).values(totals=None))
    applied = graph.take(message(3, userId="u1", anonymousId="a2"), message(4, userId="u2"))
    assert applied.totals == {
        "profiles": {"users": 2, "accounts": 1},
        "identifiers": {"user_id": 2, "anonymous_id": 2, "group_id": 1},
    }


def test_a_load_without_a_message(place: Place) -> None:
    at = "2026-02-01T10:00:00Z"
    ids = {"messageId": "1", "userId": "u1", "anonymousId": "a1"}
    place.take(place.messages({"type": "page", "timestamp": at, "receivedAt": at, **ids}))
    assert place.take(place.messages()).accepted == 0
    with place.space.bare_session(place.space.lake) as session:
        found = session.fetch("SELECT value FROM graph_identifiers").column("value").to_pylist()
    assert set(found) == {"u1", "a1"}
