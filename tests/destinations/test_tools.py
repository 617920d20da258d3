"""What only one tool does, or does in its own way. What all do is in `contract.py`."""

import asyncio
import json
from typing import Any

import pytest
from contract import (
    ANN,
    AUDIENCE,
    Subject,
    check,
    deliver,
    error_of,
    no_pace,
    people,
    send,
    write,
)
from pydantic import SecretStr

from personas_dagster.activation.destination import DELIVERED, Message
from personas_dagster.destinations import open_destination
from personas_dagster.destinations.braze.settings import HOSTS as BRAZE_HOSTS
from personas_dagster.destinations.mailchimp.payload import merge_tag
from personas_dagster.destinations.mailchimp.settings import MailchimpSettings
from personas_dagster.destinations.sendgrid.payload import Field, upsert
from personas_dagster.destinations.tool import Spacing
from personas_dagster.errors import (
    NeedsSetup,
    PersonasError,
    Rejected,
    Throttled,
    Unauthorized,
)
from personas_dagster.simulators import Answer
from personas_dagster.simulators.serving import Served

LISTS = ["iterable_lists", "sendgrid_lists", "hubspot_lists", "marketo_static_lists"]


def on(served: Served, type: str) -> Any:
    return Subject(type, served).account()


def bodies(account: Any, path: str = "") -> list[Any]:
    return [json.loads(r.seen.body) for r in account.requests if path in r.seen.path]


def alias() -> Message:
    body = {"type": "alias", "userId": "user-1", "previousId": "anon-9",
            "timestamp": "2026-11-22T12:00:00.000Z", "context": {}}  # fmt: skip
    return Message("alias", "m1-alias", "c", "", {"user_id": "user-1"}, None, body)


def test_regions_lead_to_hosts() -> None:
    key = SecretStr("k")
    for type, settings, host in (
        ("braze", {"api_key": key, "instance": "EU-02"}, "https://rest.fra-02.braze.eu"),
        ("customerio", {"site_id": key, "api_key": key, "region": "eu"},
         "https://track-eu.customer.io"),
        ("iterable", {"api_key": key, "region": "eu"}, "https://api.eu.iterable.com"),
        ("mixpanel", {"token": key, "region": "in"}, "https://api-in.mixpanel.com"),
        ("amplitude", {"api_key": key}, "https://api2.amplitude.com"),
        ("sendgrid", {"api_key": key, "region": "eu"}, "https://api.eu.sendgrid.com"),
        ("hubspot", {"access_token": key}, "https://api.hubapi.com"),
        ("intercom", {"access_token": key, "region": "au"}, "https://api.au.intercom.io"),
        ("mailchimp", {"api_key": key, "list_id": "1", "datacenter": "us21"},
         "https://us21.api.mailchimp.com"),
        ("zendesk", {"oauth_token": key, "subdomain": "acme"}, "https://acme.zendesk.com"),
    ):  # fmt: skip
        assert open_destination(type, settings).settings.url == host  # type: ignore[attr-defined]
    assert len(BRAZE_HOSTS) == 15


@pytest.mark.parametrize(
    ("type", "settings", "message"),
    [
        ("braze", {"api_key": "k", "instance": "US-99"}, "instance: "),
        ("zendesk", {"subdomain": "a.evil.example/", "oauth_token": "t"}, "subdomain: "),
        ("zendesk", {"subdomain": "acme"}, "expected either"),
        ("mailchimp", {"api_key": "k", "list_id": "1"}, "expected `datacenter`"),
        ("mailchimp", {"api_key": "k", "list_id": "1", "datacenter": "x/.y"}, "datacenter: "),
        ("mailchimp", {"api_key": "k", "list_id": "1", "datacenter": "us1",
                       "merge_fields": {"a": "lower"}}, "merge tag of a"),
        ("mixpanel", {"token": "t", "service_account": "a"}, "go together"),
        ("iterable_lists", {"api_key": "k", "lists": {"a": "x"}}, "as digits"),
        ("hubspot_lists", {"access_token": "k", "interval_hours": 0.5}, "interval_hours: "),
    ],
)  # fmt: skip
def test_settings_that_do_not_hold(type: str, settings: Any, message: str) -> None:
    with pytest.raises(PersonasError, match=message):
        open_destination(type, settings)


# throttling, in the words of each


def test_braze_says_when_by_an_instant_too(served: Served) -> None:
    account, opened = on(served, "braze")
    headers = {"X-RateLimit-Reset": "1795348809", "Date": "Sun, 22 Nov 2026 12:00:00 GMT"}
    account.faults.next(Answer(429, b"", headers))
    error = error_of(opened(), people(1, opened().abilities))
    assert isinstance(error, Throttled) and error.retry_after == 9.0


def test_mailchimp_throttles_by_403_without_words(served: Served) -> None:
    account, opened = on(served, "mailchimp")
    batch = people(1, opened().abilities)
    account.faults.next(Answer(403, b""))
    assert isinstance(error_of(opened(), batch), Throttled)
    account.faults.next(Answer(403, b'{"title": "User Disabled", "detail": "no"}'))
    assert isinstance(error_of(opened(), batch), Unauthorized)


# braze


def test_braze_refuses_rows_of_either_kind(served: Served) -> None:
    account, opened = on(served, "braze")
    errors = [
        {"type": "bad name", "input_array": "events", "index": 1},
        {"type": "bad value", "input_array": "attributes", "index": 0},
        {"type": "nobody's", "input_array": "purchases", "index": 0},
        {"type": "too far", "input_array": "events", "index": 9},
    ]
    said = json.dumps({"message": "success", "errors": errors}).encode()
    account.faults.next(Answer(201, said))
    batch = people(2, opened().abilities, forms=())
    outcomes = send(opened(), batch)
    assert [m.form for m in batch] == ["identify", "track"] * 2
    assert [str(o.error) for o in outcomes] == ["bad value", "None", "None", "bad name"]


def test_braze_leaves_strangers_alone_when_asked(served: Served) -> None:
    account, opened = on(served, "braze")
    destination = opened(update_existing_only=True)
    assert deliver(destination, people(1, destination.abilities)) == [DELIVERED]
    assert account.people == {}


# iterable


def test_iterable_names_rows_by_either_identifier(served: Served) -> None:
    account, opened = on(served, "iterable")
    failed = {"forgottenUserIds": ["user-000000"], "invalidDataEmails": ["P2@example.com"]}
    said = {"successCount": 1, "failCount": 2, "failedUpdates": failed}
    account.faults.next(Answer(200, json.dumps(said).encode()))
    outcomes = send(opened(), people(3, opened().abilities))
    assert [type(o.error) for o in outcomes] == [Rejected, type(None), Rejected]


def test_iterable_that_names_nobody_is_asked_in_halves(served: Served) -> None:
    account, opened = on(served, "iterable")
    account.faults.next(Answer(200, b'{"successCount": 1, "failCount": 1}'))
    assert deliver(opened(), people(2, opened().abilities)) == [DELIVERED] * 2
    assert len(account.requests) == 3


def test_iterable_matches_as_its_project_does(served: Served) -> None:
    _, opened = on(served, "iterable")
    assert opened(project="email").abilities.matches_on == ("email",)
    assert opened(project="user_id").abilities.matches_on == ("user_id",)


def test_requests_to_one_endpoint_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(round(seconds, 6))

    monkeypatch.setattr("personas_dagster.destinations.tool.time.monotonic", lambda: 100.0)
    monkeypatch.setattr("personas_dagster.destinations.tool.asyncio.sleep", sleep)
    spacing = Spacing(5)

    async def run() -> None:
        for _ in range(4):
            await spacing()

    asyncio.run(run())
    assert slept == [0.2, 0.4, 0.6]


def test_iterable_who_is_unknown_when_leaving_has_left(served: Served) -> None:
    account, opened = on(served, "iterable_lists")
    missing = {"notFoundUserIds": ["user-000000"]}
    said = {"successCount": 0, "failCount": 1, "failedUpdates": missing}
    account.faults.next(None, None, Answer(200, json.dumps(said).encode()))
    assert send(opened(), people(1, opened().abilities, "false")) == [DELIVERED]


# lists


@pytest.mark.parametrize("type", LISTS)
def test_lists_are_made_once(served: Served, type: str) -> None:
    account, opened = on(served, type)
    destination = opened(list_prefix="p: ")
    messages = people(4, destination.abilities)

    async def run() -> None:
        async with destination:
            await asyncio.gather(*(destination.send([one], no_pace) for one in messages))

    asyncio.run(run())
    assert account.lists.keys() == {f"p: {AUDIENCE}"}
    assert deliver(opened(list_prefix="p: "), people(6, destination.abilities)) == [DELIVERED] * 6
    assert len(account.members(f"p: {AUDIENCE}")) == 6


@pytest.mark.parametrize("type", LISTS)
def test_lists_that_are_there_are_used(served: Served, type: str) -> None:
    account, opened = on(served, type)
    missing = opened(create_lists=False)
    batch = people(1, missing.abilities)
    error = error_of(missing, batch)
    assert isinstance(error, NeedsSetup) and f"no list `{AUDIENCE}`" in str(error)
    assert check(missing) == str(error)
    deliver(opened(list_prefix="mine: "), batch)
    (number,) = account.names
    found = opened(lists={AUDIENCE: str(number)}, create_lists=False)
    account.requests.clear()
    assert deliver(found, people(3, found.abilities)) == [DELIVERED] * 3
    assert not [r for r in account.requests if "ist" in r.seen.path and r.seen.method == "GET"]
    assert len(account.members(f"mine: {AUDIENCE}")) == 3


@pytest.mark.parametrize(
    ("type", "value", "requests"),
    [("hubspot_lists", "true", 2), ("hubspot_lists", "false", 2), ("sendgrid_lists", "false", 2),
     ("sendgrid_lists", "true", 1), ("intercom", "true", 2), ("mailchimp", "true", 2)],
)  # fmt: skip
def test_a_dry_run_counts_what_is_asked_each_time(
    served: Served, type: str, value: str, requests: int
) -> None:
    _, opened = on(served, type)
    assert len(opened().preview(people(1, opened().abilities, value))) == requests


# mixpanel


@pytest.mark.parametrize("by", ["create_alias", "merge"])
def test_mixpanel_knows_aliases(served: Served, by: str) -> None:
    account, opened = on(served, "mixpanel")
    destination = opened(alias_by=by)
    assert destination.abilities.knows_alias
    assert send(destination, [alias()]) == [DELIVERED]
    assert account.aliases == {"anon-9": "user-1"}
    assert send(destination, [alias()]) == [DELIVERED]


def test_mixpanel_takes_the_good_events_of_a_strict_import(served: Served) -> None:
    account, opened = on(served, "mixpanel")
    abilities = opened().abilities
    rows = [({"user_id": who}, "true") for who in ("user-1", "undefined", "user-2")]
    tracks = write(abilities, rows, kind="audience", key=AUDIENCE, forms=("track",))
    outcomes = send(opened(), tracks)
    assert [type(o.error) for o in outcomes] == [type(None), Rejected, type(None)]
    assert send(opened(), [tracks[0], tracks[2]]) == [DELIVERED] * 2  # and counts none twice
    assert [event.person for event in account.events] == ["user-1", "user-2"]


def test_mixpanel_service_accounts(served: Served) -> None:
    _, opened = on(served, "mixpanel")
    more = {"service_account": "sa", "service_secret": SecretStr("s3cret"), "project_id": "42"}
    track = write(opened().abilities, [(ANN, "true")], kind="audience", key="k", forms=("track",))
    (request,) = opened(**more).preview(track)
    assert request.url.endswith("/import?strict=1&project_id=42")
    assert request.headers["Authorization"] == "***"


# amplitude


def test_amplitude_says_that_a_key_is_wrong_by_400(served: Served) -> None:
    account, opened = on(served, "amplitude")
    batch = people(1, opened().abilities)
    account.faults.next(Answer(400, b"invalid_api_key"))
    assert isinstance(error_of(opened(), batch), Unauthorized)


def test_amplitude_sends_the_good_events_again(served: Served) -> None:
    account, opened = on(served, "amplitude")
    rows = [({"user_id": who}, "true") for who in ("user-1", "u2", "user-3")]
    tracks = write(opened().abilities, rows, kind="audience", key=AUDIENCE, forms=("track",))
    outcomes = send(opened(), tracks)
    assert [type(o.error) for o in outcomes] == [type(None), Rejected, type(None)]
    assert [event.person for event in account.events] == ["user-1", "user-3"]
    assert len(account.requests) == 2
    assert send(opened(min_id_length=1), tracks) == [DELIVERED] * 3


@pytest.mark.parametrize("type", ["amplitude", "mixpanel"])
def test_one_of_two_requests_is_halved_by_itself(served: Served, type: str) -> None:
    account, opened = on(served, type)
    abilities = opened().abilities
    bad = account.bad["user_id"]
    rows = [({"user_id": who}, "true") for who in ("user-1", "user-2", bad, "user-3", "user-4")]
    both = write(abilities, rows, kind="audience", key=AUDIENCE)
    outcomes = send(opened(), both)
    assert [o.error is None for o in outcomes] == [True] * 4 + [False] * 2 + [True] * 4
    assert account.members(AUDIENCE) == {"user-1", "user-2", "user-3", "user-4"}
    assert len(account.events) == 4


# sendgrid


def test_sendgrid_fields_have_types() -> None:
    known = {
        "vip": Field("e1", "Number"),
        "since": Field("e2", "Date"),
        "tags": Field("e3", "Text"),
    }
    body = {"traits": {"vip": True, "since": "2026-11-22T10:00:00Z", "tags": ["a"],
                       "first_name": "Ann", "email": "Ann@Example.com"}}  # fmt: skip
    message = Message("identify", "m", "c", "vip", {"email": "Ann@Example.com"}, True, body)
    (contact,) = upsert([message], [0], known).body["contacts"]
    assert contact == {
        "email": "ann@example.com",
        "first_name": "Ann",
        "custom_fields": {"e1": 1, "e2": "11/22/2026", "e3": '["a"]'},
    }


def test_sendgrid_that_names_an_address_is_sent_the_rest(served: Served) -> None:
    account, opened = on(served, "sendgrid")
    batch = people(5, opened().abilities)
    said = {"errors": [{"field": "contacts[1].email", "message": "is bad"},
                       {"message": "email p3@example.com is not valid"}]}  # fmt: skip
    account.faults.next(None, None, Answer(400, json.dumps(said).encode()))
    outcomes = send(opened(), batch)
    assert [o.error is None for o in outcomes] == [True, False, True, False, True]
    assert len(account.requests) == 4


@pytest.mark.parametrize(
    ("type", "settings"),
    [("sendgrid", {"create_fields": False}), ("hubspot", {"create_properties": False}),
     ("intercom", {"create_attributes": False}), ("zendesk", {"create_fields": False}),
     ("mailchimp", {"create_merge_fields": False, "audiences_as": "merge_field"})],
)  # fmt: skip
def test_what_must_exist_first_is_said(served: Served, type: str, settings: Any) -> None:
    """And nothing is sent: the rows stay due until somebody made it."""
    account, opened = on(served, type)
    error = error_of(opened(**settings), people(1, opened().abilities))
    assert isinstance(error, NeedsSetup) and check(opened(**settings)) == str(error)
    assert "make it there, or set create_" in str(error)
    assert not account.people


@pytest.mark.parametrize("type", ["hubspot_lists", "sendgrid_lists"])
def test_a_list_that_was_deleted_meanwhile_is_said(served: Served, type: str) -> None:
    account, opened = on(served, type)
    deliver(opened(), people(1, opened().abilities))
    gone = opened(lists={AUDIENCE: "9404"})
    error = error_of(gone, people(2, gone.abilities))
    assert isinstance(error, NeedsSetup) and "no list with the id 9404" in str(error)


def test_hubspot_lists_that_choose_their_members_are_not_taken(served: Served) -> None:
    account, opened = on(served, "hubspot_lists")
    active = {"list": {"listId": "7", "name": AUDIENCE, "processingType": "DYNAMIC"}}
    for settings in ({}, {"list_id": "7"}):
        account.faults.next(Answer(200, json.dumps(active).encode()))
        assert "make a static one" in str(check(opened(), **settings))


def test_mailchimp_checks_its_audience(served: Served) -> None:
    _, opened = on(served, "mailchimp")
    assert "Mailchimp has no audience zzz" in str(check(opened(list_id="zzz")))


def test_hubspot_checks_the_property_of_accounts(served: Served) -> None:
    _, opened = on(served, "hubspot")
    assert check(opened(), collection="accounts") is None
    said = check(opened(company_property="acme_id"), collection="accounts")
    assert "HubSpot's companies have no property acme_id" in str(said)


# hubspot


def test_hubspot_finds_people_by_their_other_address(served: Served) -> None:
    account, opened = on(served, "hubspot_lists")
    account.primary["p0@example.com"] = "first@example.com"
    destination = opened()
    assert deliver(destination, people(2, destination.abilities)) == [DELIVERED] * 2
    assert account.members(AUDIENCE) == {"first@example.com", "p1@example.com"}
    assert deliver(destination, people(1, destination.abilities, "false")) == [DELIVERED]
    assert account.members(AUDIENCE) == {"p1@example.com"}


def test_hubspot_is_sent_nobody_twice_in_a_request(served: Served) -> None:
    account, opened = on(served, "hubspot")
    rows = [({"email": email}, "true") for email in ("a@x.example", "A@x.example", "b@x.example")]
    batch = write(opened().abilities, rows, kind="audience", key=AUDIENCE)
    assert send(opened(), batch) == [DELIVERED] * 3
    assert [len(body["inputs"]) for body in bodies(account, "upsert")] == [2, 1]


def test_hubspot_takes_accounts_only_with_a_property_for_them(served: Served) -> None:
    _, opened = on(served, "hubspot")
    assert opened(company_property=None).abilities.forms == ("identify",)


# intercom


def test_intercom_updates_who_is_there(served: Served) -> None:
    account, opened = on(served, "intercom")
    for value in ("true", "false", "true"):
        assert deliver(opened(), people(1, opened().abilities, value)) == [DELIVERED]
    assert len(account.contacts) == 1
    assert account.members(AUDIENCE) == {"user-000000"}


def test_intercom_events_need_somebody(served: Served) -> None:
    _, opened = on(served, "intercom")
    track = people(1, opened().abilities, forms=("track",))
    assert isinstance(error_of(opened(), track), Rejected)


def test_intercom_attaches_a_user_to_the_company(served: Served) -> None:
    account, opened = on(served, "intercom")
    abilities = opened().abilities
    ann = write(abilities, [(ANN, "true")], kind="audience", key=AUDIENCE, forms=("identify",))
    group = write(
        abilities, [({"group_id": "acme"}, "7")],
        kind="computed_trait", key="logins", collection="accounts",
    )  # fmt: skip
    deliver(opened(), [*ann, *group])
    assert account.people["user-123"]["companies"] == ["co-acme"]
    assert account.groups["acme"]["logins"] == 7


# mailchimp


def test_mailchimp_audiences_as_merge_fields(served: Served) -> None:
    account, opened = on(served, "mailchimp")
    destination = opened(audiences_as="merge_field", merge_fields={AUDIENCE: "FIRST"})
    deliver(destination, people(1, destination.abilities))
    assert account.people["p0@example.com"]["FIRST"] == "true"
    assert account.lists == {}


def test_mailchimp_subscribes_nobody_again(served: Served) -> None:
    account, opened = on(served, "mailchimp")
    account.people["p0@example.com"] = {"status": "unsubscribed"}
    deliver(opened(status_if_new="subscribed"), people(2, opened().abilities))
    assert account.people["p0@example.com"]["status"] == "unsubscribed"
    assert account.people["p1@example.com"]["status"] == "subscribed"


def test_mailchimp_tags_can_be_quiet(served: Served) -> None:
    account, opened = on(served, "mailchimp")
    deliver(opened(start_automations=False), people(1, opened().abilities))
    assert bodies(account, "/tags")[0]["is_syncing"] is True


def test_mailchimp_tags_of_like_keys_differ() -> None:
    settings = MailchimpSettings(api_key=SecretStr("k"), list_id="1", datacenter="us1")
    keys = ("total_revenue_180_days", "total_revenue_90_days", "first_name", "vip", "élan_vital")
    tags = [merge_tag(key, settings) for key in keys]
    assert len(set(tags)) == len(tags) and all(len(tag) <= 10 for tag in tags)
    assert tags[2:4] == ["FNAME", "VIP"]


# zendesk


def test_zendesk_wants_a_name_of_who_is_new(served: Served) -> None:
    account, opened = on(served, "zendesk")
    abilities = opened().abilities
    assert abilities.requires == ("name",)
    (message,) = people(1, abilities)
    traits = {k: v for k, v in message.body["traits"].items() if k != "name"}
    nameless = Message(
        message.form, message.message_id, message.connection, message.key,
        message.recipient, message.value, {**message.body, "traits": traits},
    )  # fmt: skip
    error = error_of(opened(name_people=False), [nameless])
    assert isinstance(error, Rejected) and "Name: is too short" in str(error)
    assert send(opened(), [nameless]) == [DELIVERED]
    assert account.people["user-000000"]["name"] == "p0@example.com"
    assert send(opened(), [message]) == [DELIVERED]
    assert send(opened(), [nameless]) == [DELIVERED]
    assert account.people["user-000000"]["name"] == "name of Ann"
