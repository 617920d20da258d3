"""A refresh computes again only what can have changed; the result equals computing everything."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from random import Random

import pytest
import sqlalchemy as sa
from deltalake import write_deltalake

from personas_dagster import refresh, upkeep
from personas_dagster.query import evaluate, plan
from personas_dagster.spaces import Space
from personas_dagster.state.schema import refreshes
from personas_dagster.traits import standing
from personas_dagster.traits.compute import Computed
from personas_dagster.traits.custom import custom_values, show_custom_values
from personas_dagster.traits.world import prepare_world
from tests.place import NOW, Place

HOUR, DAY = dt.timedelta(hours=1), dt.timedelta(days=1)
QUERIES = {
    "computed_traits/orders": "event('Order').within(3 days).count()",
    "computed_traits/spent": "event('Order').where(property('total') > 2).sum(property('total'))",
    "computed_traits/late": "event('Order').between(1 day, 4 days).last(property('total'))",
    "computed_traits/visit": "event('Visit').expires_after(20 hours).count()",
    "computed_traits/firm": "collection: accounts\nquery: event('Order').within(2 days).count()",
    "audiences/carts": "event('Cart').where(NOT event('Order').within(parent: 1 day).count() >= 1)"
    ".within(5 days).count() >= 1",
    "audiences/buyers": "trait('orders') >= 2 OR trait('plan') = 'pro'",
    "audiences/lost": "trait('buyers') = false",
    "audiences/since": "trait('seen').within_last(2 days) AND trait('spent').exists()",
    "audiences/busy": "collection: accounts\nquery: |\n"
    "  trait('firm') >= 2 OR ANY (trait('orders') = 1)",
    "audiences/at_work": "trait('busy') = true",
}
OTHERS = {
    "computed_traits/orders": "event('Order').within(30 hours).count()",
    "computed_traits/spent": "event('Order').max(property('total'))",
    "audiences/buyers": "trait('orders') >= 1",
}
CARTS = "trait('carts').exists()"


class Days:
    """A space that lives from hour to hour, without the sample unless it is asked for."""

    def __init__(self, place: Place, random: Random, queries: Mapping[str, str] = QUERIES) -> None:
        self.place, self.random, self.now = place, random, NOW - 20 * DAY
        self.number = self.runs = 0
        place.define(queries)

    def messages(self, count: int) -> list[dict]:
        return [self._message() for _ in range(count)]

    def _message(self) -> dict:
        chance = self.random
        self.number += 1
        ago = chance.choice([0, 0, 0, 1, 5, 26, 50, 73, 97, 121, -3])  # late ones, and early ones
        stamp = self.now - ago * HOUR - dt.timedelta(minutes=chance.randrange(60))
        user, browser = f"u{chance.randrange(12)}", f"a{chance.randrange(16)}"
        row = {
            "messageId": f"m{self.number}",
            "timestamp": stamp.isoformat(),
            "receivedAt": (self.now + dt.timedelta(seconds=self.number)).isoformat(),
        }
        who = chance.choice([{"userId": user}, {"anonymousId": browser}])
        if chance.random() < 0.08:
            who = {"userId": user, "anonymousId": browser}
        kind = chance.choice(["Order", "Order", "Cart", "Visit", "identify", "group"])
        if kind == "identify":
            day = f"{stamp:%Y-%m-%d}"
            traits = chance.choice([{"plan": "pro"}, {"plan": "free"}, {"seen": day}])
            return row | who | {"type": "identify", "traits": traits}
        if kind == "group":
            if chance.random() < 0.7:
                return row | who | {"type": "track", "event": "Visit"}
            return row | {"type": "group", "userId": user, "groupId": f"g{chance.randrange(4)}"}
        total = {"total": chance.choice([1, 2.5, "3", None])}
        return row | who | {"type": "track", "event": kind, "properties": total}

    def live(self, count: int, hours: int, *, sample: int = 0) -> Computed:
        """Take in messages, then refresh so many hours later."""
        rows = self.messages(count)
        self.now += hours * HOUR
        return self.refresh(rows, sample=sample)

    def refresh(self, rows: list[dict] = (), *, sample: int = 0) -> Computed:
        space = self.place.space
        if rows:
            self.place.take(self.place.messages(*rows), space=space)
        self.runs += 1
        this = refresh.begin(space, run_id=f"run {self.runs}", now=self.now)
        self.custom = refresh.custom_traits(space, this, sample=sample)
        computed = refresh.compute_definitions(space, this, sample=sample)
        refresh.finish(space, this, now=self.now)
        return computed


def stored(space: Space) -> set[tuple[str, str, str]]:
    with space.session() as session:
        rows = session.fetch(
            "SELECT key, profile_id, value FROM trait_values WHERE class = 'computed_trait' "
            "UNION ALL SELECT audience, profile_id, 'true' FROM members"
        ).to_pylist()
    return {tuple(row.values()) for row in rows}


def anew(space: Space, as_of: dt.datetime) -> set[tuple[str, str, str]]:
    """All definitions, computed of everybody."""
    with space.session() as session:
        prepare_world(session)
        definitions = refresh.dated_definitions(space)
        evaluate(session, plan(definitions, as_of=as_of, audiences=space.audience_keys))
        rows = session.fetch("SELECT key, profile_id, value FROM results").to_pylist()
    return {tuple(row.values()) for row in rows}


@pytest.fixture
def life(place: Place, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Days:
    monkeypatch.setattr(standing, "MOST", 1.0)
    return Days(place, Random(getattr(request, "param", 0)))


@pytest.mark.slow
@pytest.mark.parametrize("life", range(3), indirect=True)
def test_equals_computing_everything(life: Days) -> None:
    """Late and early messages, merges, hours without any, definitions that change."""
    life.live(80, 1)
    partly = 0
    for step in range(7):
        if step in (2, 5):
            life.place.define(
                OTHERS if step == 2 else {"audiences/lost": "trait('carts').exists()"}
            )
        count, hours = life.random.choice([(0, 1), (0, 30), (4, 1), (6, 0), (3, 7), (10, 1)])
        computed = life.live(count, hours)
        partly += computed.touched is not None
        space = life.place.space
        assert stored(space) == anew(space, life.now.replace(minute=0)), f"step {step}"
        assert custom(space) == custom(space, life.now.replace(minute=0)), f"step {step}"
        values, members = sizes(space)
        assert {k: n for k, n in computed.traits_held.items() if n} == values
        assert {k: m.size for k, m in computed.movements.items() if m.size} == members
    assert partly >= 5


def custom(space: Space, anew: dt.datetime | None = None) -> list[dict]:
    """The custom traits that are stored, or those that all messages make."""
    with space.session() as session:
        if anew:
            custom_values(session, as_of=anew, promote=space.promotions)
            show_custom_values(session)
        query = "SELECT collection, profile_id, key, value FROM current_custom_traits ORDER BY ALL"
        return session.fetch(query).to_pylist()


def sizes(space: Space) -> tuple[dict[str, int], dict[str, int]]:
    with space.session() as session:
        found = [
            session.fetch(query).to_pylist()
            for query in (
                "SELECT key, count(*) AS n FROM trait_values WHERE class = 'computed_trait' "
                "GROUP BY key",
                "SELECT audience AS key, count(*) AS n FROM members GROUP BY audience",
            )
        ]
    values, members = ({row["key"]: row["n"] for row in rows} for rows in found)
    return values, members


def make_wrong(space: Space, log: str, key: str) -> str:
    """Put another value in place of somebody's; returns whose."""
    with space.engine.session(space.lake) as session:
        session.view(log)
        rows = session.fetch(
            f"SELECT * REPLACE ('77' AS value, 1 AS refresh_id) FROM {log} "
            f"WHERE key = '{key}' LIMIT 1"
        )
    profile_id = str(rows.column("profile_id")[0].as_py())
    space.lake.replace(log, rows, where=f"profile_id = '{profile_id}' AND key = '{key}'")
    return profile_id


@pytest.mark.parametrize("historical", [True, False])
def test_messages_of_one_instant(place: Place, historical: bool) -> None:
    """What settles their order is read of whom it settles something; others have values as well."""
    reading = {
        f"computed_traits/{reducer}": f"event('Order').{reducer}(property('total'))"
        for reducer in ("first", "last")
    }
    audience = "event('Order').last(property('total')) = 9"
    if not historical:
        audience = f"query: {audience}\ninclude_historical: false"
    life = Days(place, Random(0), reading | {"audiences/nine": audience})
    at = life.now - HOUR

    def order(who: dict, number: int, total: int, *, received: int = 0, ago: int = 0) -> dict:
        stamps = {
            "timestamp": (at - ago * HOUR).isoformat(),
            "receivedAt": (life.now + dt.timedelta(seconds=received)).isoformat(),
        }
        message = {"type": "track", "event": "Order", "messageId": f"m{number}", **who, **stamps}
        return message | {"properties": {"total": total}}

    ann, bob, cid = {"userId": "ann"}, {"userId": "bob"}, {"userId": "cid"}
    browser = {"anonymousId": "a1"}
    life.refresh(
        [order(ann, 10, 5), order(bob, 3, 5), order(cid, 12, 5), order(browser, 0, 6, received=1)]
    )
    life.now += HOUR
    earlier = -3600
    computed = life.refresh(
        [
            order(ann, 19, 1, received=earlier - 1),  # came first, whatever its name
            order(ann, 1, 9),
            order(bob, 2, 1, received=earlier),  # came with the other: the name settles it
            order(bob, 99, 9, received=earlier),
            order(cid | browser, 97, 7, ago=1),  # a merge brings two together
        ]
    )
    assert computed.touched is not None
    held = stored(place.space)
    totals = {(key, value) for key, _, value in held if key in ("first", "last")}
    assert totals == {("first", "1"), ("first", "7"), ("last", "6"), ("last", "9")}
    assert held == anew(place.space, life.now)


@pytest.mark.parametrize("names", ["19", "91"])
def test_messages_of_one_instant_of_an_accounts_users(place: Place, names: str) -> None:
    last = "collection: accounts\nquery: event('Order').last(property('total'))"
    life = Days(place, Random(0), {"computed_traits/last": last})
    users = ("ann", "bob", *(f"u{number}" for number in range(20)))
    received = life.now.isoformat()
    others = [
        {"type": "identify", "userId": user, "receivedAt": received, "messageId": user}
        for user in users
    ]
    groups = [
        {
            "type": "group",
            "userId": user,
            "groupId": "g",
            "receivedAt": received,
            "messageId": user * 2,
        }
        for user in users[:2]
    ]
    life.refresh(others + groups)
    life.now += HOUR
    stamps = {"timestamp": received, "receivedAt": life.now.isoformat()}
    orders = [
        {"type": "track", "event": "Order", "userId": user, "messageId": f"m{name}", **stamps}
        | {"properties": {"total": int(name)}}
        for user, name in zip(("ann", "bob"), names, strict=True)
    ]
    assert life.refresh(orders).touched is not None
    assert {value for _, _, value in stored(place.space)} == {"9"}


def test_messages_of_an_earlier_version(life: Days) -> None:
    """Those in files without the halves of ids are found by the ids, until they are filled."""
    life.live(80, 1)
    lake = life.place.space.lake

    def without() -> int:
        with life.place.space.engine.session(lake) as session:
            session.view("events")
            return len(session.fetch("FROM events WHERE profile_low IS NULL"))

    with life.place.space.engine.session(lake) as session:
        session.view("events")
        texts = session.fetch("SELECT * EXCLUDE (profile_high, profile_low) FROM events")
    options = {"mode": "overwrite", "schema_mode": "overwrite", "partition_by": ["month"]}
    write_deltalake(f"{lake.root}/events", texts, **options)
    assert without() == 80
    for _ in range(3):
        assert life.live(8, 13).touched
        assert stored(life.place.space) == anew(life.place.space, life.now)
    assert without() == 80
    assert upkeep.tend(life.place.space, now=life.now).filled
    assert without() == 0
    assert life.live(8, 13).touched
    assert stored(life.place.space) == anew(life.place.space, life.now)


def test_identifiers_of_an_earlier_version(life: Days) -> None:
    """An hour without messages looks nothing up in them, and still has to know who is known."""
    life.live(80, 1)
    lake = life.place.space.lake
    with life.place.space.engine.session(lake) as session:
        session.view("identifiers")
        texts = session.fetch("SELECT * EXCLUDE (profile_high, profile_low) FROM identifiers")
    lake.replace("identifiers", texts)
    assert life.live(0, 1).touched is None
    for _ in range(2):
        assert life.live(0, 13).touched
        assert stored(life.place.space) == anew(life.place.space, life.now)


def test_nothing_new(life: Days) -> None:
    """A second refresh of the same instant computes nobody."""
    life.place.define({"audiences/since": "trait('seen').exists()"})
    life.live(30, 1)
    computed = life.live(0, 0)
    assert computed.touched == 0
    assert not any(computed.traits_changed.values())


def test_wrong_value_is_found_and_mended(life: Days) -> None:
    life.live(30, 1)
    space = life.place.space
    right = stored(space)
    wrong = make_wrong(space, "computed_traits", "spent")
    computed = life.live(0, 0, sample=1_000_000)
    assert computed.check and ("spent", wrong) in computed.check.wrong
    assert computed.record is None
    assert stored(space) == right
    assert life.live(0, 0).touched is None


def test_wrong_custom_trait_is_found_and_mended(life: Days) -> None:
    life.live(60, 1)
    space = life.place.space
    right = custom(space)
    wrong = make_wrong(space, "custom_traits", "plan")
    life.live(0, 0)
    assert custom(space) != right
    assert (life.custom.touched, life.custom.check and life.custom.check.profiles) == (0, 0)
    life.live(0, 0, sample=1_000_000)
    assert life.custom.check and life.custom.check.wrong == [("plan", wrong)]
    assert life.custom.record is None
    assert custom(space) == right
    life.live(0, 0)
    assert life.custom.touched is None
    life.live(0, 0)
    assert life.custom.touched == 0


def test_graph_that_was_derived_anew(life: Days) -> None:
    """What was computed on another graph does not stand."""
    life.live(30, 1)
    space = life.place.space
    with space.engine.session(space.lake) as session:
        session.view("identifiers")
        space.lake.replace("identifiers", session.fetch("SELECT * FROM identifiers"))
    assert life.live(0, 1).touched is None
    assert life.live(0, 1).touched is not None


def test_old_version_that_is_gone(life: Days, monkeypatch: pytest.MonkeyPatch) -> None:
    """What upkeep took away cannot be compared: everybody is computed."""
    life.live(10, 1)
    with life.place.space.state.begin() as connection:
        connection.execute(sa.update(refreshes).values(versions={"identifiers": 99}))
    assert life.live(0, 1).touched is None
