"""What a sync sends, to whom, and why."""

import pytest
from world import World, buyers, spend

from personas_dagster.activation.connection import EventNames
from personas_dagster.activation.destination import Abilities
from personas_dagster.errors import PersonasError


def test_two_emails_two_messages(world: World) -> None:
    world.person("p1", user_id="u1", email=["a@x", "b@x"])
    world.members["buyers"] = {"p1"}
    report = world.sync()
    assert world.tool.told == [("u1+a@x", True), ("u1+b@x", True)]
    assert report.connections["c"].sent == {"backfill": 2}
    assert report.counts["messages"] == 4  # an identify and a track each


@pytest.mark.parametrize(("email", "expected"), [("first", "u1+a@x"), ("last", "u1+b@x")])
def test_one_email_chosen(world: World, email: str, expected: str) -> None:
    world.person("p1", user_id="u1", email=["a@x", "b@x"])
    world.members["buyers"] = {"p1"}
    world.sync(buyers(email=email))
    assert world.tool.told == [(expected, True)]


def test_second_sync_sends_nothing(world: World) -> None:
    world.person("p1", user_id="u1", email="a@x")
    world.traits["computed_trait", "spend"] = {"p1": 450.0}
    world.members["buyers"] = {"p1"}
    world.sync(buyers(), spend())
    assert world.sync(buyers(), spend()).requests == 0


def test_changed_trait(world: World) -> None:
    world.person("p1", user_id="u1")
    world.person("p2", user_id="u2")
    world.traits["computed_trait", "spend"] = {"p1": 1, "p2": 2}
    world.sync(spend())
    assert world.tool.told == [("u1", 1), ("u2", 2)]
    world.traits["computed_trait", "spend"] = {"p1": 5}
    assert world.sync(spend()).connections["t"].sent == {"changed": 2}
    assert world.tool.told == [("u1", 5), ("u2", None)]


def test_enter_and_exit(world: World) -> None:
    world.person("p1", user_id="u1")
    world.person("p2", user_id="u2")
    world.members["buyers"] = {"p1"}
    world.sync()
    assert world.tool.told == [("u1", True)]
    world.members["buyers"] = {"p2"}
    assert world.sync().connections["c"].sent == {"entered": 1, "exited": 1}
    assert world.tool.told == [("u1", False), ("u2", True)]
    world.members["buyers"] = {"p1", "p2"}
    assert world.sync().connections["c"].sent == {"entered": 1}


def test_exit_goes_to_all_that_were_sent(world: World) -> None:
    world.person("p1", email="a@x")
    world.person("p2", user_id="u2")
    world.members["buyers"] = {"p1", "p2"}
    world.sync()
    world.person("p1", user_id="u1", email="b@x")
    world.sync()
    world.tool.taken.clear()
    world.members["buyers"] = {"p2"}
    world.sync()
    assert world.tool.told == [("a@x", False), ("u1+a@x", False), ("u1+b@x", False)]


def test_identifiers_never_sent_get_no_exit(world: World) -> None:
    world.person("p1", user_id="u1", email="a@x")
    world.person("p2", user_id="u2")
    world.members["buyers"] = {"p1", "p2"}
    world.sync()
    world.tool.taken.clear()
    world.members["buyers"] = {"p2"}
    world.person("p1", email="late@x")
    world.sync()
    assert world.tool.told == [("u1+a@x", False)]


def test_new_identifier_is_sent_the_value(world: World) -> None:
    world.person("p1", user_id="u1", email="a@x")
    world.members["buyers"] = {"p1"}
    world.sync()
    world.person("p1", email="b@x")
    assert world.sync().connections["c"].sent == {"new_identifier": 1}
    assert world.tool.told == [("u1+a@x", True), ("u1+b@x", True)]


def test_new_identifier_turned_off(world: World) -> None:
    world.person("p1", user_id="u1", email="a@x")
    world.traits["computed_trait", "spend"] = {"p1": 1}
    quiet = spend(resend_new_identifiers=False)
    world.sync(quiet)
    world.person("p1", email="b@x")
    assert world.sync(quiet).requests == 0
    world.tool.taken.clear()
    world.traits["computed_trait", "spend"] = {"p1": 2}
    world.sync(quiet)
    assert world.tool.told == [("u1+a@x", 2), ("u1+b@x", 2)]


def test_unmatched_identifier_is_not_resent(world: World) -> None:
    world.tool.abilities = Abilities(kind="event", matches_on=("user_id",))
    world.person("p1", user_id="u1", email="a@x")
    world.members["buyers"] = {"p1"}
    world.sync()
    world.person("p1", email="b@x")
    assert world.sync().requests == 0


def test_merge_of_two_members(world: World) -> None:
    world.person("p1", email="a@x")
    world.person("p2", user_id="u2", email="b@x")
    world.members["buyers"] = {"p1", "p2"}
    world.sync()
    world.tool.taken.clear()
    world.merge("p1", "p2")
    assert world.sync().connections["c"].sent == {"new_identifier": 1}
    assert world.tool.told == [("u2+a@x", True)]  # the pair is new, no exit for anyone
    world.members["buyers"] = set()
    world.sync(allow={"c": "all left"})
    assert world.tool.told == [("a@x", False), ("u2+a@x", False), ("u2+b@x", False)]


@pytest.mark.parametrize(("root", "child"), [("p1", "p2"), ("p2", "p1")])
def test_merge_of_member_and_other(world: World, root: str, child: str) -> None:
    world.person("p1", user_id="u1", email="a@x")
    world.person("p2", email="b@x")
    world.members["buyers"] = {"p1"}
    world.sync()
    world.tool.taken.clear()
    world.merge(child, root)
    world.members["buyers"] = {root}
    world.sync()
    assert world.tool.told == [("u1+b@x", True)]


def test_merge_that_leaves_the_audience(world: World) -> None:
    world.person("p1", user_id="u1")
    world.person("p2", email="b@x")
    world.person("p3", email="c@x")
    world.members["buyers"] = {"p2", "p3"}
    world.sync()
    world.tool.taken.clear()
    world.merge("p2", "p1")
    world.sync()
    assert world.tool.told == [("b@x", False)]


def test_merge_names_its_reason(world: World) -> None:
    from personas_dagster.lake.tables import TABLES

    world.person("p1", user_id="u1", email="a@x")
    world.person("p2", email="b@x")
    world.members["buyers"] = {"p1"}
    world.sync()
    first = {"collection": "users", "type": "email", "value": "b@x", "profile_id": "p2"}
    schema = TABLES["identifiers"].schema
    world.lake.append("identifiers", schema.empty_table().from_pylist([first], schema=schema))
    world.merge("p2", "p1")
    assert world.sync().connections["c"].sent == {"merge": 1}


def test_no_backfill(world: World) -> None:
    for n in ("1", "2", "3"):
        world.person(f"p{n}", user_id=f"u{n}")
    world.members["buyers"] = {"p1"}
    later = buyers(backfill=False)
    assert world.sync(later).requests == 0
    world.members["buyers"] = {"p1", "p2"}
    world.person("p1", email="a@x")
    assert world.sync(later).connections["c"].sent == {"entered": 1}
    assert world.tool.told == [("u2", True)]
    world.members["buyers"] = {"p2"}
    assert world.sync(later).requests == 0  # its entry was never sent
    world.members["buyers"] = {"p1", "p2"}
    world.sync(later)
    assert world.tool.told == [("u1+a@x", True)]


def test_no_historical_data(world: World) -> None:
    world.tool.abilities = Abilities(kind="event", matches_on=("user_id",), takes_historical=False)
    world.person("p1", user_id="u1")
    world.members["buyers"] = {"p1"}
    assert world.sync().requests == 0


def test_connection_made_later(world: World) -> None:
    world.person("p1", user_id="u1")
    world.members["buyers"] = {"p1"}
    world.sync()
    report = world.sync(buyers(), buyers(name="second"))
    assert report.connections["second"].sent == {"backfill": 1}
    assert not report.connections["c"].sent


def test_without_user_id(world: World) -> None:
    world.person("p1", email=["a@x", "b@x"], anonymous_id="anon")
    world.person("p2", ios__idfa="device")
    world.person("p3", anonymous_id="anon3")
    world.members["buyers"] = {"p1", "p2", "p3"}
    world.sync(buyers(forms=("identify",)))
    bodies = sorted(world.tool.bodies, key=str)
    assert [b.get("anonymousId") for b in bodies].count("anon3") == 1
    assert [b["traits"].get("email") for b in bodies].count("a@x") == 1
    assert [b["context"].get("device") for b in bodies].count(
        {"type": "ios", "advertisingId": "device"}
    ) == 1
    assert len(bodies) == 4


def test_not_sendable(world: World) -> None:
    world.tool.abilities = Abilities(kind="event", matches_on=("user_id", "email"))
    world.person("p1", anonymous_id="anon")
    world.person("p2", ios__idfa="device")
    world.person("p3", email="a@x")
    world.person("p4", anonymous_id="anon4", phone="+1")
    world.members["buyers"] = set(world.people)
    report = world.sync()
    assert report.connections["c"].not_sendable == {"only_anonymous": 1, "no_identifier": 2}
    assert report.connections["c"].confirmed == 1


def test_enrich(world: World) -> None:
    world.person("p1", user_id="u1", email="a@x")
    world.traits["custom_trait", "name"] = {"p1": "Ann"}
    world.members["buyers"] = {"p1"}
    world.sync(buyers(enrich=("name", "absent")))
    identify, track = world.tool.bodies
    assert identify["traits"] == {"name": "Ann", "email": "a@x", "buyers": True}
    assert track["context"]["traits"] == {"name": "Ann", "email": "a@x"}


def test_keys_that_a_tool_requires_go_along(world: World) -> None:
    world.tool.abilities = Abilities(kind="event", matches_on=("user_id",), requires=("name",))
    world.person("p1", user_id="u1")
    world.traits["custom_trait", "name"] = {"p1": "Ann"}
    world.members["buyers"] = {"p1"}
    world.sync()
    identify, track = world.tool.bodies
    assert identify["traits"]["name"] == track["context"]["traits"]["name"] == "Ann"


def test_events_by_other_names(world: World) -> None:
    names = EventNames(entered="Came", exited="Went", computed="Spent")
    world.person("p1", user_id="u1")
    world.traits["computed_trait", "spend"] = {"p1": 1}
    world.members["buyers"] = {"p1"}
    both = [buyers(events=names, forms=("track",)), spend(events=names, forms=("track",))]
    world.sync(*both)
    world.members["buyers"].clear()
    world.sync(*both, allow={"c": "all left"})
    assert [body["event"] for body in world.tool.bodies] == ["Came", "Spent", "Went"]


def acme(world: World) -> None:
    world.accounts = {"a1": "acme", "a2": "globex"}
    world.person("p1", user_id="u1")
    world.person("p2", user_id="u2")
    world.links = {("p1", "a1"), ("p1", "a2"), ("p2", "a2")}


def test_account_trait_as_group(world: World) -> None:
    acme(world)
    world.traits["computed_trait", "spend"] = {"a1": 7}
    world.sync(spend(collection="accounts"))
    (group,) = world.tool.bodies
    assert (group["type"], group["groupId"], group["userId"]) == ("group", "acme", "u1")
    assert group["traits"] == {"spend": 7}


def test_account_audience_as_users(world: World) -> None:
    acme(world)
    world.members["buyers"] = {"a1", "a2"}
    users = buyers(collection="accounts", forms=("identify",))
    world.sync(users)
    assert world.tool.told == [("u1", True), ("u2", True)]
    world.members["buyers"] = {"a1"}  # u1 is still in, through acme
    world.sync(users)
    assert world.tool.told == [("u2", False)]


def test_user_linked_later(world: World) -> None:
    acme(world)
    world.members["buyers"] = {"a1"}
    both = buyers(collection="accounts", forms=("group", "identify"))
    world.sync(both)
    world.tool.taken.clear()
    world.links.add(("p2", "a1"))
    assert world.sync(both).connections["c"].sent == {"linked": 1}
    assert world.tool.told == [("u2", True)]


def test_list_destination(world: World) -> None:
    world.tool.abilities = Abilities(kind="list", accepts=("audience",), matches_on=("email",))
    world.person("p1", email="a@x")
    world.person("p2", email="b@x")
    world.members["buyers"] = {"p1", "p2"}
    world.sync()
    world.members["buyers"] = {"p2"}
    world.sync()
    assert [(m.form, m.recipient["email"]) for m in world.tool.taken] == [
        ("add", "a@x"), ("add", "b@x"), ("remove", "a@x"),
    ]  # fmt: skip


def test_accounts_at_a_list_are_their_users(world: World) -> None:
    world.tool.abilities = Abilities(kind="list", accepts=("audience",), matches_on=("user_id",))
    acme(world)
    world.members["buyers"] = {"a1", "a2"}
    world.sync(buyers(collection="accounts"))
    world.members["buyers"] = {"a1"}
    world.sync(buyers(collection="accounts"))
    assert [(m.form, m.recipient["user_id"]) for m in world.tool.taken] == [
        ("add", "u1"), ("add", "u2"), ("remove", "u2"),
    ]  # fmt: skip


def test_list_destination_refuses_traits(world: World) -> None:
    world.tool.abilities = Abilities(kind="list", accepts=("audience",), matches_on=("email",))
    with pytest.raises(PersonasError, match="takes audiences only"):
        world.sync(spend())


def test_message_ids_come_from_content(world: World) -> None:
    world.person("p1", user_id="u1")
    world.members["buyers"] = {"p1"}
    world.sync()
    (row,) = world.ledger()
    identify, track = world.tool.bodies
    assert identify["messageId"] == f"{row['message_id']}-identify"
    assert track["messageId"] == f"{row['message_id']}-track"
    assert (row["outcome"], row["reason"], row["value"]) == ("confirmed", "backfill", "true")


def test_batches_keep_a_profile_together(world: World) -> None:
    world.tool.abilities = Abilities(kind="event", matches_on=("email",), batch_size=3)
    world.person("p1", email=["a@x", "b@x"])
    world.person("p2", email=["c@x", "d@x"])
    world.members["buyers"] = {"p1", "p2"}
    world.sync(buyers(forms=("identify",)))
    assert sorted(len(call) for call in world.tool.calls) == [2, 2]


def test_batches_by_size(world: World) -> None:
    world.tool.abilities = Abilities(
        kind="event", matches_on=("user_id",), batch_size=100, max_batch_bytes=1_000
    )
    for n in range(20):
        world.person(f"p{n}", user_id=f"u{n}")
    world.members["buyers"] = set(world.people)
    world.sync()
    assert max(len(str(m.body)) for call in world.tool.calls for m in call) < 1_000
    assert 10 <= len(world.tool.calls) <= 40
