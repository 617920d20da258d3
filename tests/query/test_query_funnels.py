"""Funnels: what a child equals of its parent, and what many events of one profile cost."""

from datetime import timedelta
from itertools import product

import pytest

from personas_dagster.query import Definition, evaluate, plan
from tests.query.oracle import Oracle
from tests.query.running import results, session
from tests.query.shop import NOW, did, people

_EVENTS = 200_000
# Every other minute a parent; a child half a minute after each, its value 0, 1, ... 6, 0, ...
_MANY = """
CREATE OR REPLACE TEMP TABLE many AS
SELECT CASE WHEN i % 2 = 0 THEN 'Viewed' ELSE 'Added' END AS event, 'u1' AS profile_id,
       $1::TIMESTAMPTZ - to_seconds(60 * ($2 - i)) AS timestamp, $1::TIMESTAMPTZ AS received_at,
       'm' || i AS message_id, 'web' AS source_id, NULL::VARCHAR AS context,
       '{"sku":"a","value":' || i // 2 % 7 || '}' AS properties
FROM range($2) r(i)
"""
_SAME = "property('sku') = property(parent: 'sku')"


@pytest.mark.parametrize(
    ("children", "parents"),
    [
        ("event('Added').within(parent: 1 day).count() >= 720", _EVENTS // 2 - 719),
        ("NOT event('Added').within(parent: 10 days).count() >= 7200", 7199),
        (f"event('Added').where({_SAME}).count() >= 50000", 50_001),
        (
            f"event('Added').where({_SAME}).within(parent: 2 days).sum(property('value')) < 4317",
            15_520,
        ),
        ("event('Added').within(parent: 1 hour).max(property('value')) < 6", 5),
        ("event('Added').within(parent: 3 minutes).first(property('value')) = 6", 14_285),
        ("event('Added').between(parent: 1 hour, 9 days).avg(property('value')) > 3", 41_924),
    ],
)
def test_many_events_of_one_profile(children: str, parents: int) -> None:
    """In pairs these would be ten billion."""
    one = Definition("k", "trait", "users", f"event('Viewed').where({children}).count()")
    world = people("u1")
    with session() as engine:
        results(engine, world, [], NOW)  # the relations, without a message
        engine.run(_MANY, [NOW, _EVENTS])
        engine.run("CREATE OR REPLACE TEMP VIEW messages AS FROM many")
        evaluate(engine, plan([one], as_of=NOW))
        assert engine.fetch("SELECT value FROM results").column(0).to_pylist() == [str(parents)]


def test_equal_by_number_or_by_text() -> None:
    """`=` is no equivalence: 1e25 equals a text and a number that do not equal one another."""
    values = [10**25, 1e25, "1e25", "10000000000000000000000000", 0, "-0", "0.0", 0.5e-7, "5e-8",
              "0.00000005", True, "true", "e", "1e", "", None]  # fmt: skip
    pairs = {f"u{number}": pair for number, pair in enumerate(product(values, repeat=2))}
    world = people(*pairs)
    for name, (parent, child) in pairs.items():
        did(world, name, "Viewed", timedelta(minutes=2), sku=parent)
        did(world, name, "Added", timedelta(minutes=1), sku=child)
    query = f"event('Viewed').where(event('Added').where({_SAME}).count() >= 1).count() >= 1"
    definitions = [Definition("k", "audience", "users", query, None)]
    with session() as engine:
        found = results(engine, world, definitions, NOW)
    assert len(found) > len(values)
    assert found == Oracle(world, definitions, NOW, ()).results()
