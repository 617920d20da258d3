"""Each check that guards merges, provoked; and what becomes of a refused load."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from personas_dagster.errors import CheckFailed, PersonasError
from personas_dagster.identity import loads
from personas_dagster.identity.deciding import Deciding, let_refused_pass
from personas_dagster.identity.guard import CHECKS
from personas_dagster.identity.rules import IdentityRules, TypeRule
from personas_dagster.lake import TABLES
from tests.identity.graph import NOW, Graph, Message, assert_same, message
from tests.identity.oracle import Oracle

Row = dict[str, Any]
PEOPLE = [
    message(1, userId="u1", anonymousId="a1"),
    message(2, userId="u2", anonymousId="a2", context={"groupId": "g"}),
    message(3, anonymousId="a3"),
]
JOIN = message(4, userId="u1", anonymousId="a3")


def plant(graph: Graph, table: str, change: Callable[[list[Row]], list[Row]]) -> None:
    """Change the candidates that wait."""
    name = f"candidate_{table}"
    with graph.engine.session(graph.lake) as session:
        session.view(name)
        rows = session.fetch(f"SELECT * FROM {name} ORDER BY ALL").to_pylist()
    graph.lake.replace(name, pa.Table.from_pylist(change(rows), schema=TABLES[name].schema))


def failed(graph: Graph) -> dict[str, tuple[str, ...]]:
    """The checks that the candidates fail, and whom they name."""
    verdict = graph.check()
    assert verdict is not None and set(CHECKS) == {f.check for f in verdict.findings}
    return {f.check: f.sample for f in verdict.findings if not f.passed}


@pytest.fixture
def proposed(graph: Graph) -> Graph:
    """Three people in the graph; two of them are to be joined by a load that waits."""
    graph.take(*PEOPLE)
    graph.land([JOIN, message(5, userId="u5", anonymousId="a5")])
    graph.propose()
    return graph


def test_candidates_that_nobody_touched_pass(proposed: Graph) -> None:
    assert failed(proposed) == {}


def test_above_limit_by_identifiers(proposed: Graph) -> None:
    def onto_one_profile(rows: list[Row]) -> list[Row]:
        return [
            *rows,
            *({**rows[0], "type": "user_id", "value": f"x{n}"} for n in range(2)),
        ]

    plant(proposed, "identifiers", onto_one_profile)
    (sample,) = failed(proposed)["above_limit"]
    assert sample == "user_id:u5 (3 on one profile, limit 1)"


def test_above_limit_by_a_merge(proposed: Graph) -> None:
    (other,) = proposed.rows("SELECT profile_id FROM identifiers WHERE value = 'u2'")
    plant(proposed, "merges", lambda rows: [{**rows[0], "child_id": other["profile_id"]}])
    (sample,) = failed(proposed)["above_limit"]
    assert sample.startswith("user_id joined by") and '"id":"a3"' in sample


def test_an_identifier_on_two_profiles(proposed: Graph) -> None:
    plant(proposed, "identifiers", lambda rows: [*rows, {**rows[0], "value": "a1"}])
    assert failed(proposed)["shared_identifier"] == ("anonymous_id:a1",)


@pytest.mark.parametrize("long", [False, True])
def test_a_cycle(proposed: Graph, long: bool) -> None:
    def circle(rows: list[Row]) -> list[Row]:
        (row,) = rows
        back = {**row, "parent_id": row["child_id"], "child_id": row["parent_id"]}
        if not long:
            return [row, back]
        names = [row["parent_id"], *(f"p{n}" for n in range(300)), row["parent_id"]]
        return [{**row, "parent_id": p, "child_id": c} for p, c in zip(names, names[1:])]  # noqa: B905

    plant(proposed, "merges", circle)
    assert "u1" in failed(proposed)["cycle"][0]


def test_a_second_parent(graph: Graph) -> None:
    graph.take(*PEOPLE, JOIN)
    graph.land([message(6, userId="u2", anonymousId="a6"), message(7, anonymousId="a7")])
    graph.propose()
    (merge,) = graph.rows("SELECT * FROM merges")
    (other,) = graph.rows("SELECT profile_id FROM identifiers WHERE value = 'u2'")
    again = {**merge, "parent_id": other["profile_id"]}
    plant(graph, "merges", lambda rows: [again])
    assert "cycle" in failed(graph)


def test_a_message_without_its_profile(proposed: Graph) -> None:
    plant(proposed, "profiles", lambda rows: [])
    assert failed(proposed)["missing_profile"] == ("user_id:u5",)


def test_a_blob_is_named_once(graph: Graph) -> None:
    lifted = {"anonymous_id": TypeRule(None, 1000)}
    graph.rules = IdentityRules(types=lifted, max_profile_identifiers=10)
    graph.take(*(message(n, userId="u", anonymousId=f"a{n}") for n in range(1, 9)))
    graph.land([message(n, userId="u", anonymousId=f"a{n}") for n in range(9, 30)])
    graph.propose()
    (sample,) = failed(graph)["blob"]
    assert sample == "anonymous_id:a10 (30 identifiers, 9 before)"
    graph.rules = IdentityRules(types=lifted)
    graph.run()
    # It is past the size already: what comes later is not held up.
    graph.rules = IdentityRules(types=lifted, max_profile_identifiers=10)
    graph.take(message(31, userId="u", anonymousId="a31"))


@pytest.mark.parametrize("value", ["", " ", None, "0000", "null", "guest"])
def test_values_that_are_none(proposed: Graph, value: str | None) -> None:
    blocked = {"*": (re.compile("^[0-]*$"), "null"), "anonymous_id": (re.compile(r"^gues\w$"),)}
    proposed.rules = IdentityRules(blocked=blocked)
    plant(proposed, "identifiers", lambda rows: [*rows[1:], {**rows[0], "value": value}])
    assert failed(proposed)["bad_value"] == (f"anonymous_id:{'null' if value is None else value}",)


def many(first: int, merged: int) -> list[Message]:
    """1,000 messages, of which some join two anonymous people of their own."""
    found = []
    for number in range(first, first + 1000):
        spot = number - first
        pair, third = divmod(spot, 3)
        ids = {"anonymousId": f"alone-{number}"}
        if pair < merged:
            name = f"{first}-{pair}"
            both = {"anonymousId": name, "userId": name}
            ids = [{"anonymousId": name}, {"userId": name}, both][third]
        found.append(message(number, **ids))
    return found


@pytest.mark.parametrize(("earlier", "refused"), [(4, False), (5, True)])
def test_merge_share_against_the_trailing_loads(graph: Graph, earlier: int, refused: bool) -> None:
    for load in range(earlier):
        graph.take(*many(1000 * load, merged=10))
    graph.land(many(9000, merged=100))
    graph.propose()
    verdict = graph.check()
    assert verdict is not None and verdict.passed is not refused
    if refused:
        assert "median of earlier loads" in verdict.reason
        assert "anonymous_id:9000-0 (1 merges)" in verdict.reason


def test_small_loads_are_not_judged_by_share(graph: Graph) -> None:
    for load in range(5):
        graph.take(*many(1000 * load, merged=10))
    graph.take(*many(9000, merged=100)[:300])


# What becomes of a load


def test_a_refused_load_stays_out_and_is_taken_up_again(graph: Graph) -> None:
    graph.take(*PEOPLE)
    before = graph.tables()
    graph.rules = IdentityRules(max_profile_identifiers=2)
    graph.land([JOIN])
    graph.propose()
    assert "blob" in failed(graph)
    with pytest.raises(CheckFailed, match=r"anonymous_id.*mend the identity rules"):
        graph.apply()
    assert graph.settle() == 0 and graph.tables() == before
    # The next run takes it up again with what came since, under the rules as they are then.
    graph.rules = IdentityRules()
    graph.land([message(6, userId="u6")])
    proposal = graph.propose()
    assert proposal is not None and proposal.messages == 2
    graph.run()
    oracle = Oracle(IdentityRules())
    oracle.take(PEOPLE)
    oracle.take([JOIN, message(6, userId="u6")])
    assert_same(graph, oracle)


def let_pass(graph: Graph) -> None:
    let_refused_pass(Deciding(graph.lake, graph.engine, graph.state, "test", NOW, "ann", "checked"))


def test_a_person_lets_a_refused_load_pass_once(graph: Graph) -> None:
    graph.take(*PEOPLE)
    graph.rules = IdentityRules(max_profile_identifiers=2)
    with pytest.raises(PersonasError, match="no load was refused"):
        let_pass(graph)
    graph.land([JOIN])
    graph.propose()
    assert "blob" in failed(graph)
    let_pass(graph)
    # Its messages pass, with what came since; the decision is spent by that.
    graph.land([message(6, userId="u6")])
    graph.run()
    oracle = Oracle(graph.rules)
    oracle.take(PEOPLE)
    oracle.take([JOIN, message(6, userId="u6")])
    assert_same(graph, oracle)
    graph.land([message(7, userId="u2", anonymousId="a7")])
    graph.propose()
    assert "blob" in failed(graph)


def test_what_would_break_the_graph_never_passes(proposed: Graph) -> None:
    plant(proposed, "identifiers", lambda rows: [*rows, {**rows[0], "value": "a1"}])
    assert "shared_identifier" in failed(proposed)
    with pytest.raises(PersonasError, match=r"would break the graph \(shared_identifier\)"):
        let_pass(proposed)


def test_nothing_is_applied_unchecked(proposed: Graph) -> None:
    before = proposed.tables()
    with pytest.raises(CheckFailed, match="has not been checked"):
        proposed.apply()
    assert proposed.tables() == before


def test_a_verdict_holds_for_its_own_candidates_only(proposed: Graph) -> None:
    """What passed is proposed anew when more has come, and must pass again."""
    proposed.check()
    proposed.land([message(8, userId="u8")])
    proposed.propose()
    with pytest.raises(CheckFailed, match="has not been checked"):
        proposed.apply()


def test_no_new_messages(graph: Graph) -> None:
    graph.take(*PEOPLE)
    assert graph.propose() is None
    assert graph.check() is None and graph.apply() is None and graph.settle() == 0


def test_digests_are_carried_as_they_are_taken(graph: Graph) -> None:
    for part in (PEOPLE, [JOIN], [message(9, userId="u2", anonymousId="a1")]):
        applied = graph.take(*part)
        with graph.engine.session(graph.lake) as session:
            assert loads.graph_digests(session) == applied.digests
