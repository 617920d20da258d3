"""What the specification adds to the FAQ's examples and the worked cases."""

from __future__ import annotations

import datetime as dt
import hashlib

from personas_dagster.identity.rules import IdentityRules, TypeRule
from tests.identity.asked import DAY, dropped, held
from tests.identity.conftest import NewGraph
from tests.identity.graph import Graph, Message, message


def test_a_profile_id_follows_from_its_first_message(graph: Graph) -> None:
    graph.take(message(1, userId="u1", anonymousId="a1"))
    (profile,) = graph.rows("SELECT profile_id FROM stored_profiles")
    text = "\x1f".join(["test", "users", "7", "user_id", "u1"])
    assert profile["profile_id"] == hashlib.md5(text.encode()).hexdigest()


def test_an_account_joins_no_users(graph: Graph) -> None:
    graph.take(
        message(1, userId="u1", kind="group", groupId="g"),
        message(2, userId="u2", context={"groupId": "g"}),
        message(3, userId="u2", context={"externalIds": [{"id": "g", "type": "group_id"}]}),
    )
    assert held(graph) == [{"user_id:u1"}, {"user_id:u2"}]
    assert held(graph, "accounts") == [{"group_id:g"}]
    links = graph.rows("SELECT first_message_id, last_message_id FROM graph_links ORDER BY 1")
    assert [tuple(link.values()) for link in links] == [("m0001", "m0001"), ("m0002", "m0003")]


def test_account_links_follow_merges(graph: Graph) -> None:
    graph.take(message(1, userId="u", context={"groupId": "g"}),
               message(2, anonymousId="a", context={"groupId": "g"}))  # fmt: skip
    graph.take(message(3, userId="u", anonymousId="a"))
    assert len(graph.rows("SELECT * FROM graph_links")) == 1


def test_the_same_message_id_twice(graph: Graph) -> None:
    """`events` lets a messageId come back after `dedupe_days`."""
    later: Message = message(1, userId="u2", at=30 * DAY)
    graph.take(message(1, userId="u1"), later)
    rows = graph.rows("SELECT profile_id FROM events", "events")
    assert len(rows) == 2 == len({row["profile_id"] for row in rows})


def test_a_late_message_finds_its_window_in_the_past(new_graph: NewGraph) -> None:
    graph = new_graph(IdentityRules(types={"anonymous_id": TypeRule(None, 1, "day")}))
    graph.take(message(1, userId="u", anonymousId="a1", at=10 * DAY))
    graph.take(message(2, userId="u", anonymousId="a2", at=5 * DAY))
    assert dropped(graph) == []
    assert first_seen(graph, "a2") == dt.datetime(2024, 1, 6, tzinfo=dt.UTC)


def first_seen(graph: Graph, value: str) -> dt.datetime:
    (row,) = graph.rows(f"SELECT first_seen_at FROM identifiers WHERE value = '{value}'")
    found: dt.datetime = row["first_seen_at"]
    return found


def test_hubs_are_named_by_how_many_they_would_join(new_graph: NewGraph) -> None:
    graph = new_graph(IdentityRules(hub_degree=3))
    graph.land([message(n, userId=f"u{n % 5}", anonymousId="kiosk") for n in range(1, 20)])
    proposal = graph.propose()
    assert proposal is not None
    assert proposal.hubs == [{"type": "anonymous_id", "value": "kiosk", "degree": 5}]


def test_a_load_reads_only_the_profiles_that_it_touches(graph: Graph) -> None:
    """Those that its identifiers are on, and those that merge with them."""
    graph.take(*(message(n, userId=f"u{n}", anonymousId=f"a{n}") for n in range(1, 51)))
    graph.land([message(60, userId="u7", anonymousId="new"), message(61, anonymousId="a8")])
    proposal = graph.propose()
    assert proposal is not None and proposal.touched_profiles == 2
