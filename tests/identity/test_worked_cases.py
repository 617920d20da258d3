"""The worked cases of the survey that concern identity (A14, B1 to B21, and its complaints)."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from personas_dagster.identity.rules import IdentityRules, TypeRule
from tests.identity.asked import DAY, dropped, emails, held, owner
from tests.identity.conftest import NewGraph
from tests.identity.graph import Graph, message
from tests.place import Place


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


def test_a14_an_alias_joins_nothing(graph: Graph) -> None:
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


def test_b1_flat_matching(graph: Graph) -> None:
    """No match creates, one attaches, several merge."""
    graph.take(message(1, userId="u"), message(2, userId="u", anonymousId="a"))
    graph.take(message(3, anonymousId="b"))
    graph.take(message(4, userId="u", anonymousId="b"))
    assert held(graph) == [{"user_id:u", "anonymous_id:a", "anonymous_id:b"}]
    assert len(graph.rows("SELECT * FROM merges")) == 1


def test_b8_the_hundred_and_first_merge_is_refused(new_graph: NewGraph) -> None:
    """The default caps; the message goes to the profile that its higher identifier matched."""
    lifted = {"anonymous_id": TypeRule(None, 2000)}
    graph = new_graph(IdentityRules(types=lifted, max_profile_identifiers=2000))
    alone = [message(n, anonymousId=f"a{n}") for n in range(1, 102)]
    joined = [message(1000 + n, userId="u", anonymousId=f"a{n}") for n in range(1, 102)]
    grown = [message(2000 + n, userId="u", anonymousId=f"new{n}") for n in range(1, 901)]
    graph.take(message(0, userId="u", at=0.5), *alone, *joined, *grown)
    assert dropped(graph) == [
        ("anonymous_id:a101", "profile: at most 100 merges"),
        ("anonymous_id:new900", "profile: at most 1000 identifiers"),
    ]
    assert len(owner(graph, 1101)) == 1000


@pytest.mark.parametrize("seed", [1, 2])
def test_b10_without_limits_any_order_gives_the_same_people(new_graph: NewGraph, seed: int) -> None:
    """And the survivor is always the profile that was created first."""
    rng = random.Random(seed)
    told = [{"anonymousId": f"a{rng.randrange(12)}", "userId": f"u{rng.randrange(9)}"}
            for _ in range(10)]  # fmt: skip
    told += [{"anonymousId": f"a{n}"} for n in range(12)]
    found = []
    for _ in range(2):
        rng.shuffle(told)
        lifted = {kind: TypeRule(None, 100) for kind in ("user_id", "anonymous_id")}
        graph = new_graph(IdentityRules(types=lifted))
        graph.take(*(message(n, **fields) for n, fields in enumerate(told, 1)))
        found.append({frozenset(ids) for ids in held(graph)})
        oldest = graph.rows(
            "SELECT r.root_id, min_by(r.profile_id, p.created_at) AS first FROM graph_roots r "
            "JOIN stored_profiles p USING (profile_id) GROUP BY r.root_id"
        )
        assert all(row["root_id"] == row["first"] for row in oldest)
    assert found[0] == found[1]


def test_b17_emails_are_compared_in_lower_case_and_nothing_else(graph: Graph) -> None:
    listed = [{"externalIds": [{"id": text, "type": "card"}]} for text in ("AB1", "ab1")]
    graph.take(
        message(1, userId="Ann", properties={"email": " Ann@X.com"}),
        message(2, anonymousId="a", properties={"email": "ann@x.COM"}),
        message(3, userId="ann"),
        message(4, userId="c1", context=listed[0]),
        message(5, userId="c2", context=listed[1]),
    )
    assert held(graph) == [
        {"user_id:Ann", "email:ann@x.com", "anonymous_id:a"}, {"user_id:ann"},
        {"user_id:c1", "card:AB1"}, {"user_id:c2", "card:ab1"},
    ]  # fmt: skip


def test_b18_the_same_log_gives_the_same_digests(new_graph: NewGraph) -> None:
    """Another order of the same messages may not: limits take who comes first."""
    log = [message(n, userId=f"u{n}", anonymousId="shared") for n in (1, 2, 3)]
    first, again = (new_graph().take(*found).digests for found in (log, log[::-1]))
    assert first == again
    other = new_graph()
    other.take(*(message(n, at=10 - n, userId=f"u{n}", anonymousId="shared") for n in (1, 2, 3)))
    assert held(other)[0] == {"user_id:u3", "anonymous_id:shared"}


def test_b20_a_contested_id_stays_with_its_first_owner_and_is_listed(graph: Graph) -> None:
    graph.take(*(message(n, userId=f"u{n}", anonymousId="tablet") for n in (1, 2, 3)),
               message(4, anonymousId="tablet"))  # fmt: skip
    assert owner(graph, 4) == {"user_id:u1", "anonymous_id:tablet"}
    contested = graph.rows("SELECT DISTINCT type, value FROM dropped_identifiers",
                           "dropped_identifiers")  # fmt: skip
    assert contested == [{"type": "anonymous_id", "value": "tablet"}]


def test_b21_an_audience_on_the_trait_has_both(new_place: Callable[[], Place]) -> None:
    place = new_place()
    place.define({"audiences/same": "trait('email') = 'same@x.com'"})
    said = {"type": "identify", "timestamp": "2026-02-01T00:00:00Z",
            "receivedAt": "2026-02-01T00:00:00Z", "traits": {"email": "same@x.com"}}  # fmt: skip
    space = place.refresh(*({**said, "messageId": f"m{n}", "userId": f"u{n}"} for n in (1, 2)))
    with space.session() as session:
        members = session.fetch("SELECT * FROM members WHERE audience = 'same'")
    assert members.num_rows == 2


# The complaints


@pytest.mark.parametrize("alias", ["ignore", "merge"])
def test_complaint_1_an_alias_of_two_known_people_joins_nobody(
    new_graph: NewGraph, alias: str
) -> None:
    """One way to merge, with the same rules, whatever message asks for it."""
    graph = new_graph(IdentityRules(alias=alias))
    graph.take(message(1, userId="u1"), message(2, userId="u2"),
               message(3, userId="u1", previousId="u2", kind="alias"))  # fmt: skip
    assert held(graph) == [{"user_id:u1"}, {"user_id:u2"}]


def test_complaint_3_the_creator_of_a_profile_can_be_split_off(graph: Graph) -> None:
    graph.take(message(1, anonymousId="a"), message(2, userId="u", anonymousId="a"),
               message(3, userId="u", properties={"email": "e@x.com"}))  # fmt: skip
    graph.decide("detach", "anonymous_id", "a")
    assert held(graph) == [{"anonymous_id:a"}, {"user_id:u", "email:e@x.com"}]
    assert owner(graph, 2) == {"user_id:u", "email:e@x.com"}


def test_complaint_8_a_sentinel_joins_nobody_and_is_told(new_graph: NewGraph) -> None:
    """Five who signed up in tabs that shared an anonymous id."""
    graph = new_graph(IdentityRules(hub_degree=4))
    graph.land([message(n, userId=f"u{n}", anonymousId="sentinel") for n in range(1, 6)])
    proposal = graph.propose()
    assert proposal is not None
    assert [(hub["value"], hub["degree"]) for hub in proposal.hubs] == [("sentinel", 5)]
    graph.run()
    assert held(graph) == [{"user_id:u1", "anonymous_id:sentinel"},
                           *({f"user_id:u{n}"} for n in range(2, 6))]  # fmt: skip


@pytest.mark.parametrize("kind", ["anonymous_id", "ga_client_id"])
def test_complaints_9_and_10_what_survives_a_logout_joins_nobody(graph: Graph, kind: str) -> None:
    google = {"integrations": {"Google Analytics": {"clientId": "kept"}}}
    kept = {"anonymousId": "kept"} if kind == "anonymous_id" else {"context": google}
    graph.take(message(1, userId="u1", **kept), message(2, userId="u2", **kept))
    assert held(graph) == [{"user_id:u1", f"{kind}:kept"}, {"user_id:u2"}]
