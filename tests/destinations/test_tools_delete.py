"""What is particular to one tool when it is asked to delete people; the rest is in the contract."""

import contract
import pytest
from contract import MARKER, Subject, delete, people, send

from personas_dagster.activation.destination import DELIVERED
from personas_dagster.destinations import DESTINATIONS
from personas_dagster.errors import Unavailable
from personas_dagster.simulators import Answer
from personas_dagster.simulators.serving import Served

ANN, ANNA = {"user_id": "ann"}, {"user_id": "anna"}
CAN = {
    "amplitude", "braze", "customerio", "hubspot", "intercom", "iterable", "mailchimp", "marketo",
    "mixpanel", "sendgrid", "webhook", "zendesk",
}  # fmt: skip


def test_who_can(served: Served) -> None:
    opened = {type: Subject(type, served).account()[1]() for type in DESTINATIONS}
    assert {type for type, one in opened.items() if one.abilities.can_delete} == CAN


def test_braze_names_people_in_one_way_a_request(served: Served) -> None:
    account, opened = Subject("braze", served).account()
    account.people.update({"ann": {}, "bo@example.com": {}, "cy": {}})
    rows = [ANN, {"email": "bo@example.com"}, {"user_id": "cy", "email": "cy@example.com"}]
    assert delete(opened(), rows) == [DELIVERED] * 3
    assert account.people == {} and [one.rows for one in account.requests] == [2, 1]


def test_customer_io_names_operations_that_it_refuses(served: Served) -> None:
    account, opened = Subject("customerio", served).account()
    account.people.update({"ann": {}, "bo": {}})
    bad = {"email": "not-an-address"}
    outcomes = delete(opened(), [ANN, bad, {"user_id": "bo"}])
    assert [one.error is None for one in outcomes] == [True, False, True]
    assert account.people == {}


def test_amplitude_wants_its_secret_key(served: Served) -> None:
    _, opened = Subject("amplitude", served).account()
    assert not opened(secret_key=None).abilities.can_delete


def test_amplitude_is_asked_where_its_privacy_api_is(served: Served) -> None:
    _, opened = Subject("amplitude", served).account()
    found = {region: opened(base_url=None, region=region).settings for region in ("us", "eu")}
    assert found["us"].privacy_url == "https://amplitude.com"
    assert found["eu"].privacy_url == "https://analytics.eu.amplitude.com"
    assert MARKER not in repr(found)


def test_amplitude_is_asked_for_as_many_at_once_as_its_settings_say(served: Served) -> None:
    account, opened = Subject("amplitude", served).account()
    assert opened().abilities.deletes_at_once == 100
    rows = [{"user_id": f"u{number}"} for number in range(5)]
    assert delete(opened(deletion_batch_size=2), rows) == [DELIVERED] * 5
    assert [one.rows for one in account.requests] == [2, 2, 1]


def test_zendesk_deletes_nobody_who_is_only_like_it(served: Served) -> None:
    account, opened = Subject("zendesk", served).account()
    for number, who in enumerate(("ann", "anna"), 1):
        account.people[who] = {"external_id": who}
        account.numbers[who] = number  # type: ignore[attr-defined]
    assert delete(opened(), [ANN]) == [DELIVERED]
    assert account.people.keys() == {"anna"}


def test_zendesk_deletes_for_good_what_was_half_deleted(served: Served) -> None:
    account, opened = Subject("zendesk", served).account()
    account.people["ann"] = {"external_id": "ann"}
    account.numbers["ann"] = 1  # type: ignore[attr-defined]
    destination = opened()
    account.faults.next(None, None, "error")
    with pytest.raises(Unavailable):
        delete(destination, [ANN])
    assert account.deleted == {"ann"}  # type: ignore[attr-defined]
    assert delete(destination, [ANN]) == [DELIVERED] and account.people == {}


def test_intercom_deletes_each_contact_of_an_address(served: Served) -> None:
    account, opened = Subject("intercom", served).account()
    for number in ("ic-1", "ic-2"):
        account.people[number] = {"email": "bo@example.com"}
        account.contacts[number] = account.people[number]  # type: ignore[attr-defined]
    assert delete(opened(), [{"email": "bo@example.com"}]) == [DELIVERED]
    assert account.people == {}


@pytest.mark.parametrize("type", ["mailchimp", "hubspot", "iterable", "sendgrid"])
def test_a_wrong_address_is_nobodys_absence(type: str, served: Served) -> None:
    """A 404 counts as deleted only in the tool's own words."""
    account, opened = Subject(type, served).account()
    (message,) = people(1, opened().abilities)
    send(opened(), [message])
    account.faults.next(Answer(404, b"<html>no such page</html>"))
    with pytest.raises(contract.DeliveryError):
        delete(opened(), [message.recipient])
    assert len(account.people) == 1
