"""The identity graph on the command line: decide, look first, rebuild, simulate, ask why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from personas_dagster.samples.receiver import Receiver
from tests.cli.running import Personas

DAY = "2026-01-{:02}T00:00:00Z"


def said(number: int, **fields: Any) -> dict[str, Any]:
    at = DAY.format(number)
    return {"messageId": f"m{number}", "type": "track", "event": "Order Completed",
            "receivedAt": at, "timestamp": at, **fields}  # fmt: skip


@pytest.fixture
def shop(personas: Personas, place: Any) -> Personas:
    """u1 and a kiosk that u1 and others use; buyers are who ordered twice."""
    place.define({"audiences/buyers": "event('Order Completed').count() >= 2"})
    rows = [
        said(1, userId="u1", anonymousId="kiosk"),
        said(2, anonymousId="kiosk"),
        said(3, userId="u2"),
    ]
    assert personas("ingest", place.messages(*rows, name="first.jsonl")).code == 0
    ended = personas("refresh", "--as-of", DAY.format(10))
    assert ended.code == 0, ended.err
    return personas


def graph(personas: Personas) -> set[frozenset[str]]:
    return {
        frozenset(f"{i['type']}:{i['id']}" for i in row["external_ids"])
        for row in personas("identity", "export").rows
    }


def people(*ids: str) -> set[frozenset[str]]:
    return {frozenset(one.split()) for one in ids}


def test_detach_shows_first_and_needs_an_answer(shop: Personas) -> None:
    ended = shop("identity", "detach", "anonymous_id:kiosk")
    assert ended.code == 1 and "add --yes to do it" in ended.err
    figures, example = ended.rows
    assert (figures["profiles_before"], figures["profiles_after"]) == (2, 3)
    assert figures["merges_avoided"] == 1 and example["example"] == "split"
    assert example["after"] == [[{"type": "anonymous_id", "id": "kiosk"}],
                                [{"type": "user_id", "id": "u1"}]]  # fmt: skip
    assert graph(shop) == people("user_id:u1 anonymous_id:kiosk", "user_id:u2")


def test_detach_publishes_the_graph_and_what_is_computed_on_it(shop: Personas, place: Any) -> None:
    assert shop("query", "event('Order Completed').count() >= 2").rows[0]["external_ids"] == {
        "user_id": ["u1"], "anonymous_id": ["kiosk"]
    }  # fmt: skip
    ended = shop("identity", "detach", "anonymous_id:kiosk", "--yes", "--reason", "shared")
    assert ended.code == 0, ended.err
    (row,) = ended.rows
    assert row["decision"] == "detach" and row["rows"]["profiles"] == 3 and row["digests"]
    assert graph(shop) == people("user_id:u1", "anonymous_id:kiosk", "user_id:u2")
    profile = shop("profile", "user_id:u1").rows[0]
    assert "buyers" not in str(profile["audiences"])
    ended = shop("identity", "detach", "anonymous_id:kiosk", "--yes")
    assert ended.code == 1 and "only identifier of its profile" in ended.err
    (found,) = shop("identity", "explain", "user_id:u1", "anonymous_id:kiosk").rows
    assert not found["one_profile"]
    (decision,) = found["decisions"]
    assert (decision["what"], decision["reason"]) == ("detach", "shared")
    # The rebuild that follows keeps it.
    before = shop("identity", "export").out
    ended = shop("identity", "rebuild")
    assert ended.code == 0 and ended.rows[0]["digests"] == row["digests"]
    assert shop("identity", "export").out == before


def test_explain_tells_of_a_decision_between_two(shop: Personas, place: Any) -> None:
    beside = said(4, anonymousId="kiosk", properties={"email": "e@x.com"})
    shop("ingest", place.messages(beside, name="second.jsonl"))
    assert shop("refresh", "--as-of", DAY.format(11)).code == 0
    assert shop("identity", "detach", "anonymous_id:kiosk", "--yes", "--reason", "shared").code == 0
    (found,) = shop("identity", "explain", "user_id:u1", "email:e@x.com").rows
    assert [drop["message_id"] for drop in found["drops"]] == ["m1", "m4"]
    (decision,) = found["decisions"]
    assert (decision["what"], decision["reason"]) == ("detach", "shared")


def test_delete_an_identifier(shop: Personas) -> None:
    ended = shop("identity", "delete", "user_id:u1", "--yes")
    assert ended.code == 1 and "last user_id" in ended.err
    ended = shop("identity", "delete", "group_id:g", "--yes")
    assert ended.code == 1 and "names an account" in ended.err
    assert shop("identity", "delete", "anonymous_id:kiosk", "--yes").code == 0
    assert graph(shop) == people("user_id:u1", "user_id:u2")


def test_show_what_is_on_record(shop: Personas, place: Any) -> None:
    shop("identity", "block", "email:team@x.com", "--reason", "a team")
    join = said(4, userId="u2", anonymousId="own"), said(5, anonymousId="own", userId="u1")
    alone = said(3, messageId="alone", anonymousId="own")
    shop("ingest", place.messages(alone, *join, name="second.jsonl"))
    assert shop("refresh", "--as-of", DAY.format(11)).code == 0
    (merge,) = shop("identity", "show", "merges").rows
    assert merge["message_id"] == "m4"
    assert merge["identifiers"] == [{"type": "user_id", "id": "u2"},
                                    {"type": "anonymous_id", "id": "own"}]  # fmt: skip
    (drop,) = shop("identity", "show", "dropped").rows
    assert (drop["message_id"], drop["limit_broken"]) == ("m5", "user_id: 1 ever")
    assert drop["identifier"] == {"type": "anonymous_id", "id": "own"}
    assert merge["parent_id"] in drop["profiles_apart"] and len(drop["profiles_apart"]) == 2
    newest, first = shop("identity", "show", "loads").rows
    assert (newest["messages"], newest["counts"]["merges"], first["messages"]) == (3, 1, 3)
    assert newest["dropped_by_limit"] == {"user_id: 1 ever": 1}
    assert set(newest["digests"]) == set(first["digests"]) >= {"profiles", "merges"}
    assert len(shop("identity", "show", "loads", "--limit", "1").rows) == 1
    (decision,) = shop("identity", "show", "decisions").rows
    assert (decision["what"], decision["reason"]) == ("block", "a team")


def test_show_hubs(personas: Personas, place: Any) -> None:
    place.write("assets/identity.yaml", "hub_degree: 2\n")
    rows = [said(n, userId=f"u{n}", anonymousId="kiosk") for n in range(1, 5)]
    personas("ingest", place.messages(*rows, name="first.jsonl"))
    assert personas("refresh", "--as-of", DAY.format(10)).code == 0
    (hub,) = personas("identity", "show", "hubs").rows
    assert hub["identifier"] == {"type": "anonymous_id", "id": "kiosk"} and hub["degree"] == 4
    assert hub["decision"] is None
    personas("identity", "block", "anonymous_id:kiosk")
    assert personas("identity", "show", "hubs").rows[0]["decision"] == "block"


def test_block_and_allow(shop: Personas, place: Any) -> None:
    (row,) = shop("identity", "block", "anonymous_id:kiosk", "--reason", "a kiosk").rows
    assert row["decision"] == "block" and row["by"]
    late = said(4, userId="u2", anonymousId="kiosk")
    shop("ingest", place.messages(late, said(5, anonymousId="kiosk"), name="second.jsonl"))
    assert shop("refresh", "--as-of", DAY.format(11)).code == 0
    assert graph(shop) == people("user_id:u1 anonymous_id:kiosk", "user_id:u2")
    ended = shop("identity", "block", "anonymous_id:kiosk")
    assert ended.code == 1 and "is blocked already" in ended.err
    assert shop("identity", "allow", "anonymous_id:kiosk").rows[0]["decision"] == "allow"


def test_simulate_changes_nothing(shop: Personas, tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("types:\n  anonymous_id: {blocked: [kiosk]}\n")
    before = shop("identity", "export").out
    ended = shop("identity", "simulate", "--rules", rules)
    assert ended.code == 0, ended.err
    figures, *rest = ended.rows
    assert figures["profiles_before"] == figures["profiles_after"] == 2
    assert figures["identifiers_lost"] == 1
    assert {"audience": "buyers", "before": 1, "after": 0} in rest
    assert shop("identity", "export").out == before
    rules.write_text("max_merges: few\n")
    ended = shop("identity", "simulate", "--rules", rules)
    assert ended.code == 1 and "rules.yaml:1:" in ended.err
    ended = shop("identity", "simulate", "--rules", tmp_path / "none.yaml")
    assert ended.code == 1 and "is not a file" in ended.err


def test_rebuild_by_time_shows_first_what_would_change(shop: Personas, place: Any) -> None:
    """A message that came late had been too late to be the first of the kiosk."""
    late = said(1, messageId="late", userId="u2", anonymousId="kiosk",
                receivedAt="2025-12-31T00:00:00Z", timestamp="2025-12-31T00:00:00Z")  # fmt: skip
    shop("ingest", place.messages(late, name="late.jsonl"))
    assert shop("refresh", "--as-of", DAY.format(12)).code == 0
    ended = shop("identity", "rebuild", "--by-time")
    assert ended.code == 1 and ended.rows[0]["merges_made"] == ended.rows[0]["merges_avoided"] == 1
    ended = shop("identity", "rebuild", "--by-time", "--yes")
    assert ended.code == 0, ended.err
    assert graph(shop) == people("user_id:u2 anonymous_id:kiosk", "user_id:u1")


def test_an_identifier_that_is_none(shop: Personas) -> None:
    ended = shop("identity", "detach", "kiosk")
    assert ended.code == 1 and "expected TYPE:VALUE" in ended.err
    ended = shop("identity", "explain", "user_id:u1", "user_id:nobody")
    assert ended.code == 1 and "user_id:nobody is on no profile" in ended.err


def test_a_destination_is_told_what_a_detachment_changes(personas: Personas, place: Any) -> None:
    """u1 was a buyer by what others did at the kiosk: the tool hears that it is none."""
    place.define({"audiences/buyers": "event('Order Completed').count() >= 2"})
    with Receiver() as tool:
        place.write("resources/destinations/hook.yaml",
                    json.dumps({"type": "webhook", "settings": {"url": tool.url}}))  # fmt: skip
        place.write("sensors/connections/to_hook.yaml",
                    "audience: buyers\ndestination: hook\n")  # fmt: skip
        assert personas("refresh", "--as-of", DAY.format(1)).code == 0
        assert personas("sync").code == 0
        rows = [said(1, userId="u1", anonymousId="kiosk"), said(2, anonymousId="kiosk")]
        personas("ingest", place.messages(*rows, name="first.jsonl"))
        assert personas("refresh", "--as-of", DAY.format(10)).code == 0
        assert personas("sync").code == 0
        told = [str(one) for one in tool.messages]
        assert len(told) == 2 and all("'buyers': True" in one for one in told), told
        tool.clear()
        ended = personas("identity", "detach", "anonymous_id:kiosk", "--yes")
        assert ended.code == 0, ended.err
        assert personas("sync", "--allow", "to_hook", "--reason", "detached").code == 0
        told = [str(one) for one in tool.messages]
        assert len(told) == 2 and all("'buyers': False" in one for one in told), told
        assert "u1" in "".join(told)
