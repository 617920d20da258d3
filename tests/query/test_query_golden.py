"""Golden pairs: a query, then its plan in DuckDB's SQL, which is executed too.

Each file of golden/ holds one query, a line of dashes, and the plan. PERSONAS_UPDATE_GOLDEN=1
rewrites the plans.
"""

import os
from pathlib import Path

import pytest

from personas_dagster.query import Definition, parse, plan
from tests.query.running import results, session
from tests.query.shop import NOW, account, days, did, hours, people

GOLDEN = sorted(Path(__file__).parent.joinpath("golden").glob("*.txt"))
_LINE = "\n----\n"


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_golden(path: Path) -> None:
    query, _, expected = path.read_text().partition(_LINE)
    kind = "audience" if parse(query).type == "boolean" else "trait"
    collection = "accounts" if path.stem.startswith("accounts_") else "users"
    definition = Definition("k", kind, collection, query)
    text = plan([definition], as_of=NOW).sql("duckdb") + "\n"
    if os.environ.get("PERSONAS_UPDATE_GOLDEN"):
        path.write_text(f"{query.rstrip()}{_LINE}{text}")
        expected = text
    assert text == expected
    with session() as one:
        found = results(one, _world(), [definition], NOW)
        one.connection.execute("DROP VIEW results")
        one.connection.execute(expected)
        again = one.fetch("SELECT collection, key, profile_id, value FROM results").to_pylist()
    assert {(r["collection"], r["key"], r["profile_id"]): r["value"] for r in again} == found
    assert found, "a golden query should have an answer"


def _world():
    world = people(a={"plan": "pro", "average": 20}, b={"plan": "free"})
    for ago, total in ((1, 30), (3, 10), (20, 30)):
        did(world, "a", "Order Completed", days(ago), total=total, products=[{"sku": "s1"}])
    did(world, "a", "Product Added", days(5), sku="s1")
    did(world, "b", "Product Added", days(2), sku="s1")
    did(world, "b", "Page Viewed", hours(0.2), path="/pricing")
    account(world, "acme", "a", "b", plan="business")
    account(world, "empty", plan="business")
    return world
