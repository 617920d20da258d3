"""A graph gives the same with indexes, with some of them, and with none."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from personas_dagster.identity import loads
from personas_dagster.identity.keys import key_sql
from personas_dagster.identity.touched import climb_all, read_touched
from personas_dagster.lake import indexes
from tests.examples import examples
from tests.identity.conftest import NewGraph
from tests.identity.graph import Graph, message
from tests.identity.nasty import RULES
from tests.identity.test_identity_oracle import worlds

_HIGH, _LOW = key_sql("collection", "type", "value")


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """A graph of many loads, of which the last few are in no index."""
    graph = Graph(tmp_path_factory.mktemp("grown"), RULES["aliases merge"])
    found = worlds("aliases merge", count=80)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(indexes, "WORTH_ROWS", 60)
        for start in range(0, len(found), 150):
            graph.take(*found[start : start + 150])
        graph.take(message(9001, userId="last", anonymousId="a-last"))
    there = graph.lake.indexed("identifiers")
    assert there.indexes and there.rest
    assert graph.lake.indexed("merges").indexes
    return graph


@pytest.fixture(scope="module")
def bare(grown: Graph, tmp_path_factory: pytest.TempPathFactory) -> Graph:
    """The same without an index."""
    graph = grown.copy(tmp_path_factory.mktemp("bare") / "graph")
    shutil.rmtree(folder_of(graph))
    assert not graph.lake.indexed("identifiers").indexes
    return graph


def folder_of(graph: Graph) -> Path:
    return Path(graph.lake.root) / indexes.FOLDER


def touched(graph: Graph, names: pa.Table) -> dict[str, Any]:
    with graph.engine.session(graph.lake) as session:
        found = read_touched(session, names)
    rows = {
        name: sorted(map(str, table.to_pylist())) if table is not None else None
        for name, table in (("identifiers", found.identifiers), ("held", found.held))
    }
    return {"ids": found.profile_ids.to_pylist(), "merges": found.merges.tolist(), **rows}


def keys_of(graph: Graph) -> list[tuple[int, int]]:
    query = f"SELECT {_HIGH} AS high, {_LOW} AS low FROM identifiers ORDER BY ALL"
    return [(row["high"], row["low"]) for row in graph.rows(query)]


@given(seed=st.integers(0, 1 << 32), share=st.sampled_from([0.0, 0.003, 0.05, 1.0]))
@settings(max_examples=examples(20), suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_load_touches(seed: int, share: float, grown: Graph, bare: Graph) -> None:
    rng = random.Random(seed)
    chosen = [key for key in keys_of(grown) if rng.random() < share] + [(1, seed)]
    rng.shuffle(chosen)
    high, low = zip(*chosen, strict=True)
    names = pa.table({"id": list(range(len(chosen))), "key_high": high, "key_low": low})
    assert touched(grown, names) == touched(bare, names)


def test_components_before_a_load(grown: Graph, bare: Graph) -> None:
    found = []
    for graph in (grown, bare):
        with graph.engine.session(graph.lake) as session:
            session.view("merges")
            session.run("CREATE TEMP TABLE met AS "
                        "SELECT DISTINCT child_high AS profile_high, child_low AS profile_low "
                        "FROM merges WHERE load_id <= 4")  # fmt: skip
            rows = []
            for end in (None, 1, 3, 5):
                climb_all(session, before_load=end)
                rows.append(session.fetch("SELECT * EXCLUDE (moved) FROM climbed ORDER BY ALL"))
                session.run("CREATE OR REPLACE TEMP TABLE met AS SELECT DISTINCT "
                            "profile_high, profile_low FROM climbed")  # fmt: skip
            found.append([table.to_pylist() for table in rows])
    assert found[0] == found[1]


def test_the_next_loads_are_the_same(
    grown: Graph, bare: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = worlds("aliases merge", count=120)
    more = random.Random(3).sample(more, 300)
    fast, slow = grown.copy(tmp_path / "fast"), bare.copy(tmp_path / "slow")
    applied = []
    for graph, worth in ((fast, 10), (slow, 1 << 40)):
        monkeypatch.setattr(indexes, "WORTH_ROWS", worth)
        monkeypatch.setattr(indexes, "WORTH_FILES", worth)
        renamed = [{**m, "messageId": f"again-{m['messageId']}"} for m in more]
        applied.append([graph.take(*part).digests for part in (renamed[:100], renamed[100:])])
    assert applied[0] == applied[1]
    assert fast.tables() == slow.tables()
    assert list(folder_of(fast).glob("identifiers/*"))
    assert not list(folder_of(slow).glob("*/*"))


def test_one_table_is_indexed_whole_and_another_is_not(
    new_graph: NewGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """New identifiers on old profiles; users and accounts are looked up one after the other."""
    found = []
    for worth in (10, 1 << 40):
        monkeypatch.setattr(indexes, "WORTH_ROWS", worth)
        graph = new_graph()
        named = {"userId": "u1", "context": {"groupId": "g1"}}
        graph.take(*(message(n, userId=f"u{n}", anonymousId=f"a{n}") for n in range(1, 20)),
                   message(20, **named))  # fmt: skip
        graph.take(message(21, userId="u1", anonymousId="b1"))
        if worth == 10:
            rest = {table: graph.lake.indexed(table).rest for table in ("profiles", "identifiers")}
            assert not rest["profiles"] and rest["identifiers"]
        graph.take(message(22, **named, anonymousId="b2"), message(23, anonymousId="b1"))
        found.append(graph.tables())
    assert found[0] == found[1]


def test_links_are_carried_through_indexes(new_graph: NewGraph) -> None:
    graph = new_graph()
    for number in range(1, 60, 4):
        names = {"userId": f"u{number % 9}", "context": {"groupId": f"g{number % 3}"}}
        applied = graph.take(
            message(number, **names), message(number + 1, anonymousId=f"a{number}"),
            message(number + 2, anonymousId=f"a{number}", **names),
        )  # fmt: skip
        with graph.engine.session(graph.lake) as session:
            assert loads.graph_digests(session) == applied.digests
    assert graph.lake.indexed("account_links").indexes


def test_a_detachment_leaves_no_index_of_what_it_replaced(graph: Graph) -> None:
    for number in range(1, 20):
        graph.take(message(number, userId=f"u{number % 4}", anonymousId=f"a{number}"))
    before = set(folder_of(graph).glob("identifiers/*"))
    graph.decide("detach", "anonymous_id", "a3")
    after = set(folder_of(graph).glob("identifiers/*"))
    assert before and after and not before & after
    assert graph.lake.indexed("identifiers").rest == []


def test_a_rebuild_indexes_as_it_goes(graph: Graph) -> None:
    for number in range(1, 20):
        graph.take(message(number, userId=f"u{number % 4}", anonymousId=f"a{number}"))
    before = set(folder_of(graph).glob("*/*"))
    graph.rebuild()
    after = set(folder_of(graph).glob("*/*"))
    assert before and after and not before & after
