"""The plan: what is computed once, what is read, and who is looked at."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlglot import exp

from personas_dagster.query import Definition, Plan, plan
from tests.query.oracle import Profile, World
from tests.query.running import answer, results, session
from tests.query.shop import NOW, days, did, people


def planned(*queries: str, collection: str = "users") -> Plan:
    definitions = [
        Definition(f"k{index}", "trait", collection, query) for index, query in enumerate(queries)
    ]
    return plan(definitions, as_of=NOW)


def scans(made: Plan) -> int:
    """How often the messages are read."""
    tables = [table for _, query in made.statements for table in query.find_all(exp.Table)]
    return sum(table.name == "messages" for table in tables)


def test_one_scan_per_event_name() -> None:
    made = planned(
        "event('A').count()",
        "event('A').within(7 days).sum(property('x'))",
        "event('A').where(property('x') > 1).max(property('y'))",
        "event('B').count()",
    )
    assert scans(made) == 2


def test_one_scan_for_every_kind_of_stream() -> None:
    made = planned(
        "event('A').count()",
        "event('A').mode(property('x'))",
        "event('A').unique(property('l.$'))",
        "event('A').expires_after(1 day).count()",
        "event('A').where(event('A').count() > 1).count()",
    )
    assert scans(made) == 1


def test_equal_parts_once() -> None:
    made = planned(
        "event('A').where(property('x') = 1 AND property('y') = 2).within(1 day)"
        ".sum(property('z'))",
        "event('A').within(24 hours).where(property('y') = 2).where(property('x') = 1)"
        ".sum(property('z'))",
    )
    assert made.sql().count("FSUM(") == 1


def test_each_property_extracted_once() -> None:
    text = planned(
        "event('A').where(property('x') > 1 OR property('x') = 'a').sum(property('x'))",
        "event('A').where(property('x').exists()).max(property('x') as string)",
    ).sql()
    assert text.count("""'$."x"'""") == 1
    assert text.count("JSON_EXTRACT(properties") == 1


def test_windowed_streams_read_their_window_only() -> None:
    text = planned("event('A').within(7 days).sum(property('x'))").sql()
    assert "timestamp > CAST('2024-06-08 12:00:00+00:00' AS TIMESTAMPTZ)" in text


def test_text_of_a_query_is_never_sql() -> None:
    world = people("a")
    evil = "'; DROP TABLE profiles; --"
    did(world, "a", evil, days(1), **{evil: evil})
    quoted = evil.replace("'", "\\'")
    condition = f"property('{quoted}') = '{quoted}'"
    asked = f"event('{quoted}').where({condition}).count()"
    assert answer(asked, world, NOW) == {"a": 1}
    with session() as one:
        found = results(one, world, [Definition(evil, "trait", "users", asked)], NOW)
    assert found == {("users", evil, "a"): "1"}


def test_no_definitions() -> None:
    with session() as one:
        assert results(one, people("a"), [], NOW) == {}


def test_no_messages() -> None:
    assert answer("event('A').count()", people("a"), NOW) == {}
    assert answer("event('A').count() = 0", people("a"), NOW) == {"a": True}
    assert answer("event('A').max(property('x'))", people("a"), NOW) == {}


def test_nothing_is_left_behind_but_values() -> None:
    with session() as one:
        definition = Definition("k", "trait", "users", "event('A').mode(property('x'))")
        for _ in range(2):
            results(one, people("a"), [definition], NOW)
        left = one.fetch("SELECT table_name FROM duckdb_tables()").to_pylist()
        assert [row["table_name"] for row in left] == ["query_users_1"]
        columns = one.fetch("DESCRIBE results").to_pylist()
    assert [(column["column_name"], column["column_type"]) for column in columns] == [
        (name, "VARCHAR") for name in ("key", "kind", "collection", "profile_id", "value")
    ]


def test_who_is_evaluated() -> None:
    world = World(
        [
            Profile("users", "known", True, False),
            Profile("users", "anonymous", False, True),
            Profile("users", "neither", False, False),
        ]
    )
    query = "trait('x').absent()"
    assert set(answer(query, world, NOW, include_anonymous=False)) == {"known"}
    assert set(answer(query, world, NOW, include_anonymous=True)) == {"known", "anonymous"}
    assert len(answer(query, world, NOW, include_anonymous=None)) == 3
    assert len(answer("literal(1)", world, NOW, include_anonymous=False)) == 3


def test_references_read_fresh_values() -> None:
    world = people(a={"spend": 1}, b={"spend": 500})
    did(world, "a", "Order", days(1), total=200)
    spend = Definition("spend", "trait", "users", "event('Order').sum(property('total'))")
    assert answer("trait('spend') > 100", world, NOW, others=[spend]) == {"a": True}
    assert answer("trait('spend') > 100", world, NOW) == {"b": True}


def test_instants_do_not_depend_on_zones() -> None:
    definition = Definition("k", "trait", "users", "event('A').within(1 day).count()")
    east = datetime(2024, 1, 2, 2, tzinfo=timezone(timedelta(hours=2)))
    west = datetime(2024, 1, 2, tzinfo=UTC)
    assert plan([definition], as_of=east).sql() == plan([definition], as_of=west).sql()
    with pytest.raises(ValueError, match="no time zone"):
        plan([definition], as_of=datetime(2024, 1, 1))


def test_same_definitions_same_text() -> None:
    queries = ["event('A').where(property('x').one_of('b', 'a')).count()", "trait('a')"]
    assert planned(*queries).sql() == planned(*queries).sql()


def test_two_definitions_of_one_key() -> None:
    one = Definition("k", "trait", "users", "event('A').count()")
    with pytest.raises(ValueError, match="same collection and key"):
        plan([one, one], as_of=NOW)
