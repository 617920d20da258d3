"""What only Google Ads audiences do. What all tools do is in `contract.py`."""

import asyncio
import json
from hashlib import sha256
from typing import Any

import pytest
from contract import (
    AUDIENCE,
    DEVICE,
    MARKER,
    Subject,
    check,
    deliver,
    error_of,
    no_pace,
    people,
    send,
    write,
)

from personas_dagster.activation.destination import DELIVERED, Message, Result
from personas_dagster.destinations import open_destination
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

NEEDED = {
    "client_id": "c",
    "client_secret": "s",
    "refresh_token": "r",
    "account_id": "1",
    "ad_user_data": "granted",
    "ad_personalization": "denied",
}


@pytest.fixture
def google(served: Served) -> Any:
    return Subject("google_ads", served).account()


def digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def sent(account: Any, path: str = ":ingest") -> list[Any]:
    return [json.loads(r.seen.body) for r in account.requests if path in r.seen.path]


def said(code: int, status: str, *details: Any) -> Answer:
    error = {"code": code, "status": status, "message": "no", "details": list(details)}
    return Answer(code, json.dumps({"error": error}).encode())


def messages(abilities: Any, *recipients: dict[str, str], value: str = "true") -> list[Message]:
    return write(abilities, [(one, value) for one in recipients], kind="audience", key=AUDIENCE)


def test_identifiers_are_normalised_before_they_are_hashed(google: Any) -> None:
    account, opened = google
    destination = opened(country_code="1")
    batch = messages(
        destination.abilities,
        {"email": " Dana M@Example.com"},
        {"email": "Cloudy.San.Francisco@GMAIL.com"},
        {"email": "a.b@googlemail.com"},
        {"phone": "+1 (650) 555-0100"},
        {"phone": "650 555 0100"},
        {"phone": "F" * 64},
    )
    assert send(destination, batch) == [DELIVERED] * 6
    (body,) = sent(account)
    found = [one["userData"]["userIdentifiers"] for one in body["audienceMembers"]]
    assert found == [
        [{"emailAddress": digest("danam@example.com")}],
        [{"emailAddress": digest("cloudysanfrancisco@gmail.com")}],
        [{"emailAddress": digest("ab@googlemail.com")}],
        [{"phoneNumber": digest("+16505550100")}],
        [{"phoneNumber": digest("+16505550100")}],
        [{"phoneNumber": "f" * 64}],
    ]


def test_consent_and_terms_go_with_entries_only(google: Any) -> None:
    account, opened = google
    destination = opened(ad_personalization="denied", accept_terms=True)
    deliver(destination, people(1, destination.abilities))
    deliver(destination, people(1, destination.abilities, "false"))
    (entered,), (left,) = sent(account), sent(account, ":remove")
    assert entered["consent"] == {
        "adUserData": "CONSENT_GRANTED",
        "adPersonalization": "CONSENT_DENIED",
    }
    assert entered["termsOfService"] == {"customerMatchTermsOfServiceStatus": "ACCEPTED"}
    assert entered["encoding"] == left["encoding"] == "HEX"
    assert left.keys() == {"destinations", "audienceMembers", "encoding"}


def test_terms_that_nobody_accepted_are_said(google: Any) -> None:
    account, opened = google
    account.terms_signed = False
    error = error_of(opened(), people(1, opened().abilities))
    assert isinstance(error, NeedsSetup) and "TERMS_AND_CONDITIONS_NOT_SIGNED" in str(error)
    assert send(opened(accept_terms=True), people(1, opened().abilities)) == [DELIVERED]


def test_names_and_places_go_along_when_whole(google: Any) -> None:
    account, opened = google
    (message,) = messages(opened().abilities, {"email": "a@x.example"})
    about = {"first_name": " Ann-Lee", "last_name": "O'Neil", "country": "us", "postal_code": "10"}
    for traits in (about, {**about, "country": "USA"}):
        body = {**message.body, "traits": {**message.body["traits"], **traits}}
        send(opened(), [Message("add", "m", "c", AUDIENCE, message.recipient, True, body)])
    whole, part = (
        one["audienceMembers"][0]["userData"]["userIdentifiers"] for one in sent(account)
    )
    assert whole[1] == {
        "address": {
            "givenName": digest("annlee"),
            "familyName": digest("oneil"),
            "regionCode": "US",
            "postalCode": "10",
        }
    }
    assert len(part) == 1


def test_a_manager_signs_in_for_the_account(google: Any) -> None:
    account, opened = google
    destination = opened(login_account_id="999-888-7777")
    deliver(destination, people(1, destination.abilities))
    (body,) = sent(account)
    assert body["destinations"] == [
        {
            "operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": "1234567890"},
            "loginAccount": {"accountType": "GOOGLE_ADS", "accountId": "9998887777"},
            "productDestinationId": account.list_ids[0],
        }
    ]
    headers = {r.seen.headers.get("login-account") for r in account.requests[1:]}
    assert headers == {"accountTypes/GOOGLE_ADS/accounts/9998887777"}


@pytest.mark.parametrize(
    ("settings", "recipient", "member"),
    [
        ({"match_by": "mobile", "key_space": "IOS", "app_id": "app"}, {"ios.idfa": DEVICE},
         {"mobileData": {"mobileIds": [DEVICE.lower()]}}),
        ({"match_by": "user_id"}, {"user_id": "U-1", "email": "a@x.example"},
         {"userIdData": {"userId": "U-1"}}),
    ],
)  # fmt: skip
def test_other_kinds_of_lists(google: Any, settings: Any, recipient: Any, member: Any) -> None:
    account, opened = google
    destination = opened(**settings)
    for value in ("true", "false"):
        batch = messages(destination.abilities, recipient, value=value)
        assert send(destination, batch) == [DELIVERED]
    (entered,), (left,) = sent(account), sent(account, ":remove")
    assert entered["audienceMembers"] == left["audienceMembers"] == [member]
    assert account.members(AUDIENCE) == set()
    assert "takes" in str(check(opened())) and "not CONTACT_ID" in str(check(opened()))


def test_a_token_that_ran_out_is_fetched_anew_once(google: Any) -> None:
    account, opened = google
    destination = opened()
    batch = people(4, destination.abilities)

    async def run() -> None:
        async with destination:
            await destination.send(batch[:1], no_pace)
            account.expire()
            await asyncio.gather(*(destination.send([one], no_pace) for one in batch[1:]))

    asyncio.run(run())
    assert len(account.members(AUDIENCE)) == 4
    assert [r.seen.path for r in account.requests].count("/token") == 2


def test_a_token_is_not_used_to_its_last_second(
    google: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    account, opened = google
    destination, now = opened(), 1_000.0
    monkeypatch.setattr("personas_dagster.destinations.signing.time.monotonic", lambda: now)
    for seconds, asked in ((0.0, 1), (3_500.0, 1), (3_599.0 - 60, 2)):
        now = 1_000.0 + seconds
        send(destination, people(1, destination.abilities))
        assert [r.seen.path for r in account.requests].count("/token") == asked


@pytest.mark.parametrize("status", [400, 401])
def test_credentials_that_are_refused(google: Any, status: int) -> None:
    account, opened = google
    text = f"bad {MARKER}-refresh"
    answer = {"error": "invalid_grant", "error_description": text}
    account.faults.next(Answer(status, json.dumps(answer).encode()))
    error = error_of(opened(), people(1, opened().abilities))
    assert type(error) is Unauthorized
    assert "invalid_grant" in str(error) and MARKER not in str(error)


def test_a_token_that_google_gave_is_never_shown(google: Any) -> None:
    account, opened = google
    destination = opened()
    batch = people(1, destination.abilities)
    send(destination, batch)
    token = next(iter(account._tokens))
    account.faults.next(said(400, "INVALID_ARGUMENT", {"reason": token}))
    assert token not in str(error_of(destination, batch)) + repr(vars(destination))


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (said(429, "RESOURCE_EXHAUSTED"), Throttled),
        (said(403, "PERMISSION_DENIED", {"reason": "SERVICE_DISABLED"}), NeedsSetup),
        (said(404, "NOT_FOUND"), NeedsSetup),
        (said(400, "INVALID_ARGUMENT", {"reason": "INVALID_USER_LIST_ID"}), NeedsSetup),
        (said(400, "INVALID_ARGUMENT", {"reason": "INVALID_DESTINATION"}), NeedsSetup),
        (said(400, "INVALID_ARGUMENT"), Rejected),
        (said(409, "ABORTED"), Unavailable),
        (said(504, "DEADLINE_EXCEEDED"), Unavailable),
        (Answer(403, b"<html>"), Unauthorized),
    ],
)
def test_statuses_have_meanings(google: Any, answer: Answer, kind: type) -> None:
    account, opened = google
    account.faults.next(None, None, None, answer)
    assert type(error_of(opened(), people(1, opened().abilities))) is kind


@pytest.mark.parametrize(
    ("details", "header", "seconds"),
    [([{"retryDelay": "2.5s"}], {}, 2.5), ([], {"Retry-After": "9"}, 9.0), ([{"x": 1}], {}, None)],
)
def test_throttling_says_when(google: Any, details: Any, header: Any, seconds: Any) -> None:
    account, opened = google
    body = said(429, "RESOURCE_EXHAUSTED", *details).body
    account.faults.next(None, Answer(429, body, header))
    error = error_of(opened(), people(1, opened().abilities))
    assert isinstance(error, Throttled) and error.retry_after == seconds


def test_rows_that_google_names_are_refused_and_the_others_sent_again(google: Any) -> None:
    account, opened = google
    bad = {"fieldViolations": [{"field": "audience_members.audience_members[1].user_data",
                                "reason": "INVALID_SHA256_FORMAT"}]}  # fmt: skip
    account.faults.next(None, None, None, said(400, "INVALID_ARGUMENT", bad))
    outcomes = send(opened(), people(3, opened().abilities))
    assert [str(one.error) for one in outcomes] == ["None", "INVALID_SHA256_FORMAT", "None"]
    assert len(account.members(AUDIENCE)) == 2 and len(sent(account)) == 2


def test_what_nobody_can_be_matched_on_never_leaves(google: Any) -> None:
    account, opened = google
    batch = messages(opened().abilities, {"email": "x"}, {"phone": "1"}, {"email": "a@x.example"})
    outcomes = send(opened(), batch)
    assert [type(one.error) for one in outcomes] == [Rejected, Rejected, type(None)]
    (body,) = sent(account)
    assert len(body["audienceMembers"]) == 1


def ask(destination: Any, receipt: str) -> Result | None:
    async def run() -> Result | None:
        async with destination:
            found: Result | None = await destination.result(receipt, no_pace)
            return found

    return asyncio.run(run())


def test_requests_have_receipts_and_results(google: Any) -> None:
    account, opened = google
    (outcome,) = send(opened(), people(1, opened().abilities))
    receipt = outcome.receipt
    assert receipt and ask(opened(), receipt) == Result()

    def becomes(status: str, **counts: int) -> Result | None:
        errors = [{"reason": f"PROCESSING_ERROR_REASON_{reason}", "recordCount": str(count)}
                  for reason, count in counts.items()]  # fmt: skip
        account.taken[receipt] = {"requestStatus": status, "errorInfo": {"errorCounts": errors}}
        return ask(opened(), receipt)

    assert becomes("PROCESSING") is None and becomes("REQUEST_STATUS_UNKNOWN") is None
    partial = becomes("PARTIAL_SUCCESS", INVALID_FORMAT=3, DENIED_CONSENT=2)
    assert partial == Result(note="Google did not do 2 DENIED_CONSENT, 3 INVALID_FORMAT")
    failed = becomes("FAILED", INTERNAL_ERROR=5)
    assert failed is not None and isinstance(failed.error, Unavailable)
    refused = becomes("FAILURE", DENIED_CONSENT=5)
    assert refused is not None and isinstance(refused.error, Rejected)
    assert str(refused.error) == "Google did none of it: 5 DENIED_CONSENT"
    unknown = ask(opened(), "request-0")
    assert unknown is not None and unknown.error is None and unknown.note


def test_warnings_are_noted(google: Any) -> None:
    account, opened = google
    answer = {"requestId": "r", "fieldWarnings": [{"field": "consent", "description": "odd"}]}
    account.faults.next(None, None, None, Answer(200, json.dumps(answer).encode()))
    (outcome,) = send(opened(), people(1, opened().abilities))
    assert outcome == DELIVERED and outcome.receipt == "r" and "odd" in str(outcome.note)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"readOnly": True}, "may only be read"), ({"membershipStatus": "CLOSED"}, "is closed")],
)
def test_lists_that_cannot_be_changed_are_said(google: Any, changed: Any, message: str) -> None:
    account, opened = google
    deliver(opened(), people(1, opened().abilities))
    (number,) = account.list_ids
    account.about[number].update(changed)
    assert message in str(check(opened(), list_id=number))
    assert message in str(check(opened()))


def test_lists_are_found_by_names_with_quotes(google: Any) -> None:
    account, opened = google
    for _ in range(2):
        deliver(opened(list_prefix='say "hi" \\ '), people(1, opened().abilities))
    assert list(account.lists) == [f'say "hi" \\ {AUDIENCE}']


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"account_id": "x"}, "account_id: "),
        ({"ad_user_data": "maybe"}, "ad_user_data: "),
        ({"ad_user_data": None}, "ad_user_data: "),
        ({"match_by": "mobile"}, "key_space"),
        ({"match_by": "mobile", "key_space": "IOS"}, "app_id"),
        ({"interval_hours": 5}, "interval_hours: "),
        ({"batch_size": 10_001}, "batch_size: "),
        ({"token_url": "http://evil.example/token"}, "expected https://"),
        ({"membership_days": 541}, "membership_days: "),
    ],
)
def test_settings_that_do_not_hold(settings: Any, message: str) -> None:
    with pytest.raises(PersonasError, match=message):
        open_destination("google_ads", {**NEEDED, **settings})


def test_settings_lead_to_google() -> None:
    made: Any = open_destination("google_ads", {**NEEDED, "account_id": "123-456-7890"})
    assert made.settings.url == "https://datamanager.googleapis.com"
    assert made.settings.account == "accountTypes/GOOGLE_ADS/accounts/1234567890"
    assert made.abilities.interval.total_seconds() == 6 * 3600
    with pytest.raises(PersonasError, match="ad_personalization: Field required"):
        open_destination("google_ads", {k: v for k, v in NEEDED.items() if "person" not in k})
