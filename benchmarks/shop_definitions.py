"""100 computed traits and 100 audiences of a shop, and the same written by hand in SQL.

What belongs here: the definitions that `benchmarks/compute.py` measures. Traits: 5 event names x
5 windows x 4 reducers, every third with a property filter. Audiences: 60 over the traits, 30 over
events, 10 funnels. The SQL is as a person would write it: it cares for neither ties, nor
numbers in strings, nor the order in which floating point numbers are added.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from personas_dagster.query import Definition

AS_OF = "2026-03-01"
WINDOWS = (7, 30, 90, 180, None)

COUNT = ("count()", "count(*)")
PRICE = ("sum(property('price'))", "sum(price)")
MEAN = ("avg(property('price'))", "avg(price)")
MOST = ("max(property('quantity'))", "max(quantity)")
LAST = ("last(property('product_id'))", "arg_max(product_id, timestamp)")
USUAL = ("mode(property('category'), 2)", "mode(category)")
PATHS = ("unique(property('path')).count()", "count(DISTINCT path)")
FIRST_PATH = ("first(property('path'))", "arg_min(path, timestamp)")
LAST_PATH = ("last(property('path'))", "arg_max(path, timestamp)")
REDUCERS = {
    "Page Viewed": (COUNT, PATHS, FIRST_PATH, LAST_PATH),
    "Product Viewed": (COUNT, PRICE, MOST, LAST),
    "Product Added": (COUNT, PRICE, USUAL, LAST),
    "Checkout Started": (COUNT, MEAN, MOST, LAST),
    "Order Completed": (COUNT, PRICE, MOST, LAST),
}
ON_PAGES = ("property('path').starts_with('/c/1')", "starts_with(path, '/c/1')")
ON_PRODUCTS = (
    ("property('price') > 50", "price > 50"),
    ("property('category') = 'c7'", "category = 'c7'"),
)


@dataclass(frozen=True)
class Trait:
    key: str
    event: str
    query: str
    aggregate: str  # with its FILTER
    is_number: bool


@dataclass(frozen=True)
class Audience:
    """`by_traits`: over the traits' columns; `by_events`: event, and a boolean aggregate."""

    key: str
    query: str
    by_traits: str | None = None
    by_events: tuple[tuple[str, str], ...] = ()
    funnel: Funnel | None = None


@dataclass(frozen=True)
class Funnel:
    parent: str
    child: str
    days: int
    near: int  # days after the parent
    same_product: bool


def since(days: int) -> str:
    return f"timestamp > TIMESTAMPTZ '{AS_OF} 00:00:00+00' - INTERVAL {days} DAY"


def filtered(aggregate: str, *conditions: str) -> str:
    kept = [one for one in conditions if one]
    return f"{aggregate} FILTER (WHERE {' AND '.join(kept)})" if kept else aggregate


def traits() -> list[Trait]:
    found = []
    for event, reducers in REDUCERS.items():
        for days in WINDOWS:
            for reducer, aggregate in reducers:
                index = len(found)
                where, condition = "", ""
                if index % 3 == 0:
                    pages = event == "Page Viewed"
                    text, condition = ON_PAGES if pages else ON_PRODUCTS[index // 3 % 2]
                    where = f".where({text})"
                within = f".within({days} days)" if days else ""
                found.append(
                    Trait(
                        f"t{index}",
                        event,
                        f"event('{event}'){where}{within}.{reducer}",
                        filtered(aggregate, condition, since(days) if days else ""),
                        reducer.startswith(("count", "sum", "avg", "max", "unique")),
                    )
                )
    return found


def audiences() -> list[Audience]:
    return [*_over_traits(), *_over_events(), *_funnels()]


def _over_traits() -> Iterator[Audience]:
    numbers = [one for one in traits() if one.is_number]
    others = [one for one in traits() if not one.is_number]
    for index in range(60):
        first, second = numbers[index % len(numbers)], others[index % len(others)]
        limit = 1 + index % 7
        if index % 2:
            third = numbers[(index * 7 + 3) % len(numbers)]
            yield Audience(
                f"a{index}",
                f"trait('{first.key}') >= {limit} AND NOT trait('{third.key}') > 100",
                f"coalesce({first.key} >= {limit}, false) "
                f"AND NOT coalesce({third.key} > 100, false)",
            )
        else:
            yield Audience(
                f"a{index}",
                f"trait('{first.key}') > {limit} AND trait('{second.key}').exists()",
                f"coalesce({first.key} > {limit}, false) AND {second.key} IS NOT NULL",
            )


def _over_events() -> Iterator[Audience]:
    names = list(REDUCERS)
    for index in range(30):
        event, days = names[index % 5], (3, 14, 60, 120, 365, 21)[index // 5]
        other = names[(index + 2) % 5]
        text, condition = ("", "")
        if index % 3 == 0:
            text, condition = ON_PAGES if event == "Page Viewed" else ON_PRODUCTS[index % 2]
        where = f".where({text})" if text else ""
        wanted = 1 + index % 3
        yield Audience(
            f"e{index}",
            f"event('{event}'){where}.within({days} days).count() >= {wanted} "
            f"AND NOT event('{other}').within({days + 7} days).count() >= 2",
            by_events=(
                (event, f"{filtered('count(*)', condition, since(days))} >= {wanted}"),
                (other, f"NOT {filtered('count(*)', since(days + 7))} >= 2"),
            ),
        )


def _funnels() -> Iterator[Audience]:
    pairs = (
        ("Product Added", "Order Completed"),
        ("Checkout Started", "Order Completed"),
        ("Product Viewed", "Product Added"),
        ("Product Added", "Checkout Started"),
        ("Checkout Started", "Product Viewed"),
    )
    for index in range(10):
        parent, child = pairs[index % 5]
        same = index >= 5
        days, near = (7, 30, 14, 60, 30)[index % 5], (1, 2, 1, 3, 7)[index % 5]
        where = ".where(property('product_id') = property(parent: 'product_id'))" if same else ""
        yield Audience(
            f"f{index}",
            f"event('{parent}').where(NOT event('{child}'){where}"
            f".within(parent: {near} days).count() >= 1).within({days} days).count() >= 1",
            funnel=Funnel(parent, child, days, near, same),
        )


def definitions() -> list[Definition]:
    return [
        *(Definition(one.key, "trait", "users", one.query) for one in traits()),
        *(Definition(one.key, "audience", "users", one.query, None) for one in audiences()),
    ]


# By hand. `messages` is the relation of typed columns, `out` makes a temporary table.


def out(name: str, query: str) -> str:
    return f"CREATE OR REPLACE TEMP TABLE {name} AS {query}"


def one_by_one() -> list[str]:
    """One query for each definition."""
    found = [
        out(
            one.key,
            f"SELECT profile_id, {one.aggregate} AS value FROM messages "
            f"WHERE event = '{one.event}' GROUP BY profile_id",
        )
        for one in traits()
    ]
    by_key = {one.key for one in traits()}
    for audience in audiences():
        if audience.by_traits:
            words = set(audience.query.replace("'", " ").split()) & by_key
            tables = sorted(words)
            condition = audience.by_traits
            for key in sorted(words, key=len, reverse=True):
                condition = condition.replace(f"{key} ", f"{key}.value ")
            joined = "profiles p " + " ".join(
                f"LEFT JOIN {key} ON {key}.profile_id = p.profile_id" for key in tables
            )
            found.append(out(audience.key, f"SELECT p.profile_id FROM {joined} WHERE {condition}"))
        elif audience.funnel:
            found.append(out(audience.key, _exists(audience.funnel)))
        else:
            (event, did), (other, lacks) = audience.by_events
            found.append(
                out(
                    audience.key,
                    f"SELECT profile_id FROM (SELECT profile_id, {did} AS did FROM messages "
                    f"WHERE event = '{event}' GROUP BY profile_id) a LEFT JOIN (SELECT "
                    f"profile_id, {lacks} AS lacks FROM messages WHERE event = '{other}' "
                    "GROUP BY profile_id) b USING (profile_id) "
                    "WHERE did AND coalesce(lacks, true)",
                )
            )
    return found


def _exists(one: Funnel) -> str:
    same = "AND c.product_id = p.product_id" if one.same_product else ""
    return (
        f"SELECT DISTINCT profile_id FROM messages p WHERE event = '{one.parent}' "
        f"AND {since(one.days)} AND NOT EXISTS (SELECT 1 FROM messages c "
        f"WHERE c.event = '{one.child}' AND c.profile_id = p.profile_id {same} "
        f"AND c.timestamp > p.timestamp AND c.timestamp <= p.timestamp + INTERVAL {one.near} DAY)"
    )


def by_event() -> list[str]:
    """The best plan by hand: one query per event name, funnels as of-joins, one for the rest."""
    found, conditions = [], {}
    wide: dict[str, list[str]] = {
        event: [f"{one.aggregate} AS {one.key}" for one in traits() if one.event == event]
        for event in REDUCERS
    }
    for audience in audiences():
        if audience.by_traits:
            conditions[audience.key] = audience.by_traits
        for index, (event, condition) in enumerate(audience.by_events):
            wide[event].append(f"{condition} AS {audience.key}_{index}")
        if audience.by_events:
            key = audience.key
            conditions[key] = f"coalesce({key}_0, false) AND coalesce({key}_1, true)"
    for index, (event, columns) in enumerate(wide.items()):
        found.append(
            out(
                f"w{index}",
                f"SELECT profile_id, {', '.join(columns)} FROM messages "
                f"WHERE event = '{event}' GROUP BY profile_id",
            )
        )
    joins = " ".join(f"LEFT JOIN w{i} ON w{i}.profile_id = p.profile_id" for i in range(5))
    for audience in audiences():
        if audience.funnel:
            found.append(out(audience.key, _as_of_join(audience.funnel)))
            joins += f" LEFT JOIN {audience.key} ON {audience.key}.profile_id = p.profile_id"
            conditions[audience.key] = f"{audience.key}.profile_id IS NOT NULL"
    columns = ", ".join(f"{sql} AS is_{key}" for key, sql in conditions.items())
    found.append(out("members", f"SELECT p.profile_id, {columns} FROM profiles p {joins}"))
    return found


def _as_of_join(one: Funnel) -> str:
    """The next child event of each parent; a parent without one in time counts."""
    same = "AND c.product_id = p.product_id" if one.same_product else ""
    return (
        "SELECT DISTINCT p.profile_id FROM "
        f"(SELECT * FROM messages WHERE event = '{one.parent}' AND {since(one.days)}) p "
        f"ASOF LEFT JOIN (SELECT * FROM messages WHERE event = '{one.child}' "
        f"AND {since(one.days)}) c "
        f"ON c.profile_id = p.profile_id {same} AND c.timestamp > p.timestamp "
        f"WHERE c.timestamp IS NULL OR c.timestamp > p.timestamp + INTERVAL {one.near} DAY"
    )
