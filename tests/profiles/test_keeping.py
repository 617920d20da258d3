"""The profile store holds what was published, however it came to it."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
import sqlalchemy as sa

from personas_dagster import refresh
from personas_dagster.errors import StateUnavailable
from personas_dagster.profiles import keeping, reading, tables, touched
from personas_dagster.profiles.sqlite import SqliteStore
from personas_dagster.profiles.store import Held, ProfileStore, Published
from personas_dagster.spaces import Space
from personas_dagster.state.schema import refreshes
from tests.place import Place
from tests.profiles.conftest import dump

START = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)


def day(number: float) -> dt.datetime:
    return START + dt.timedelta(days=number)


def at(number: float) -> str:
    return day(number).isoformat()


def identify(received: float, **fields: Any) -> dict[str, Any]:
    return {"type": "identify", "receivedAt": at(received), **fields}


def order(received: float, **fields: Any) -> dict[str, Any]:
    return {"type": "track", "event": "Order", "receivedAt": at(received), **fields}


def again(place: Place, space: Space, folder: Path) -> dict[str, list[tuple[object, ...]]]:
    """What a store holds that was filled with the last refresh at once."""
    fresh = SqliteStore(folder)
    last = space.last_refresh()
    assert last is not None
    published = Published(
        last["refresh_id"],
        last["as_of"],
        last["versions"],
        tuple(sorted(space.computed_keys)),
        tuple(sorted(space.audience_keys)),
    )
    kept = keeping.bring_up(fresh, space.lake, space.engine, published, rules=space.rules)
    assert kept.how == "filled"
    return dump(fresh)


def messages(chance: random.Random, first: float) -> Iterator[dict[str, Any]]:
    """A day of a small world in which people are recognised, join accounts, and merge."""
    for number in range(chance.randint(3, 12)):
        when = first + number / 50
        who: dict[str, Any] = {"anonymousId": f"a{chance.randint(1, 12)}"}
        if chance.random() < 0.5:
            who["userId"] = f"u{chance.randint(1, 5)}"
        if chance.random() < 0.3:
            who["context"] = {"groupId": f"g{chance.randint(1, 2)}"}
        if chance.random() < 0.5:
            yield order(when, properties={"revenue": chance.randint(1, 9)}, **who)
        elif chance.random() < 0.2:
            account = {"groupId": f"g{chance.randint(1, 2)}", "traits": {"size": number}}
            yield {"type": "group", "receivedAt": at(when), **who, **account}
        else:
            traits = {
                "email": f"p{chance.randint(1, 6)}@x.test",
                chance.choice(["big", "spent", "other"]): number,
                "n": chance.choice([1, "é", None]),
            }
            yield identify(when, traits=traits, **who)


def passed(space: Space, count: int) -> None:
    """Refreshes that came to nothing: the next one goes to another lane."""
    rows = [
        {"run_id": uuid4().hex, "as_of": START, "status": "discarded", "started_at": START}
        for _ in range(count)
    ]
    if rows:
        with space.state.begin() as connection:
            connection.execute(sa.insert(refreshes), rows)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("often", [1, 2, touched.OFTEN])
def test_changes_lead_where_a_fill_leads(
    shop: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, often: int
) -> None:
    monkeypatch.setattr(touched, "OFTEN", often)
    chance = random.Random(seed)
    definitions = {
        "audiences/buyers": "event('Order').within(3 days).count() >= 1",
        "audiences/big": "trait('spent') >= 10",
        "computed_traits/spent": "event('Order').sum(property('revenue'))",
        "computed_traits/last": "event('Order').within(2 days).count()",
    }
    shop.define(definitions)
    ways = []
    for number in range(5):
        if number == 3:  # a definition goes: its values stay as custom traits
            (shop.root / "assets/audiences/big.yaml").unlink()
            (shop.root / "assets/computed_traits/spent.yaml").unlink()
        passed(shop.space, chance.choice([0, 0, 3, 11, 30]))
        space = shop.refresh(*messages(chance, number * 4), as_of=day(number * 4 + 1))
        if chance.random() < 0.3 and number:
            continue  # a refresh whose store died: the next catches up
        kept = refresh.keep_profiles(space)
        assert kept is not None
        ways.append(kept.how)
        assert dump(space.profiles) == again(shop, space, tmp_path / str(number))
    assert ways[0] == "filled" and set(ways[1:]) == {"changed"}
    assert any(rows for rows in dump(space.profiles).values())


def test_nothing_new_changes_nothing(shop: Place) -> None:
    space = shop.refresh(identify(1, userId="u1"), as_of=day(2))
    refresh.keep_profiles(space)
    kept = refresh.keep_profiles(space)
    assert kept is not None and kept.how == "unchanged"


def test_only_what_changed_is_written(shop: Place) -> None:
    space = shop.refresh(*[identify(1, userId=f"u{n}") for n in range(20)], as_of=day(2))
    refresh.keep_profiles(space)
    space = shop.refresh(identify(2, userId="u7", traits={"city": "Ulm"}), as_of=day(3))
    kept = refresh.keep_profiles(space)
    assert kept is not None and kept.counts is not None and kept.how == "changed"
    assert kept.profiles == 20
    assert {name: rows for name, rows in kept.counts.items() if rows} == {
        "profiles": 1,
        "trait_changes": 1,
    }


def test_changes_become_one_row_again(shop: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def row(table: str) -> list[Any]:
        return [tuple(one) for one in shop.space.profiles.rows(f"SELECT * FROM {table}", {})]

    def keep(when: int, city: str | None) -> None:
        said = identify(when, userId="u1", traits={"city": city, "n": 1.50})
        refresh.keep_profiles(shop.refresh(said, as_of=day(when)))

    for number, city in enumerate(["Ulm", "Bonn", "Köln"]):
        keep(1 + number, city)
    assert len(row("trait_changes")) == 2
    monkeypatch.setattr(touched, "OFTEN", 1)
    keep(4, None)
    ((_, body, through),) = row("traits")
    assert [(one[0], one[2]) for one in msgspec.json.decode(body)] == [("n", 1.5)]
    assert through == shop.space.last_refresh()["refresh_id"]
    assert len(row("trait_changes")) == 2  # shown no more, until each one's lane is written
    for number in range(tables.LANES):
        assert len(row("folded")) == 1
        ((_, values),) = dump(shop.space.profiles)["traits"]
        assert b"Bonn" not in values and b"1.5" in values
        shop.refresh(as_of=day(5 + number))
        refresh.keep_profiles(shop.space)
    assert (row("trait_changes"), row("folded")) == ([], [])


def test_values_that_went_do_not_come_back(shop: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What became one row and left nothing is not read from the rows that are there still."""
    refresh.keep_profiles(shop.refresh(identify(1, userId="u2"), as_of=day(1.5)))
    for number, (city, often) in enumerate([("Ulm", 10**12), (None, 1)], 2):
        monkeypatch.setattr(touched, "OFTEN", often)
        said = identify(number, userId="u1", traits={"city": city})
        refresh.keep_profiles(shop.refresh(said, as_of=day(number + 0.5)))
    store = shop.space.profiles
    assert store.rows("SELECT count(*) FROM trait_changes", {})[0][0] == 1
    found = reading.traits(store, reading.Wanted("users", "user_id:u1"))
    assert found is not None and found[1] == []


def test_a_merged_profile_is_found_by_what_it_was_known_by(shop: Place) -> None:
    refresh.keep_profiles(
        shop.refresh(identify(1, userId="u1"), order(1, anonymousId="a1"), as_of=day(2))
    )
    refresh.keep_profiles(shop.refresh(identify(2, userId="u1", anonymousId="a1"), as_of=day(3)))
    store = shop.space.profiles
    found = [
        reading.external_ids(store, reading.Wanted("users", text))
        for text in ("user_id:u1", "anonymous_id:a1")
    ]
    one, other = (hit for hit in found if hit)
    assert one[0].profile_id == other[0].profile_id
    assert [(known.type, known.id) for known in one[1]] == [
        ("anonymous_id", "a1"),
        ("user_id", "u1"),
    ]


def shown(store: ProfileStore, user_id: str) -> list[reading.Event]:
    wanted = reading.Wanted("users", f"user_id:{user_id}")
    found = reading.events(store, wanted, reading.EventsWanted(limit=9))
    assert found
    return found[1]


def test_events_fall_out_after_14_days(shop: Place) -> None:
    space = shop.refresh(order(1, userId="u1"), order(3, userId="u1", messageId="m"), as_of=day(4))
    refresh.keep_profiles(space)
    assert len(dump(space.profiles)["events"]) == 2
    for as_of, left, stored in ((15, 2, 2), (15.5, 1, 2), (16, 1, 1), (17.5, 0, 1), (18, 0, 0)):
        space = shop.refresh(as_of=day(as_of))
        refresh.keep_profiles(space)
        assert len(shown(space.profiles, "u1")) == left, as_of
        for table in ("events", "event_parts"):  # whole days are taken out
            there = space.profiles.rows(f"SELECT part FROM {table}", {})
            assert len(there) == stored, (table, as_of)


def test_events_of_clocks_that_go_wrong(shop: Place) -> None:
    """However many days ahead of their time, they take one more look each."""
    ahead = [order(1, userId="u1", messageId=f"m{n}", timestamp=at(30 * n)) for n in range(1, 4)]
    space = shop.refresh(order(1, userId="u1"), *ahead, as_of=day(2))
    refresh.keep_profiles(space)
    assert len(shown(space.profiles, "u1")) == 4
    assert len(dump(space.profiles)["event_days"]) == 2


def test_a_message_that_came_twice_is_shown_once(shop: Place) -> None:
    for received in (1, 9):  # later than messages are compared with
        same = order(received, userId="u1", messageId="m", timestamp=at(0.5))
        same["event"] = f"Order {received}"
        other = order(received, userId="u1", messageId=f"m{received}", timestamp=at(0.6))
        space = shop.refresh(same, other, as_of=day(received + 1))
        refresh.keep_profiles(space)
    store, wanted = space.profiles, reading.Wanted("users", "user_id:u1")
    for limit in (1, 2, 3, 4):
        for ascending in (True, False):
            named: list[str] = []
            after = None
            while True:
                asked = reading.EventsWanted(limit=limit, ascending=ascending, after=after)
                found = reading.events(store, wanted, asked)
                assert found is not None
                named += [one.message_id for one in found[1]]
                if len(found[1]) < limit:
                    break
                after = (found[1][-1].at, found[1][-1].message_id)
            assert named == (["m", "m1", "m9"] if ascending else ["m9", "m1", "m"]), limit


def test_filled_in_slices(shop: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values that are too many to be put together at once are, some profiles at a time."""
    people = [identify(1, userId=f"u{number}", traits={"n": number}) for number in range(20)]
    space = shop.refresh(*people, order(1, userId="u3"), as_of=day(2))
    whole = again(shop, space, tmp_path / "whole")
    assert len(whole["traits"]) == 20
    monkeypatch.setattr(keeping, "_HELD", 3)
    assert again(shop, space, tmp_path / "slices") == whole


def broken(step: tables.Step, at: int) -> tables.Step:
    """A step of a change with a statement that fails before another one."""
    staged, statements = step
    return staged, [*statements[:at], "DELETE FROM nowhere", *statements[at:]]


def test_died_on_the_way_leaves_the_store_as_it_was(
    shop: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = shop.refresh(identify(1, userId="u1"), order(1, anonymousId="a1"), as_of=day(2))
    refresh.keep_profiles(space)
    before, held = dump(space.profiles), space.profiles.held()
    space = shop.refresh(identify(2, userId="u1", anonymousId="a1"), as_of=day(3))
    steps = [tables.MESSAGES, *tables.GRAPH, tables.CHANGED, *tables.WHOLE]
    places = [(n, at) for n, (_, statements) in enumerate(steps) for at in range(len(statements))]
    for done, at in places:
        first, *others = [broken(one, at) if n == done else one for n, one in enumerate(steps)]
        with monkeypatch.context() as patch:
            patch.setattr(tables, "MESSAGES", first)
            patch.setattr(tables, "GRAPH", others[: len(tables.GRAPH)])
            patch.setattr(tables, "CHANGED", others[len(tables.GRAPH)])
            patch.setattr(tables, "WHOLE", others[-len(tables.WHOLE) :])
            with pytest.raises(StateUnavailable, match="nowhere"):
                refresh.keep_profiles(space)
        assert (dump(space.profiles), space.profiles.held()) == (before, held), (done, at)
    kept = refresh.keep_profiles(space)
    assert kept is not None and kept.how == "changed"
    assert dump(space.profiles) == again(shop, space, tmp_path / "fresh")


def test_a_store_whose_file_was_taken_away_is_filled_anew(place: Place) -> None:
    space = place.refresh(identify(1, userId="u1"), as_of=day(2))
    refresh.keep_profiles(space)
    (file,) = place.root.glob("**/profiles/*.db")
    file.unlink()
    space = place.refresh(as_of=day(3))
    with pytest.raises(StateUnavailable, match="is missing; run a refresh"):
        dump(space.profiles)
    kept = refresh.keep_profiles(space)
    assert kept is not None and kept.how == "filled"
    assert len(dump(space.profiles)["profiles"]) == 1


def test_what_an_older_version_held_is_read() -> None:
    """So that a refresh says why the store is made again."""
    older = (
        '{"format":2,"refresh_id":1,"as_of":"2026-03-01T01:00:00Z","versions":{"events":1},'
        '"graph_load":1,"event_load":1,"computed":["spent"],"audiences":[]}'
    )
    held = Held.read(older)
    assert held is not None and held.format < tables.FORMAT


def test_fill_that_dies_leaves_the_old_store(shop: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    space = shop.refresh(identify(1, userId="u1"), as_of=day(2))
    refresh.keep_profiles(space)
    before = dump(space.profiles)
    space = shop.refresh(identify(2, userId="u2"), as_of=day(3))
    with monkeypatch.context() as patch:
        patch.setattr(tables, "FORMAT", tables.FORMAT + 1)
        patch.setattr(keeping, "_held", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            refresh.keep_profiles(space)
        assert dump(space.profiles) == before
    with monkeypatch.context() as patch:
        patch.setattr(tables, "FORMAT", tables.FORMAT + 1)
        kept = refresh.keep_profiles(space)
    assert kept is not None and (kept.how, kept.why) == ("filled", "an older version made it")
    assert len(dump(space.profiles)["profiles"]) == 2


def test_graph_made_again_fills_the_store_anew(shop: Place, tmp_path: Path) -> None:
    space = shop.refresh(identify(1, userId="u1"), identify(1, userId="u2"), as_of=day(2))
    refresh.keep_profiles(space)
    with space.engine.session(space.lake) as session:
        session.view("identifiers")
        space.lake.replace("identifiers", session.fetch("SELECT * FROM identifiers"))
    space = shop.refresh(as_of=day(3))
    kept = refresh.keep_profiles(space)
    assert kept is not None and (kept.how, kept.why) == ("filled", "the graph was made again")
    assert dump(space.profiles) == again(shop, space, tmp_path / "fresh")


def test_store_that_does_not_add_up_is_filled_anew(shop: Place) -> None:
    space = shop.refresh(identify(1, userId="u1"), identify(1, userId="u2"), as_of=day(2))
    refresh.keep_profiles(space)
    with space.profiles.change() as writer:
        writer.run("DELETE FROM identifiers WHERE value = 'u2'")
    space = shop.refresh(identify(2, userId="u3"), as_of=day(3))
    kept = refresh.keep_profiles(space)
    assert kept is not None
    assert (kept.how, kept.why) == ("filled", "its rows did not add up with the graph")
    assert len(dump(space.profiles)["identifiers"]) == 3


def test_readers_see_the_old_store_until_a_change_ends(shop: Place) -> None:
    space = shop.refresh(identify(1, userId="u1"), as_of=day(2))
    refresh.keep_profiles(space)
    with space.profiles.change() as writer:
        writer.run("DELETE FROM profiles")
        assert len(dump(space.profiles)["profiles"]) == 1
    assert dump(space.profiles)["profiles"] == []
