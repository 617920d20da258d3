"""The production path against the sequential reading, on thousands of nasty streams."""

from __future__ import annotations

import itertools
import os
import random

import pytest

from personas_dagster.identity import resolve as resolving
from personas_dagster.identity.loads import graph_digests
from tests.identity.conftest import NewGraph
from tests.identity.graph import Message, assert_same
from tests.identity.nasty import RULES, chance_rules, world
from tests.identity.oracle import Oracle
from tests.identity.scenes import scene_stream

# Streams per set of rules and generator; `make oracle` takes tens of thousands, and other seeds.
STREAMS = int(os.environ.get("PERSONAS_ORACLE_STREAMS", "0"))
SEED = os.environ.get("PERSONAS_ORACLE_SEED", "")
WORLDS, SCENES, LENGTH = STREAMS or 350, STREAMS or 80, 14
# Sets of rules by chance, and streams for each.
CHANCES, CHANCE_WORLDS = (60, STREAMS // 6) if STREAMS else (6, 100)


def worlds(name: str, count: int = WORLDS, length: int = LENGTH) -> list[Message]:
    """Many worlds that share no identifier, as one stream."""
    rng = random.Random(name + SEED)
    made = [m for seed in range(1, count + 1) for m in world(seed, rng, length)]
    return sorted(made, key=lambda m: (m["receivedAt"], m["messageId"]))


@pytest.mark.parametrize("name", RULES)
def test_streams_as_one_load(name: str, new_graph: NewGraph) -> None:
    found = worlds(name)
    oracle = Oracle(RULES[name])
    oracle.take(found)
    graph = new_graph(RULES[name])
    digests = graph.take(*found).digests
    assert len(oracle.merges) > 100 and len(oracle.drops) > 100
    assert_same(graph, oracle)
    # Any division in order of receivedAt gives the same.
    divided = new_graph(RULES[name])
    third = len(found) // 3
    for part in (found[:third], found[third : third + 50], found[third + 50 :]):
        applied = divided.take(*part)
    assert_same(divided, oracle)
    assert applied.digests == digests


@pytest.mark.parametrize("name", RULES)
def test_scenes(name: str, new_graph: NewGraph) -> None:
    """Shared devices, team mailboxes, late bridges: in loads in order, some of one message."""
    rng = random.Random(f"scenes {name}{SEED}")
    found = [m for seed in range(1, SCENES + 1) for m in scene_stream(seed, rng)]
    found.sort(key=lambda m: (m["receivedAt"], m["messageId"]))
    oracle, graph = Oracle(RULES[name]), new_graph(RULES[name])
    cuts = sorted({0, 1, *(rng.randrange(len(found)) for _ in range(3)), len(found)})
    for start, end in itertools.pairwise(cuts):
        oracle.take(found[start:end])
        graph.take(*found[start:end])
    assert len(oracle.drops) > SCENES
    assert_same(graph, oracle)


@pytest.mark.parametrize("name", RULES)
def test_late_loads(name: str, new_graph: NewGraph) -> None:
    found = worlds(name, count=60, length=24)
    random.Random(name).shuffle(found)
    oracle, graph = Oracle(RULES[name]), new_graph(RULES[name])
    for start in range(0, len(found), 500):
        oracle.take(found[start : start + 500])
        applied = graph.take(*found[start : start + 500])
    assert_same(graph, oracle)
    with graph.engine.session(graph.lake) as session:
        assert graph_digests(session) == applied.digests


@pytest.mark.parametrize("number", range(CHANCES))
def test_chance_rules(number: int, new_graph: NewGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules, streams and loads by chance, with the loop as it is and compiled."""
    rng = random.Random(f"rules {number}{SEED}")
    monkeypatch.setattr(resolving, "_WORTH_COMPILING", (0, 1_000_000)[number % 2])
    rules = chance_rules(rng)
    found = worlds(f"chance {number}", CHANCE_WORLDS, rng.choice([8, 14, 20]))
    if rng.random() < 0.3:
        rng.shuffle(found)  # late messages
    oracle, graph = Oracle(rules), new_graph(rules)
    cuts = {0, len(found), *(rng.randrange(len(found)) for _ in range(rng.randrange(4)))}
    for start, end in itertools.pairwise(sorted(cuts)):
        oracle.take(found[start:end])
        graph.take(*found[start:end])
    assert_same(graph, oracle)
