"""What only Marketo does: tokens, errors inside answers of 200, ids of leads."""

import asyncio
import json
from typing import Any

import pytest
from contract import AUDIENCE, Subject, check, deliver, error_of, no_pace, people, send, write
from pydantic import SecretStr

from personas_dagster.activation.destination import DELIVERED
from personas_dagster.destinations import open_destination
from personas_dagster.errors import (
    DeliveryError,
    NeedsSetup,
    PersonasError,
    Rejected,
    Throttled,
    Unauthorized,
    Unavailable,
)
from personas_dagster.simulators import Answer
from personas_dagster.simulators.serving import Served

_SYNC = "/rest/v1/leads.json"
BOTH = ["marketo", "marketo_static_lists"]


def on(served: Served, type: str = "marketo") -> Any:
    return Subject(type, served).account()


def said(code: str, **headers: str) -> Answer:
    body = {"success": False, "errors": [{"code": code, "message": "as the vendor says"}]}
    return Answer(200, json.dumps(body).encode(), headers)


def tokens(account: Any) -> int:
    return sum("/oauth/token" in request.seen.path for request in account.requests)


# tokens


@pytest.mark.parametrize("type", BOTH)
def test_a_token_is_fetched_once_for_all(served: Served, type: str) -> None:
    account, opened = on(served, type)
    destination = opened(batch_size=1)

    async def run() -> None:
        async with destination:
            batch = people(6, destination.abilities)
            await asyncio.gather(*(destination.send([one], no_pace) for one in batch))
            account.expire()
            await asyncio.gather(*(destination.send([one], no_pace) for one in batch))

    asyncio.run(run())
    assert tokens(account) == 2
    assert len(account.members(AUDIENCE)) == 6


def test_a_token_that_is_refused_again_is_no_way_in(served: Served) -> None:
    account, opened = on(served)
    account.faults.next(None, said("602"), None, said("601"))
    assert isinstance(error_of(opened(), people(1, opened().abilities)), Unauthorized)
    assert tokens(account) == 2


def test_a_wrong_secret_is_no_way_in(served: Served) -> None:
    account, opened = on(served)
    wrong = opened(client_secret=SecretStr("another"))
    error = error_of(wrong, people(1, wrong.abilities))
    assert isinstance(error, Unauthorized) and "another" not in str(error)
    assert not account.people


def test_a_secret_is_masked_as_it_stands_in_an_address(served: Served) -> None:
    """Some answer with the address that was asked, in which a secret is encoded."""
    account, opened = on(served)
    key = "p+w/d=5f1e 0c77"
    account.faults.next(lambda seen: Answer(500, seen.target.encode()))
    error = error_of(opened(client_secret=SecretStr(key)), people(1, opened().abilities))
    assert "p%2Bw" not in str(error) and "0c77" not in str(error)
    assert "client_credentials" in str(error)


# what codes mean


@pytest.mark.parametrize(
    ("code", "kind"),
    [("600", Unauthorized), ("603", Unauthorized), ("606", Throttled), ("607", Throttled),
     ("615", Throttled), ("1016", Throttled), ("1029", Throttled), ("502", Unavailable),
     ("604", Unavailable), ("608", Unavailable), ("611", Unavailable), ("614", Unavailable),
     ("713", Unavailable), ("719", Unavailable), ("609", Rejected), ("612", Rejected),
     ("701", Rejected), ("1003", Rejected), ("1006", NeedsSetup), ("1018", NeedsSetup)],
)  # fmt: skip
def test_codes(served: Served, code: str, kind: type[DeliveryError]) -> None:
    account, opened = on(served)
    batch = people(1, opened().abilities)
    account.faults.next(None, None, None, said(code))
    error = error_of(opened(), batch)
    assert type(error) is kind and f"{code}: as the vendor says" in str(error)


def test_the_rate_names_no_time(served: Served) -> None:
    account, opened = on(served)
    account.faults.next(said("606"))
    error = error_of(opened(throttle_pause=3), people(1, opened().abilities))
    assert isinstance(error, Throttled) and error.retry_after == 3


@pytest.mark.parametrize(
    ("date", "seconds"),
    [("Sun, 22 Nov 2026 05:59:00 GMT", 60), ("Sun, 22 Nov 2026 06:00:00 GMT", 86_400),
     ("Thu, 16 Jul 2026 04:00:00 GMT", 3_600), ("Sun, 01 Nov 2026 05:00:00 GMT", 90_000),
     ("whenever", 3_600), (None, 3_600)],
)  # fmt: skip
def test_the_days_quota_begins_anew_at_midnight(
    served: Served, date: str | None, seconds: float
) -> None:
    account, opened = on(served)
    account.faults.next(said("607", **({"Date": date} if date else {})))
    error = error_of(opened(), people(1, opened().abilities))
    assert isinstance(error, Throttled) and error.retry_after == seconds


def test_the_simulator_counts_the_days_calls(served: Served) -> None:
    account, opened = on(served)
    account.quota = 3
    batch = people(2, opened().abilities)
    assert send(opened(), batch) == [DELIVERED] * 2
    assert isinstance(error_of(opened(), batch), Throttled)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"success": true, "result": []}'])
def test_an_answer_without_rows_is_no_success(served: Served, body: bytes) -> None:
    account, opened = on(served)
    account.faults.next(None, None, None, Answer(200, body))
    assert isinstance(error_of(opened(), people(1, opened().abilities)), Unavailable)


def test_rows_that_were_skipped(served: Served) -> None:
    account, opened = on(served)
    result = [
        {"id": 1, "status": "created"},
        {"status": "skipped", "reasons": [{"code": "1007", "message": "Multiple leads match"}]},
        {"status": "skipped", "reasons": [{"code": "713", "message": "Transient Error"}]},
        {"status": "skipped"},
        {"id": 9},
        None,
    ]
    answer = Answer(200, json.dumps({"success": True, "result": result}).encode())
    account.faults.next(None, None, None, answer)
    outcomes = send(opened(), people(6, opened().abilities))
    kinds = [type(None), Rejected, Unavailable, Rejected, Unavailable, Unavailable]
    assert [type(o.error) for o in outcomes] == kinds
    assert str(outcomes[1].error) == "1007: Multiple leads match"


# leads


def test_fields_go_by_marketos_names(served: Served) -> None:
    account, opened = on(served)
    destination = opened(fields={AUDIENCE: "firstTimeShopper"})
    rows = [({"email": "Ann@Example.com"}, "true")]
    message = write(destination.abilities, rows, kind="audience", key=AUDIENCE)
    assert deliver(destination, message) == [DELIVERED] * 2
    assert account.people["ann@example.com"]["firstTimeShopper"] is True
    assert account.fields["firstTimeShopper"] == "boolean"


def test_leads_by_user_id(served: Served) -> None:
    account, opened = on(served)
    account.fields["userId"] = "string"
    destination = opened(user_id_field="userId", partition="Europe")
    assert destination.abilities.matches_on == ("user_id",)
    deliver(destination, people(1, destination.abilities))
    assert account.people["user-000000"]["email"] == "p0@example.com"
    (body,) = [json.loads(r.seen.body) for r in account.requests if _SYNC in r.seen.path]
    assert (body["lookupField"], body["partitionName"]) == ("userId", "Europe")


def test_nobody_is_twice_in_a_request(served: Served) -> None:
    account, opened = on(served)
    rows = [({"email": email}, "true") for email in ("a@x.example", "A@x.example", "b@x.example")]
    both = write(opened().abilities, rows, kind="audience", key=AUDIENCE)
    assert send(opened(), both) == [DELIVERED] * 6
    sent = [json.loads(r.seen.body)["input"] for r in account.requests if _SYNC in r.seen.path]
    assert [len(rows) for rows in sent] == [2, 1, 2]
    assert len(account.events) == 3


def test_events_of_leads_that_are_no_good(served: Served) -> None:
    account, opened = on(served)
    rows = [({"email": email}, "true") for email in ("a@x.example", "nowhere", "b@x.example")]
    tracks = write(opened().abilities, rows, kind="audience", key=AUDIENCE, forms=("track",))
    outcomes = send(opened(), tracks)
    assert [type(o.error) for o in outcomes] == [type(None), Rejected, type(None)]
    assert [event.person for event in account.events] == ["a@x.example", "b@x.example"]


@pytest.mark.parametrize(
    ("settings", "form", "message"),
    [({"create_fields": False}, "identify", "leads have no field first_time_shopper"),
     ({"activity_type": "other"}, "track", "activity type `other` with"),
     ({"activity_type": "half"}, "track", "activity type `half` with the attributes key and value"),
     ({"user_id_field": "uid", "create_fields": False}, "identify", "no field first_time_shopper")],
)  # fmt: skip
def test_what_is_missing_is_said(served: Served, settings: Any, form: str, message: str) -> None:
    account, opened = on(served)
    account.types["half"] = ("key",)
    destination = opened(**settings)
    error = error_of(destination, people(1, destination.abilities, forms=(form,)))
    assert isinstance(error, NeedsSetup) and message in str(error)
    assert check(destination) == str(error)
    assert not account.people and not account.events


def test_company_fields_are_not_made(served: Served) -> None:
    account, opened = on(served)
    rows = [({"group_id": "acme"}, "7")]
    batch = write(
        opened().abilities, rows, kind="computed_trait", key="seats", collection="accounts"
    )
    assert "companies have no field seats" in str(error_of(opened(), batch))
    account.company_fields.add("seatCount")
    assert send(opened(fields={"seats": "seatCount"}), batch) == [DELIVERED]
    assert account.groups["acme"]["seatCount"] == 7
    assert opened(companies=False).abilities.forms == ("identify", "track")


# lists


def lists(served: Served, **settings: Any) -> Any:
    account, opened = on(served, "marketo_static_lists")
    return account, opened(**settings)


def test_all_leads_of_an_address_leave(served: Served) -> None:
    """Also where they are more than fit on a page."""
    account, destination = lists(served)
    deliver(destination, people(2, destination.abilities))
    for number in range(900, 1_300):
        who = f"twin-{number}"
        account.people[who] = {"email": "P0@example.com"}
        account.leads[number] = who
        account.lists[AUDIENCE].add(who)
    assert len(account.members(AUDIENCE)) == 402
    assert deliver(destination, people(1, destination.abilities, "false")) == [DELIVERED]
    assert account.members(AUDIENCE) == {"p1@example.com"}


@pytest.mark.parametrize("known", [True, False])
def test_who_is_not_there_has_left(served: Served, known: bool) -> None:
    account, destination = lists(served)
    deliver(destination, people(2, destination.abilities))
    account.lists[AUDIENCE].clear()
    if not known:
        account.leads.clear()
        account.people.clear()
    assert deliver(destination, people(2, destination.abilities, "false")) == [DELIVERED] * 2


def test_a_lead_that_is_deleted_meanwhile_is_made_anew(served: Served) -> None:
    account, destination = lists(served)
    skipped = {"status": "skipped", "reasons": [{"code": "1004", "message": "Lead not found"}]}
    body = {"success": True, "result": [{"id": 500, **skipped}]}
    account.faults.next(*[None] * 5, Answer(200, json.dumps(body).encode()))
    (outcome,) = deliver(destination, people(1, destination.abilities))
    assert isinstance(outcome.error, Unavailable) and "1004" in str(outcome.error)


def test_a_name_with_a_comma_is_let_neither_in_nor_out(served: Served) -> None:
    account, opened = on(served, "marketo_static_lists")
    account.fields["userId"] = "string"
    destination = opened(user_id_field="userId")
    rows = [({"user_id": who}, "true") for who in ("u1", "u,2", "u3")]
    outcomes = send(destination, write(destination.abilities, rows, kind="audience", key=AUDIENCE))
    assert [type(o.error) for o in outcomes] == [type(None), Rejected, type(None)]
    assert account.members(AUDIENCE) == {"u1", "u3"}


@pytest.mark.parametrize(
    ("folders", "message"), [(0, "no folder or program `Personas`"), (2, "more than one folder")]
)
def test_the_folder_must_be_one(served: Served, folders: int, message: str) -> None:
    account, destination = lists(served)
    found = [{"folderId": {"id": n, "type": "Folder"}} for n in range(folders)]
    body = json.dumps({"success": True, "result": found}).encode()
    account.faults.next(None, None, Answer(200, body))
    assert message in str(check(destination))


def test_the_field_of_user_ids_must_be_there(served: Served) -> None:
    account, destination = lists(served, user_id_field="userId")
    assert "leads have no field userId" in str(check(destination))
    account.fields["userId"] = "string"
    assert check(destination) is None


def test_a_list_that_is_not_there_is_said(served: Served) -> None:
    _, destination = lists(served, lists={AUDIENCE: "77"})
    error = error_of(destination, people(1, destination.abilities))
    assert isinstance(error, NeedsSetup) and "no list with the id 77" in str(error)
    assert check(destination) == str(error)


@pytest.mark.parametrize(
    ("type", "settings", "message"),
    [("marketo", {"munchkin_id": "abc.evil.example/"}, "munchkin_id: "),
     ("marketo", {"fields": {"a": "b c"}}, "fields.a: "),
     ("marketo", {"batch_size": 301}, "batch_size: "),
     ("marketo_static_lists", {"folder": None}, "expected `folder`"),
     ("marketo_static_lists", {"interval_hours": 5}, "interval_hours: "),
     ("marketo_static_lists", {"lists": {"a": "ST1021A1"}}, "as digits")],
)  # fmt: skip
def test_settings_that_do_not_hold(type: str, settings: Any, message: str) -> None:
    more = {"folder": "Personas"} if type == "marketo_static_lists" else {}
    good = {"munchkin_id": "123-ABC-456", "client_id": "i", "client_secret": "s", **more}
    with pytest.raises(PersonasError, match=message):
        open_destination(type, {**good, **settings})
    assert "123-abc-456.mktorest.com" in repr(open_destination(type, good))
