"""Compiled queries against the naive evaluator, on random worlds; from JSON, then from layers
of messages whose typed columns are filled in part, then of some profiles at a time.

PERSONAS_FUZZ is how many queries are tried (by the hundred), PERSONAS_FUZZ_SEED which ones.
"""

import os
from random import Random

import pytest

from personas_dagster.query import plan
from personas_dagster.query.sliced import can_be_sliced
from personas_dagster.query.timing import upstream
from tests.query import chance
from tests.query.oracle import Oracle
from tests.query.running import results, session

_SEEDS = int(os.environ.get("PERSONAS_FUZZ", "1000")) // 100


@pytest.mark.parametrize("seed", range(_SEEDS))
def test_equals_oracle(seed: int) -> None:
    random = Random(f"personas {os.environ.get('PERSONAS_FUZZ_SEED', '')} {seed}")
    with session() as one:
        for turn in range(2):
            world = chance.world(random)
            definitions = chance.definitions(random, 50)
            as_of = chance.moment(random)
            world.former = {
                (definition.key, profile.id)
                for definition in definitions
                for profile in world.profiles
                if random.random() < 0.2
            }
            expected = Oracle(world, definitions, as_of, chance.AUDIENCES).results()
            for layered in (None, random):
                found = results(one, world, definitions, as_of, chance.AUDIENCES, layered)
                assert found == expected, _difference(found, expected, definitions, as_of)
            if turn:
                continue
            alone = [one for one in definitions if _is_alone(one, definitions, as_of)]
            expected = Oracle(world, alone, as_of, chance.AUDIENCES).results()
            found = results(one, world, alone, as_of, chance.AUDIENCES, random, slices=3)
            assert found == expected, _difference(found, expected, alone, as_of)


def _is_alone(one, among, as_of):
    """Whether its values hang on nobody else's: such definitions are computed in slices."""
    return can_be_sliced(plan(upstream([one], among), as_of=as_of, audiences=chance.AUDIENCES))


def _difference(found, expected, definitions, as_of):
    """The first difference, with what is needed to look into it."""
    queries = {(one.collection, one.key): one for one in definitions}
    lines = [f"as_of {as_of}"]
    for name in sorted(found.keys() | expected.keys(), key=lambda one: int(one[1][1:])):
        if found.get(name) != expected.get(name):
            lines.append(f"{name}: {found.get(name)!r}, not {expected.get(name)!r}")
            lines.append(f"  {queries[name[0], name[1]]}")
    return "\n".join(lines[:9])
