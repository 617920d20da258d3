"""What only Facebook Custom Audiences does. What all tools do is in `contract.py`."""

import json
from hashlib import sha256
from typing import Any

import pytest
from contract import (
    AUDIENCE,
    DEVICE,
    Subject,
    check,
    deliver,
    error_of,
    people,
    send,
    write,
)

from personas_dagster.activation.destination import DELIVERED, Message
from personas_dagster.destinations import hashing, open_destination
from personas_dagster.errors import (
    NeedsSetup,
    PersonasError,
    Rejected,
    Throttled,
    Unauthorized,
    Unavailable,
)
from personas_dagster.simulators import Answer
from personas_dagster.simulators.serving import Served


@pytest.fixture
def facebook(served: Served) -> Any:
    return Subject("facebook_custom_audiences", served).account()


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def said(code: int, **more: Any) -> Answer:
    body = json.dumps({"error": {"code": code, "message": "no", **more}}).encode()
    return Answer(400, body, {"Content-Type": "application/json"})


def messages(abilities: Any, *recipients: dict[str, str], value: str = "true") -> list[Message]:
    return write(abilities, [(one, value) for one in recipients], kind="audience", key=AUDIENCE)


def test_identifiers_are_normalised_before_they_are_hashed(facebook: Any) -> None:
    account, opened = facebook
    destination = opened(country_code="49")
    found = messages(
        destination.abilities,
        {"email": " Ann.Lee@Example.COM "},
        {"phone": "+49 (30) 123-456"},
        {"phone": "030 123456"},
        {"phone": "0049 30 123456"},
        {"ios.idfa": DEVICE},
        {"email": "A" * 64},
    )
    assert send(destination, found) == [DELIVERED] * 6
    (rows,) = account.rows.values()
    assert [row["EMAIL"] for row in rows] == [digest("ann.lee@example.com"), *[""] * 4, "a" * 64]
    assert [row["PHONE"] for row in rows] == ["", *[digest("4930123456")] * 3, "", ""]
    assert [row["MADID"] for row in rows] == [*[""] * 4, DEVICE.lower(), ""]


def test_what_nobody_can_be_matched_on_never_leaves(facebook: Any) -> None:
    account, opened = facebook
    bad = [{"email": "x"}, {"phone": "12"}, {"ios.idfa": "0" * 32}, {"phone": "none"}]
    found = messages(opened().abilities, *bad, {"email": "a@x.example"})
    outcomes = send(opened(), found)
    assert [type(one.error) for one in outcomes] == [*[Rejected] * 4, type(None)]
    assert str(outcomes[0].error) == "the email is none that Facebook can match on"
    assert all(bad[0]["email"] not in str(one.seen.body) for one in account.requests[2:])


def test_traits_that_go_along_become_columns(facebook: Any) -> None:
    account, opened = facebook
    abilities = opened().abilities
    (message,) = messages(abilities, {"email": "a@x.example"})
    about = {
        "first_name": "Zoë-Ann", "last_name": "O'Neil", "gender": "Female",
        "birthday": "1990-02-03",
        "city": "San José", "state": "CA", "postal_code": "94110-1234", "country": "US",
        "score": 7,
    }  # fmt: skip
    body = {**message.body, "traits": {**message.body["traits"], **about}}
    rich = Message("add", "m", "c", AUDIENCE, message.recipient, True, body)
    assert send(opened(), [rich]) == [DELIVERED]
    (row,) = account.rows[AUDIENCE]
    expected = {
        "EMAIL": "a@x.example", "DOBY": "1990", "DOBM": "02", "DOBD": "03", "LN": "oneil",
        "FN": "zoëann", "GEN": "f", "CT": "sanjosé", "ST": "ca", "ZIP": "94110", "COUNTRY": "us",
    }  # fmt: skip
    assert row == {column: digest(value) for column, value in expected.items()}
    gone = Message("remove", "m2", "c", AUDIENCE, message.recipient, False, body)
    assert json.loads(opened().preview([gone])[0].body)["payload"]["schema"] == ["EMAIL"]


def test_limited_data_use_and_consent_go_with_entries(facebook: Any) -> None:
    account, opened = facebook
    destination = opened(
        data_processing_options=["LDU"], data_processing_country=1, data_processing_state=1000,
        customer_consent=True,
    )  # fmt: skip
    deliver(destination, people(1, destination.abilities))
    (row,) = account.rows[AUDIENCE]
    assert row["DATA_PROCESSING_OPTIONS"] == ["LDU"]
    assert row["DATA_PROCESSING_OPTIONS_COUNTRY"] == 1
    assert row["DATA_PROCESSING_OPTIONS_STATE"] == 1000
    assert json.loads(account.requests[-1].seen.body)["customer_consent"] is True
    (leaving,) = destination.preview(people(1, destination.abilities, "false"))
    assert leaving.method == "DELETE"
    assert json.loads(leaving.body)["payload"]["schema"] == ["EMAIL"]
    assert "customer_consent" not in leaving.body


def test_each_request_can_be_a_session(facebook: Any) -> None:
    account, opened = facebook
    destination = opened(sessions=True)
    deliver(destination, people(2, destination.abilities))
    deliver(destination, people(2, destination.abilities, "false"))
    sessions = [json.loads(one.seen.body)["session"] for one in account.requests[-2:]]
    assert [(one["batch_seq"], one["last_batch_flag"]) for one in sessions] == [(1, True)] * 2
    assert {one["estimated_num_total"] for one in sessions} == {2}
    assert sessions[0]["session_id"] != sessions[1]["session_id"] > 0


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (said(4), Throttled), (said(17), Throttled), (said(613), Throttled),
        (said(80004), Throttled),
        (said(1), Unavailable), (said(2), Unavailable), (said(9, is_transient=True), Unavailable),
        (said(190), Unauthorized), (said(102), Unauthorized),
        (said(200), NeedsSetup), (said(294), NeedsSetup), (said(368), NeedsSetup),
        (said(2650), NeedsSetup), (said(100, error_subcode=33), NeedsSetup),
        (said(100, error_subcode=1713230), NeedsSetup),
        (said(100), Rejected), (said(105), Rejected),
    ],
)  # fmt: skip
def test_codes_have_meanings(facebook: Any, answer: Answer, kind: type) -> None:
    account, opened = facebook
    batch = people(1, opened().abilities)
    deliver(opened(), batch)
    known = opened(lists={AUDIENCE: account.list_ids[0]})
    account.faults.next(answer)
    assert type(error_of(known, batch)) is kind


def test_transient_codes_can_be_set(facebook: Any) -> None:
    account, opened = facebook
    batch = people(1, opened().abilities)
    account.faults.next(said(3))
    assert isinstance(error_of(opened(transient_codes=[3]), batch), Unavailable)


def test_the_longest_wait_of_the_header_holds(facebook: Any) -> None:
    account, opened = facebook
    usage = {"1": [{"estimated_time_to_regain_access": 1}, {"type": "x"}],
             "2": [{"estimated_time_to_regain_access": 4}]}  # fmt: skip
    for header, seconds in ((json.dumps(usage), 240.0), ("{", None), ("[]", None), ("", None)):
        headers = {"X-Business-Use-Case-Usage": header} if header else {}
        account.faults.next(Answer(400, said(80003).body, headers))
        error = error_of(opened(), people(1, opened().abilities))
        assert isinstance(error, Throttled) and error.retry_after == seconds


def test_entries_that_facebook_cannot_read(facebook: Any) -> None:
    """Those that it names are refused; of the others it is noted how many."""
    account, opened = facebook
    batch = people(3, opened().abilities)
    named = {"num_received": 3, "num_invalid_entries": 1,
             "invalid_entry_samples": [[digest("p1@example.com")]]}  # fmt: skip
    account.faults.next(None, None, Answer(200, json.dumps(named).encode()))
    outcomes = send(opened(), batch)
    assert [type(one.error) for one in outcomes] == [type(None), Rejected, type(None)]
    assert not any(one.note for one in outcomes)
    unnamed = {"num_received": 3, "num_invalid_entries": 2, "invalid_entry_samples": {}}
    account.faults.next(None, Answer(200, json.dumps(unnamed).encode()))
    outcomes = send(opened(), batch)
    assert outcomes == [DELIVERED] * 3
    assert {one.note for one in outcomes} == {
        "Facebook could not read 2 of these 3 entries, nor named all"
    }


def test_finds_its_list_behind_other_pages(facebook: Any) -> None:
    account, opened = facebook
    for name in ("one", "two", "three", "four", AUDIENCE):
        account.names[str(100 + len(account.names))] = name
        account.lists[name] = set()
    deliver(opened(create_lists=False), people(1, opened().abilities))
    assert len(account.members(AUDIENCE)) == 1


def test_restricted_audiences_and_others_kinds_are_said(facebook: Any) -> None:
    account, opened = facebook
    deliver(opened(), people(1, opened().abilities))
    (number,) = account.list_ids
    account.restricted.add(number)
    assert "appeal in the Audience Manager" in str(check(opened(), list_id=number))
    named = opened(lists={AUDIENCE: number})
    assert isinstance(error_of(named, people(1, named.abilities)), NeedsSetup)
    account.faults.next(Answer(200, b'{"id": "5", "subtype": "WEBSITE"}'))
    assert "no customer file" in str(check(opened(), list_id="5"))
    assert "no list with the id none" in str(check(opened(), list_id="none"))


def test_user_ids_match_when_asked_to(facebook: Any) -> None:
    account, opened = facebook
    destination = opened(identifiers=["user_id", "email"])
    assert destination.abilities.matches_on == ("user_id", "email")
    deliver(destination, people(1, destination.abilities))
    (row,) = account.rows[AUDIENCE]
    assert row == {"EXTERN_ID": "user-000000", "EMAIL": digest("p0@example.com")}


def test_takes_no_historical_data_when_told(facebook: Any) -> None:
    _, opened = facebook
    assert opened().abilities.takes_historical
    assert not opened(historical=False).abilities.takes_historical


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ad_account_id": "mine"}, "ad_account_id: "),
        ({"ad_account_id": "1", "api_version": "25"}, "api_version: "),
        ({"ad_account_id": "1", "batch_size": 10_001}, "batch_size: "),
        ({"ad_account_id": "1", "lists": {"a": "x"}}, "as digits"),
        ({"ad_account_id": "1", "identifiers": ["name"]}, "identifiers"),
        ({"ad_account_id": "1", "interval_hours": 0.5}, "interval_hours: "),
        ({"ad_account_id": "1", "country_code": "+49"}, "country_code: "),
    ],
)
def test_settings_that_do_not_hold(settings: Any, message: str) -> None:
    with pytest.raises(PersonasError, match=message):
        open_destination("facebook_custom_audiences", {"access_token": "t", **settings})


def test_settings_lead_to_the_graph() -> None:
    made: Any = open_destination(
        "facebook_custom_audiences", {"access_token": "t", "ad_account_id": 42}
    )
    assert made.settings.url == "https://graph.facebook.com"
    assert made.settings.ad_account_id == "act_42"
    assert made.abilities.interval.total_seconds() == 3600


def test_hashing() -> None:
    assert hashing.hashed("ann@example.com") == digest("ann@example.com")
    assert hashing.phone("4930123456") == "4930123456"
    assert hashing.phone("1" * 16) is None and hashing.phone("") is None
    assert hashing.device("00000000-0000-0000-0000-000000000000") is None
