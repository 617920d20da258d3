"""A rebuild replays what happened, whatever that was."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from personas_dagster.errors import LakeUnavailable
from personas_dagster.identity.deciding import Deciding, decide, let_refused_pass
from personas_dagster.identity.loads import GRAPH_TABLES, graph_digests
from personas_dagster.identity.rules import IdentityRules
from tests.identity.conftest import NewGraph
from tests.identity.graph import NOW, Graph, Message, assert_same, message
from tests.identity.nasty import RULES
from tests.identity.oracle import Oracle
from tests.identity.test_identity_oracle import worlds


def digests(graph: Graph) -> dict[str, str]:
    with graph.engine.session(graph.lake) as session:
        return graph_digests(session)


def test_late_and_refused_loads_included(graph: Graph) -> None:
    """The same ids and digests as the history of loads that it replays."""
    strict = IdentityRules(max_profile_identifiers=3)
    team = {"email": "team@x.com"}
    graph.take(message(10, userId="u1", anonymousId="a1"), message(11, userId="u2"))
    graph.take(message(5, userId="u2", anonymousId="a1"))  # late: it finds u1's device taken
    # Refused, and taken up again with what came since.
    graph.rules = strict
    listed = {"externalIds": [{"id": str(n), "type": "card"} for n in range(3)]}
    graph.land([message(20, userId="u3", anonymousId="a3", context=listed)])
    graph.propose()
    verdict = graph.check()
    assert verdict is not None and not verdict.passed
    graph.rules = IdentityRules()
    graph.take(message(15, userId="u2", anonymousId="a3"), message(21, anonymousId="a3"))
    # Refused, and let pass by a person.
    graph.rules = strict
    graph.land([message(30, userId="u4", anonymousId="a4", kind="identify", traits=team,
                        context=listed)])  # fmt: skip
    graph.propose()
    graph.check()
    let_refused_pass(Deciding(graph.lake, graph.engine, graph.state, "test", NOW, "ann", "seen"))
    applied = graph.take(message(31, anonymousId="a4", properties=team))
    before = graph.tables()
    assert len(before["events"]) == 8 and before["dropped_identifiers"]
    graph.rebuild()
    assert graph.tables() == before and digests(graph) == applied.digests
    graph.rebuild(IdentityRules())  # with the rules of now, which are those of each load
    assert digests(graph) == applied.digests


@contextmanager
def compacting(graph: Graph, tables: tuple[str, ...]) -> Iterator[list[int]]:
    """Somebody joins the small files of the tables all the time; how many it joined."""
    ended, joined = threading.Event(), list[int]()

    def compact() -> None:
        while not ended.is_set():
            for name in tables:
                try:
                    table = DeltaTable(f"{graph.lake.root}/{name}")
                    joined.append(table.optimize.compact()["numFilesRemoved"])
                except DeltaError:  # not there yet, or written to meanwhile
                    continue
            ended.wait(0.005)

    thread = threading.Thread(target=compact)
    thread.start()
    try:
        yield joined
    finally:
        ended.set()
        thread.join()


def insist(step: Callable[[], object]) -> None:
    """A step that lost against somebody else's commit is done again, as the next run would."""
    for _ in range(50):
        try:
            step()
            return
        except LakeUnavailable:
            continue
    raise AssertionError("it never came through")


def test_a_compaction_during_loads_and_rebuilds(new_graph: NewGraph) -> None:
    """The files change under every step; the graph is that of the messages."""
    rules = RULES["aliases merge"]
    graph, oracle = new_graph(rules), Oracle(rules)
    found = worlds("compacted", count=10)
    parts: list[list[Message]] = [found[start::6] for start in range(6)]

    def take(part: list[Message]) -> None:
        graph.land(part)
        oracle.take(part)
        for step in (graph.propose, graph.check, graph.apply, graph.settle):
            insist(step)

    with compacting(graph, ("raw_events", "events", *GRAPH_TABLES)) as joined:
        for part in parts[:5]:
            take(part)
        (_, crowded) = min(n for n, p in oracle.holders.items() if len(p.seen) > 3)
        oracle.decide("detach", "users", *crowded, NOW)
        place = Deciding(graph.lake, graph.engine, graph.state, "test", NOW)
        insist(lambda: decide(place, "detach", ("users", *crowded), rules))
        insist(graph.run_due)
        take(parts[5])
    assert sum(joined) > 0
    assert_same(graph, oracle)
