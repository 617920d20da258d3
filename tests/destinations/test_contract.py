"""The contract of `contract.py`, on every destination of the catalogue."""

from typing import Any

import contract
import pytest
from contract import MARKER, Subject
from loopback import Loopback, Reply
from pydantic import SecretStr

from personas_dagster.activation.destination import Destination
from personas_dagster.destinations import DESTINATIONS, open_destination


def open_webhook(url: str, *, batch: bool = False, **settings: Any) -> Destination:
    secrets = {
        "url": SecretStr(f"{url}/hook/{MARKER}?key={MARKER}"),
        "headers.Authorization": SecretStr(f"Bearer {MARKER}"),
        "secret": SecretStr(f"hmac-{MARKER}"),
    }
    return open_destination("webhook", {"batch_size": 3 if batch else 1, **settings}, secrets)


SUBJECTS = {
    "webhook": Subject(
        "webhook",
        open_webhook,
        partial=Reply(200, b'{"errors": [{"index": 1, "message": "bad e-mail"}]}'),
        partial_later=Reply(207, b'{"errors": [{"index": 1, "message": "busy", "retry": true}]}'),
    ),
}


def test_every_destination_is_here() -> None:
    assert SUBJECTS.keys() == DESTINATIONS.keys()


@pytest.fixture(params=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> Subject:
    return SUBJECTS[request.param]


def test_takes_each_form(subject: Subject, server: Loopback) -> None:
    contract.takes_each_form(subject, server)


def test_golden_payloads(
    subject: Subject, server: Loopback, request: pytest.FixtureRequest
) -> None:
    contract.sends_golden_payloads(
        subject, server, update=bool(request.config.getoption("--update", default=False))
    )


def test_previews_what_it_sends(subject: Subject, server: Loopback) -> None:
    contract.previews_what_it_sends(subject, server)


def test_asks_its_pace(subject: Subject, server: Loopback) -> None:
    contract.asks_its_pace(subject, server)


def test_throttling(subject: Subject, server: Loopback) -> None:
    contract.understands_throttling(subject, server)


def test_failures(subject: Subject, server: Loopback) -> None:
    contract.understands_failures(subject, server)


def test_silence(subject: Subject, server: Loopback) -> None:
    contract.understands_silence(subject, server)


def test_partial_failure(subject: Subject, server: Loopback) -> None:
    contract.understands_partial_failure(subject, server)


def test_secrets_stay_secret(subject: Subject, server: Loopback) -> None:
    contract.never_shows_a_secret(subject, server)
