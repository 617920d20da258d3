"""The examples of the Personas FAQ and the worked cases of the survey (B1 to B21)."""

from __future__ import annotations

import datetime as dt
import hashlib
from typing import Any

import pytest

from personas_dagster.identity.rules import IdentityRules, TypeRule
from tests.identity.conftest import NewGraph
from tests.identity.graph import Graph, Message, message

DAY = 86_400


def held(graph: Graph, collection: str = "users") -> list[set[str]]:
    """The identifiers of each profile, `type:value`, the oldest profile first."""
    rows = graph.rows(
        "SELECT p.created_at, list(i.type || ':' || i.value) AS ids FROM graph_profiles p "
        "JOIN graph_identifiers i USING (profile_id) "
        f"WHERE p.collection = '{collection}' "
        "GROUP BY p.profile_id, p.created_at ORDER BY p.created_at"
    )
    return [set(row["ids"]) for row in rows]


def dropped(graph: Graph) -> list[tuple[str, str]]:
    rows = graph.rows(
        "SELECT type || ':' || value AS id, limit_broken FROM dropped_identifiers "
        "ORDER BY received_at, limit_broken, type, value",
        "dropped_identifiers",
    )
    return [(row["id"], row["limit_broken"]) for row in rows]


def owner(graph: Graph, number: int) -> set[str]:
    """What the profile of a message holds now."""
    rows = graph.rows(
        "SELECT i.type || ':' || i.value AS id FROM events e "
        "JOIN graph_roots r ON r.profile_id = e.profile_id "
        f"JOIN graph_identifiers i ON i.profile_id = r.root_id WHERE message_id = 'm{number:04}'",
        "events",
    )
    return {row["id"] for row in rows}


def emails(*values: str) -> dict[str, Any]:
    return {"externalIds": [{"id": v, "type": "email", "encoding": "none"} for v in values]}


# The FAQ


def test_faq_no_user_found_creates_one(graph: Graph) -> None:
    graph.take(message(1, anonymousId="a1"))
    assert held(graph) == [{"anonymous_id:a1"}]


def test_faq_one_user_found_is_chosen(graph: Graph) -> None:
    graph.take(message(1, anonymousId="a1"), message(2, anonymousId="a1", userId="u1"))
    assert held(graph) == [{"anonymous_id:a1", "user_id:u1"}]


def test_faq_several_users_found_merge_into_the_first_created(graph: Graph) -> None:
    graph.take(
        message(1, anonymousId="a1"),
        message(2, userId="u1"),
        message(3, userId="u1", anonymousId="a1"),
    )
    (merge,) = graph.rows("SELECT m.*, p.first_message_id FROM merges m "
                          "JOIN stored_profiles p ON p.profile_id = m.parent_id")  # fmt: skip
    assert merge["first_message_id"] == "m0001" and merge["message_id"] == "m0003"
    assert held(graph) == [{"anonymous_id:a1", "user_id:u1"}]


def test_faq_merge_protection_discards_the_lowest_id(graph: Graph) -> None:
    """`a1` is not reset during a logout (B2.2)."""
    graph.take(
        message(1, userId="u1", anonymousId="a1"),
        message(2, userId="u2", anonymousId="a1"),
        message(3, anonymousId="a1"),
    )
    assert held(graph) == [{"user_id:u1", "anonymous_id:a1"}, {"user_id:u2"}]
    assert dropped(graph) == [("anonymous_id:a1", "user_id: 1 ever")]
    assert owner(graph, 3) == {"user_id:u1", "anonymous_id:a1"}


def test_faq_a_team_mailbox_joins_nobody(graph: Graph) -> None:
    team = {"email": "team@company.com"}
    graph.take(*(message(n, userId=f"u{n}", kind="identify", traits=team) for n in range(1, 6)))
    assert [ids & {"email:team@company.com"} for ids in held(graph)][1:] == [set()] * 4


# The survey's cases


def test_b2_1_the_new_user_keeps_the_trait(graph: Graph) -> None:
    jane = {"email": "jane@x.com"}
    graph.take(
        message(1, userId="abc123", kind="identify", traits=jane),
        message(2, userId="abc456", kind="identify", traits=jane),
    )
    assert held(graph) == [{"user_id:abc123", "email:jane@x.com"}, {"user_id:abc456"}]
    assert owner(graph, 2) == {"user_id:abc456"}
    (row,) = graph.rows("SELECT traits FROM events WHERE message_id = 'm0002'", "events")
    assert "jane@x.com" in row["traits"]


def test_b2_3_demoted_message_goes_to_the_email_holder(graph: Graph) -> None:
    graph.take(
        message(1, userId="u1", anonymousId="a1"),
        message(2, userId="u2", context=emails("e2")),
        message(3, anonymousId="a1", context=emails("e2")),
    )
    assert owner(graph, 3) == {"user_id:u2", "email:e2"}
    assert len(held(graph)) == 2


def test_b2_4_a_sixth_email_is_left_out(graph: Graph) -> None:
    graph.take(*(message(n, userId="u1", context=emails(f"e{n}")) for n in range(1, 7)))
    assert held(graph) == [{"user_id:u1", *(f"email:e{n}" for n in range(1, 6))}]
    assert dropped(graph) == [("email:e6", "email: 5 ever")]


def test_b2_5_the_later_of_two_values_is_left_out(new_graph: NewGraph) -> None:
    graph = new_graph(IdentityRules(types={"email": TypeRule(2, 1)}))
    graph.take(message(1, userId="u1", context=emails("first", "second")))
    assert held(graph) == [{"user_id:u1", "email:first"}]


def test_b3_default_priorities() -> None:
    rules = IdentityRules()
    kinds = ["anonymous_id", "ga_client_id", "email", "user_id", "ios.idfa"]
    ordered = ["user_id", "email", "anonymous_id", "ga_client_id", "ios.idfa"]
    assert sorted(kinds, key=rules.rank) == ordered
    assert sorted([*kinds, "android.id"], key=rules.rank)[2] == "android.id"


def test_b4_a_window_that_expires(new_graph: NewGraph) -> None:
    graph = new_graph(IdentityRules(types={"anonymous_id": TypeRule(None, 5, "week")}))
    graph.take(*(message(n, userId="u1", anonymousId=f"a{n}", at=n) for n in range(1, 6)))
    graph.take(message(6, userId="u1", anonymousId="a6", at=3 * DAY))
    assert dropped(graph) == [("anonymous_id:a6", "anonymous_id: 5 per week")]
    graph.take(message(7, userId="u1", anonymousId="a6", at=8 * DAY))
    assert len(dropped(graph)) == 1 and "anonymous_id:a6" in held(graph)[0]


@pytest.mark.parametrize(("seconds", "taken"), [(7 * DAY - 1, False), (7 * DAY, True)])
def test_a_window_is_open_at_its_start(new_graph: NewGraph, seconds: int, taken: bool) -> None:
    graph = new_graph(IdentityRules(types={"anonymous_id": TypeRule(None, 1, "week")}))
    graph.take(message(1, userId="u1", anonymousId="a1", at=DAY))
    graph.take(message(2, userId="u1", anonymousId="a2", at=DAY + seconds))
    assert ("anonymous_id:a2" in held(graph)[0]) is taken


@pytest.mark.parametrize("value", ["", "0", "00-00", "-1", "null", "anonymous", " null "])
def test_b5_blocked_values(graph: Graph, value: str) -> None:
    graph.take(message(1, userId="u1", anonymousId=value), message(2, anonymousId=value or "0"))
    assert held(graph) == [{"user_id:u1"}]
    assert owner(graph, 2) == set()


def test_b6_an_unknown_type_is_taken_up(graph: Graph) -> None:
    listed = {"externalIds": [{"id": 15.0, "type": "card", "collection": "users",
                               "encoding": "none"}]}  # fmt: skip
    graph.take(message(1, userId="u1", context=listed))
    assert held(graph) == [{"user_id:u1", "card:15"}]


def test_b6_keys_match_in_both_spellings(new_graph: NewGraph) -> None:
    graph = new_graph(IdentityRules(keys={"phone": ("phone_number",)}))
    graph.take(
        message(1, userId="u1", properties={"phoneNumber": 49}),
        message(2, anonymousId="a1", kind="identify", traits={"phone_number": "49"}),
    )
    assert held(graph) == [{"user_id:u1", "phone:49", "anonymous_id:a1"}]


@pytest.mark.parametrize("platform", ["ios", "Android"])
def test_b7_advertising_ids_ask_for_tracking(graph: Graph, platform: str) -> None:
    for number, tracking in enumerate((True, False, "true"), 1):
        device = {"type": platform, "advertisingId": f"ad{number}", "adTrackingEnabled": tracking}
        graph.take(message(number, userId=f"u{number}", context={"device": device}))
    assert held(graph) == [
        {"user_id:u1", f"{platform.lower()}.idfa:ad1"}, {"user_id:u2"}, {"user_id:u3"}
    ]  # fmt: skip


def test_b7_email_from_three_places_but_not_of_a_group(graph: Graph) -> None:
    graph.take(
        message(1, userId="u1", kind="identify", traits={"email": " A@x.com"}),
        message(2, userId="u2", context={"traits": {"email": "b@x.com"}}),
        message(3, userId="u3", properties={"email": "c@x.com"}),
        message(4, userId="u4", kind="group", groupId="g", traits={"email": "info@x.com"}),
    )
    assert held(graph) == [
        {"user_id:u1", "email:a@x.com"}, {"user_id:u2", "email:b@x.com"},
        {"user_id:u3", "email:c@x.com"}, {"user_id:u4"},
    ]  # fmt: skip


def test_b8_a_merge_beyond_the_cap_is_refused(new_graph: NewGraph) -> None:
    graph = new_graph(IdentityRules(max_merges=2, types={"anonymous_id": TypeRule(None, 100)}))
    alone = [message(n, anonymousId=f"a{n}") for n in range(1, 5)]
    joined = [message(10 + n, userId="u", anonymousId=f"a{n}") for n in range(1, 5)]
    graph.take(*alone, *joined)
    assert dropped(graph) == [("anonymous_id:a4", "profile: at most 2 merges")]
    assert "user_id:u" in owner(graph, 14)


def test_b8_an_identifier_beyond_the_cap_is_left_out(new_graph: NewGraph) -> None:
    graph = new_graph(IdentityRules(max_identifiers=2))
    graph.take(message(1, userId="u", anonymousId="a"), message(2, userId="u", anonymousId="b"))
    assert held(graph) == [{"user_id:u", "anonymous_id:a"}]
    assert dropped(graph) == [("anonymous_id:b", "profile: at most 2 identifiers")]


def test_b13_messages_keep_the_profile_of_the_moment(graph: Graph) -> None:
    graph.take(
        message(1, anonymousId="a1"), message(2, anonymousId="a2"), message(3, anonymousId="a3"),
        message(4, userId="u", anonymousId="a3"), message(5, userId="u", anonymousId="a2"),
        message(6, userId="u", anonymousId="a1"),
    )  # fmt: skip
    rows = graph.rows("SELECT message_id, profile_id FROM events ORDER BY 1", "events")
    assert len({row["profile_id"] for row in rows[:3]}) == 3
    roots = graph.rows("SELECT DISTINCT root_id FROM graph_roots")
    assert len(roots) == 1 and len(graph.rows("SELECT * FROM merges")) == 2


def test_b14_an_alias_joins_nothing(graph: Graph) -> None:
    graph.take(
        message(1, anonymousId="a1"),
        message(2, userId="u1", kind="alias", previousId="a1", anonymousId="a1"),
    )
    assert held(graph) == [{"anonymous_id:a1"}, {"user_id:u1"}]


def test_an_alias_may_merge(new_graph: NewGraph) -> None:
    graph = new_graph(IdentityRules(alias="merge", types={"user_id": TypeRule(1, 2)}))
    graph.take(
        message(1, anonymousId="a1"),
        message(2, userId="u1", kind="alias", previousId="a1"),
        message(3, userId="u2", kind="alias", previousId="u1"),
    )
    assert held(graph) == [{"anonymous_id:a1", "user_id:u1", "user_id:u2"}]


def test_b15_pairs_do_not_run_together(graph: Graph) -> None:
    for number, (kind, value) in enumerate(
        [("ab", "c"), ("a", "bc"), ("a", "b\x1fc"), ("a\x1fb", "c")], 1
    ):
        listed = {"externalIds": [{"id": value, "type": kind}]}
        graph.take(message(number, context=listed))
    assert len(graph.rows("SELECT DISTINCT profile_id FROM stored_profiles")) == 4


def test_b16_tighter_rules_split_nothing(graph: Graph) -> None:
    graph.take(*(message(n, userId="u", context=emails(f"e{n}")) for n in range(1, 4)))
    graph.rules = IdentityRules(types={"email": TypeRule(2, 1)})
    graph.take(message(4, userId="u", context=emails("e1")))
    assert dropped(graph) == []
    graph.take(message(5, userId="u", context=emails("e4")))
    assert dropped(graph) == [("email:e4", "email: 1 ever")]
    assert len(held(graph)[0]) == 4


def test_b18_equal_instants_are_ordered_by_message_id(graph: Graph) -> None:
    graph.take(message(2, at=5, userId="u2", anonymousId="a"),
               message(1, at=5, userId="u1", anonymousId="a"))  # fmt: skip
    assert {"user_id:u1", "anonymous_id:a"} in held(graph)


def test_b21_two_people_with_one_email_trait(graph: Graph) -> None:
    same = {"email": "same@x.com"}
    graph.take(*(message(n, userId=f"u{n}", kind="identify", traits=same) for n in (1, 2)))
    rows = graph.rows("SELECT DISTINCT profile_id FROM events WHERE traits LIKE '%same%'", "events")
    assert len(rows) == 2


# What the spec adds


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
