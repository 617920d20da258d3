"""The production path against the sequential reading, on thousands of nasty streams."""

from __future__ import annotations

import random

import pytest

from tests.identity.conftest import NewGraph
from tests.identity.graph import Message, assert_same
from tests.identity.nasty import RULES, world
from tests.identity.oracle import Oracle

WORLDS, LENGTH = 350, 14


def worlds(name: str, count: int = WORLDS, length: int = LENGTH) -> list[Message]:
    """Many worlds that share no identifier, as one stream."""
    rng = random.Random(name)
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
def test_late_loads(name: str, new_graph: NewGraph) -> None:
    found = worlds(name, count=60, length=24)
    random.Random(name).shuffle(found)
    oracle, graph = Oracle(RULES[name]), new_graph(RULES[name])
    for start in range(0, len(found), 500):
        oracle.take(found[start : start + 500])
        graph.take(*found[start : start + 500])
    assert_same(graph, oracle)
