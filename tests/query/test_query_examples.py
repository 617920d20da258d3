"""The examples of the language's documentation, each with people on both sides of it."""

from datetime import timedelta

from personas_dagster.query import Definition
from tests.query.running import answer
from tests.query.shop import NOW, account, days, did, hours, people


def test_bought_expensive_shoes() -> None:
    world = people("in", "cheap", "long_ago")
    did(world, "in", "Shoes Bought", days(1), price=100)
    did(world, "cheap", "Shoes Bought", days(1), price=99)
    did(world, "long_ago", "Shoes Bought", days(8), price=100)
    query = "event('Shoes Bought').where( property('price') >= 100 ).within(7 days).count() >= 1"
    assert answer(query, world, NOW) == {"in": True}


def test_bought_and_returned() -> None:
    world = people(returned={"avg_spend": 50}, kept={"avg_spend": 50}, late={"avg_spend": 50})
    for who in ("returned", "kept", "late"):
        did(world, who, "Shoes Bought", days(20), price=60)
    did(world, "returned", "Shoes Returned", days(15))
    did(world, "late", "Shoes Returned", days(14))
    query = """
        event('Shoes Bought').where(
        property('price') >= trait('avg_spend')
        AND
        event('Shoes Returned').within(parent: 5 days).count() >= 1
        ).within(30 days).count() >= 1"""
    assert answer(query, world, NOW) == {"returned": True}


def test_did_not_buy_and_small_spend() -> None:
    world = people(
        buyer={"total_spend": 300}, modest={"total_spend": 100}, rich={"total_spend": 300}
    )
    did(world, "buyer", "Shoes Bought", days(1))
    did(world, "modest", "Shoes Bought", days(1))
    query = "NOT ( event('Shoes Bought').count() >= 1 AND trait('total_spend') > 200 )"
    assert answer(query, world, NOW) == {"modest": True, "rich": True}


def test_all_users_bought() -> None:
    world = people(a={"total_spend": 300}, b={"total_spend": 201}, c={"total_spend": 200})
    for who in "abc":
        did(world, who, "Shoes Bought", days(1))
    account(world, "all", "a", "b")
    account(world, "some", "a", "c")
    account(world, "none")
    query = "ALL ( event('Shoes Bought').count() >= 1 AND trait('total_spend') > 200 )"
    assert answer(query, world, NOW, collection="accounts") == {"all": True}


def test_none_of_the_users() -> None:
    world = people("a", "b")
    did(world, "a", "Shoes Bought", days(1))
    account(world, "has", "a", "b")
    account(world, "has_not", "b")
    account(world, "nobody")
    strict = "ALL NOT event('Shoes Bought').count() >= 1"
    assert answer(strict, world, NOW, collection="accounts") == {"has_not": True}
    loose = "NOT ANY event('Shoes Bought').count() >= 1"
    assert answer(loose, world, NOW, collection="accounts") == {"has_not": True, "nobody": True}
    some = "ANY event('Shoes Bought').count() >= 1"
    assert answer(some, world, NOW, collection="accounts") == {"has": True}


def test_average_spend() -> None:
    world = people("a", "b")
    did(world, "a", "Shoes Bought", days(1), spend=10)
    did(world, "a", "Shoes Bought", days(2), spend="15")
    did(world, "a", "Shoes Bought", days(2), spend="free")
    did(world, "b", "Shoes Bought", days(31), spend=15)
    query = "event('Shoes Bought').within(30 days).avg(property('spend'))"
    assert answer(query, world, NOW) == {"a": 12.5}


def test_minimum_spend_of_brand() -> None:
    world = people("a")
    did(world, "a", "Shoes Bought", days(1), spend=7, price=101, brand="My Brand")
    did(world, "a", "Shoes Bought", days(1), spend=5, price=100, brand="My Brand")
    did(world, "a", "Shoes Bought", days(1), spend=6, price=200, brand="Other")
    query = """event('Shoes Bought').where( property('price') > 100 AND
               property('brand') = 'My Brand' ).min(property('spend'))"""
    assert answer(query, world, NOW) == {"a": 7}


def test_first_seen_spend() -> None:
    world = people("a")
    did(world, "a", "Shoes Bought", days(31), spend=1)
    did(world, "a", "Shoes Bought", days(29))
    did(world, "a", "Shoes Bought", days(28), spend="2")
    did(world, "a", "Shoes Bought", days(1), spend=3)
    query = "event('Shoes Bought').within(30 days).first(property('spend'))"
    assert answer(query, world, NOW) == {"a": "2"}


def test_most_frequent_spend() -> None:
    world = people("twice", "once", "tie")
    for spend in (20, 20, 30):
        did(world, "twice", "Shoes Bought", days(1), spend=spend)
    did(world, "once", "Shoes Bought", days(1), spend=20)
    for spend in ("b", "b", "a", "a", "c"):
        did(world, "tie", "Shoes Bought", days(1), spend=spend)
    query = "event('Shoes Bought').within(30 days).mode(property('spend'), 2)"
    assert answer(query, world, NOW) == {"twice": 20, "tie": "a"}


ABANDONED = """
event('Product Added').where(
  NOT event('Order Completed').within(parent: 1 day).count() >= 1
).within(7 days).count() >= 1
"""


def test_abandoned_cart() -> None:
    world = people("left", "bought", "late", "again", "same_time")
    for who in ("left", "bought", "late", "again", "same_time"):
        did(world, who, "Product Added", days(4))
    did(world, "bought", "Order Completed", days(3))
    did(world, "late", "Order Completed", days(3) - timedelta(microseconds=1))
    did(world, "again", "Order Completed", days(3))
    did(world, "again", "Product Added", days(2))
    did(world, "same_time", "Order Completed", days(4))
    members = answer(ABANDONED, world, NOW)
    assert set(members) == {"left", "late", "again", "same_time"}


def test_abandoned_same_product() -> None:
    world = people("other_product", "same_product", "no_product")
    did(world, "other_product", "Product Added", days(2), product_id="p1")
    did(world, "other_product", "Order Completed", days(1), product_id="p2")
    did(world, "same_product", "Product Added", days(2), product_id=1)
    did(world, "same_product", "Order Completed", days(1), product_id="1.0")
    did(world, "no_product", "Product Added", days(2))
    did(world, "no_product", "Order Completed", days(1))
    query = """event('Product Added').where(
      event('Order Completed').where(property('product_id') = property(parent: 'product_id'))
      .count() >= 1).count() >= 1"""
    assert answer(query, world, NOW) == {"same_product": True}


def test_product_in_list_of_order() -> None:
    world = people("bought", "left")
    for who in ("bought", "left"):
        did(world, who, "Product Added", days(2), product_id="p1")
    did(world, "bought", "Order Completed", days(1), products=[{"id": "p2"}, {"id": "p1"}])
    did(world, "left", "Order Completed", days(1), products=[{"id": "p2"}])
    query = """event('Product Added').where(NOT event('Order Completed').where(
      property('products.$.id') = property(parent: 'product_id')
    ).within(parent: 1 day).count() >= 1).count() >= 1"""
    assert answer(query, world, NOW) == {"left": True}


def test_quiet_business_accounts() -> None:
    world = people("active", "quiet")
    did(world, "active", "Signed In", days(1))
    did(world, "quiet", "Signed In", days(31))
    account(world, "awake", "active", "quiet", plan="business")
    account(world, "at_risk", "quiet", plan="business")
    account(world, "free", "quiet", plan="free")
    query = "trait('plan') = 'business' AND NOT ANY event('Signed In').within(30 days).count() >= 1"
    assert answer(query, world, NOW, collection="accounts") == {"at_risk": True}


def test_account_events_are_a_union() -> None:
    world = people("a", "b")
    did(world, "a", "Order", days(1), total=1)
    did(world, "b", "Order", days(1), total=2)
    account(world, "both", "a", "b")
    account(world, "one", "b")
    query = "event('Order').sum(property('total'))"
    assert answer(query, world, NOW, collection="accounts") == {"both": 3, "one": 2}


def test_user_of_account_audience() -> None:
    world = people("in", "left", "never", "both")
    account(world, "big", "in", "both", size=100)
    account(world, "shrunk", "left", "both", size=1)
    account(world, "small", "never", size=1)
    world.former = {("big_accounts", "shrunk")}
    big = Definition("big_accounts", "audience", "accounts", "trait('size') >= 100")
    found = answer("trait('big_accounts')", world, NOW, others=[big])
    assert found == {"in": True, "both": True, "left": False}


def test_ad_hoc_reads_stored_audiences() -> None:
    world = people(member={"vip": True}, left={"vip": False}, never={})
    account(world, "acme", "never", big=True)
    found = answer("trait('vip')", world, NOW, audiences=["vip", "big"])
    assert found == {"member": True, "left": False}
    assert answer("trait('big') = true", world, NOW, audiences=["big"]) == {"never": True}
    assert answer("trait('big') = true", world, NOW) == {}


def test_counts_from_a_window() -> None:
    world = people("now", "before", "never", "other")
    did(world, "now", "Order", days(1), total=5)
    did(world, "before", "Order", days(9), total=5)
    did(world, "other", "Order", days(1), total=1)
    count = "event('Order').where(property('total') = 5).within(7 days).count()"
    assert answer(count, world, NOW) == {"now": 1, "before": 0}
    assert set(answer(f"{count} = 0", world, NOW)) == {"before", "never", "other"}
    distinct = "event('Order').within(7 days).unique(property('total')).count()"
    assert answer(distinct, world, NOW) == {"now": 1, "before": 0, "other": 1}


def test_window_edges() -> None:
    tick = timedelta(microseconds=1)
    for query, first, last in [
        ("within(7 days)", days(7) - tick, days(0)),
        ("between(2 days, 7 days)", days(7) - tick, days(2)),
    ]:
        world = people("first", "too_early", "last", "too_late")
        did(world, "first", "X", first)
        did(world, "too_early", "X", first + tick)
        did(world, "last", "X", last)
        did(world, "too_late", "X", last - tick)
        assert set(answer(f"event('X').{query}.count() >= 1", world, NOW)) == {"first", "last"}


def test_session_window() -> None:
    world = people("running", "expired", "edge")
    for ago in (3, 1.5, 1, 0.5):
        did(world, "running", "Page Viewed", hours(ago))
    did(world, "expired", "Page Viewed", hours(1) + timedelta(microseconds=1))
    did(world, "edge", "Page Viewed", hours(1))
    query = "event('Page Viewed').expires_after(1 hour).count()"
    assert answer(query, world, NOW) == {"running": 3, "expired": 0, "edge": 1}


def test_session_applies_last() -> None:
    world = people("a")
    did(world, "a", "Page Viewed", hours(1.5), path="/x")
    did(world, "a", "Page Viewed", hours(1), path="/y")
    did(world, "a", "Page Viewed", hours(0.5), path="/x")
    query = "event('Page Viewed').expires_after(45 minutes).where(property('path') = '/x').count()"
    assert answer(query, world, NOW) == {"a": 1}


def test_session_of_the_parent() -> None:
    world = people("a")
    did(world, "a", "Opened", hours(5))
    for ago in (4.5, 4, 2, 1.9):
        did(world, "a", "Clicked", hours(ago))
    child = "event('Clicked').expires_after(parent: 30 minutes).count()"
    assert answer(f"event('Opened').where({child} = 2).count() = 1", world, NOW) == {"a": True}


def test_between_after_the_parent() -> None:
    world = people("edge", "too_soon")
    for who, after in (("edge", hours(2)), ("too_soon", hours(1))):
        did(world, who, "Opened", hours(5))
        did(world, who, "Clicked", hours(5) - after)
    child = "event('Clicked').between(parent: 1 hour, 2 hours).count() = 1"
    assert answer(f"event('Opened').where({child}).count() = 1", world, NOW) == {"edge": True}


def test_excluded_sources() -> None:
    world = people("a")
    did(world, "a", "X", days(1))
    for brackets in ("['web', 'b']", "'web', 'b'"):
        query = f"event('X').sources({{exclude: {brackets}}}).count() = 0"
        assert answer(query, world, NOW) == {"a": True}
    assert answer("event('X').sources({exclude: 'b'}).count()", world, NOW) == {"a": 1}


def test_conditions_on_elements() -> None:
    world = people("a", "empty", "missing")
    did(world, "a", "X", days(1), items=[{"sku": 1, "qty": 5}, {"sku": 2, "qty": 1}], tags=["a"])
    did(world, "empty", "X", days(1), items=[], tags=[])
    did(world, "missing", "X", days(1))

    def who(condition: str) -> set[str]:
        return set(answer(f"event('X').where({condition}).count() >= 1", world, NOW))

    assert who("property('items.$.sku') = 1 AND property('items.$.qty') < 2") == {"a"}
    assert who("property('tags.$') != 'a'") == set()
    assert who("property('tags.$') = 'a'") == {"a"}
    assert who("property('tags.$').absent()") == {"empty", "missing"}


def test_values_of_elements() -> None:
    world = people("a")
    did(world, "a", "X", days(2), tags=["b", "a"])
    did(world, "a", "X", days(1), tags=["b", "a"])
    did(world, "a", "X", days(0), tags=["c"])
    asked = {
        "unique(property('tags.$'))": ["a", "b", "c"],
        "first(property('tags.$'))": "b",
        "last(property('tags.$'))": "c",
        "mode(property('tags.$'), 2)": "a",
        "mode(property('tags.$') as array, 2)": '["b","a"]',
        "mode(property('tags') as array, 2)": '["b","a"]',
        "mode(property('tags'), 2)": ["b", "a"],
    }
    for reducer, value in asked.items():
        assert answer(f"event('X').{reducer}", world, NOW) == {"a": value}, reducer


def test_keys_with_dots() -> None:
    world = people(a={"utm.source": "x", "utm": {"source": "y"}})
    for path in (r"utm\\.source", r"utm\\\\.source", r"utm\.source"):
        assert answer(f"trait('{path}')", world, NOW) == {"a": "x"}
    assert answer("trait('utm.source')", world, NOW) == {"a": "y"}


def test_odd_keys() -> None:
    keys = ["a b", "it's", 'say "x"', "back\\slash", "*", "$x", "0", "a/b", "~", "[0]", "é"]
    world = people(a={key: index for index, key in enumerate(keys)} | {"list": [1]})
    for index, key in enumerate(keys):
        written = key.replace("\\", "\\\\").replace("'", "\\'")
        assert answer(f"trait('{written}')", world, NOW) == {"a": index}, key
    assert answer("trait('list.0')", world, NOW) == {}


def test_lookback_bounds_streams_without_a_window() -> None:
    world = people("a")
    did(world, "a", "X", days(3))
    did(world, "a", "Y", days(2.5))
    bounded = {"lookback": days(1)}
    assert answer("event('X').count()", world, NOW, **bounded) == {"a": 0}
    assert answer("event('X').within(4 days).count()", world, NOW, **bounded) == {"a": 1}
    funnel = "event('X').where(event('Y').within(parent: 1 day).count() = 1)"
    assert answer(f"{funnel}.count() >= 1", world, NOW, **bounded) == {}
    assert answer(f"{funnel}.within(9 days).count() >= 1", world, NOW, **bounded) == {"a": True}


def test_only_events_received_later() -> None:
    world = people("a")
    message = did(world, "a", "X", days(1))
    options = {"received_after": message.received_at}
    assert answer("event('X').count()", world, NOW, **options) == {}
    options = {"received_after": message.received_at - days(1)}
    assert answer("event('X').count()", world, NOW, **options) == {"a": 1}


def test_sums_of_decimals() -> None:
    world = people("a")
    for total in (0.1, 0.2, "0.3", 0.1, -0.1):
        did(world, "a", "X", days(1), total=total)
    assert answer("event('X').sum(property('total'))", world, NOW) == {"a": 0.6}
    assert answer("event('X').avg(property('total'))", world, NOW) == {"a": 0.12}
