"""The examples of the Personas FAQ that concern identity, one by one."""

from __future__ import annotations

import pytest

from personas_dagster.identity.rules import IdentityRules
from tests.identity.asked import dropped, held, owner
from tests.identity.graph import Graph, message


@pytest.mark.parametrize("platform", ["ios", "android"])
def test_faq_external_ids_are_collected_without_code(graph: Graph, platform: str) -> None:
    """Device, token and user level; the common ones; those across domains."""
    device = {"type": platform, "id": "d", "advertisingId": "ad", "adTrackingEnabled": True,
              "token": "t"}  # fmt: skip
    graph.rules = IdentityRules(cross_domain_id=True)
    graph.take(
        message(1, userId="u", anonymousId="a", kind="identify",
                traits={"email": "e@x.com", "crossDomainId": "x"},
                context={"device": device, "Braze": {"braze_id": "b"},
                         "integrations": {"Google Analytics": {"clientId": "ga"}}})
    )  # fmt: skip
    assert held(graph) == [
        {"user_id:u", "anonymous_id:a", "email:e@x.com", "cross_domain_id:x", "ga_client_id:ga",
         "braze_id:b", f"{platform}.id:d", f"{platform}.idfa:ad", f"{platform}.push_token:t"}
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["identify", "track"])
def test_faq_a_custom_id_in_external_ids(graph: Graph, kind: str) -> None:
    listed = {"externalIds": [{"id": "42", "type": "card", "collection": "users",
                               "encoding": "none"}]}  # fmt: skip
    graph.take(message(1, userId="u", kind=kind, context=listed),
               message(2, anonymousId="a", kind=kind, context=listed))  # fmt: skip
    assert held(graph) == [{"user_id:u", "card:42", "anonymous_id:a"}]


def test_faq_all_matching_is_deterministic(graph: Graph) -> None:
    """Two who look like one person in everything but an identifier stay two."""
    twin = {"name": "Ann Lee", "phone": "1", "address": {"city": "Ulm"}}
    graph.take(*(message(n, userId=f"u{n}", kind="identify", traits=twin) for n in (1, 2)))
    assert held(graph) == [{"user_id:u1"}, {"user_id:u2"}]


def test_faq_all_merged_users_become_children_of_the_first(graph: Graph) -> None:
    listed = {"externalIds": [{"id": f"a{n}", "type": "anonymous_id"} for n in (2, 3)]}
    graph.take(*(message(n, anonymousId=f"a{n}") for n in (1, 2, 3)),
               message(4, anonymousId="a1", context=listed))  # fmt: skip
    rows = graph.rows(
        "SELECT p.first_message_id AS parent, c.first_message_id AS child FROM merges m "
        "JOIN stored_profiles p ON p.profile_id = m.parent_id "
        "JOIN stored_profiles c ON c.profile_id = m.child_id ORDER BY child"
    )
    assert [tuple(row.values()) for row in rows] == [("m0001", "m0002"), ("m0001", "m0003")]


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
