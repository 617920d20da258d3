"""What only the webhook does: its settings, its signature, its batches."""

import hashlib
import hmac
import json
from typing import Any

import pytest
from contract import MARKER, people, send
from loopback import Loopback, Reply
from pydantic import SecretStr

from personas_dagster.destinations import open_destination
from personas_dagster.errors import PersonasError


def test_signature_is_of_the_body_as_sent(server: Loopback) -> None:
    destination = open_destination(
        "webhook", {"url": server.url, "batch_size": 3}, {"secret": SecretStr("shh")}
    )
    send(destination, people(3, destination.abilities))
    (request,) = server.received
    expected = hmac.new(b"shh", request.body, hashlib.sha256).hexdigest()
    assert request.headers["x-signature"] == expected


def test_batch_of_several(server: Loopback) -> None:
    destination = open_destination("webhook", {"url": server.url, "batch_size": 3})
    send(destination, people(3, destination.abilities))
    (request,) = server.received
    assert [m["userId"] for m in json.loads(request.body)["batch"]] == [
        "user-000000",
        "user-000001",
        "user-000002",
    ]
    assert "x-signature" not in request.headers


@pytest.mark.parametrize("body", [b"", b"ok", b'{"errors": "none"}', b'{"errors": [{"index": 9}]}'])
def test_other_answers_are_success(server: Loopback, body: bytes) -> None:
    server.reply = lambda request: Reply(202, body)
    destination = open_destination("webhook", {"url": server.url, "batch_size": 3})
    assert not any(outcome.error for outcome in send(destination, people(3, destination.abilities)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "url: Field required"),
        ({"url": f"ftp://{MARKER}"}, "expected an address such as"),
        ({"url": f"http://shop.example/{MARKER}"}, "expected https://"),
        ({"url": "https://x.example", "headers": {"Host": MARKER}}, "header Host is set by"),
        ({"url": "https://x.example", "headers": {"A": f"{MARKER}\n"}}, "printable ASCII"),
        ({"url": "https://x.example", "batch_size": 0}, "batch_size: Input should be"),
        ({"url": "https://x.example", "colour": MARKER}, "colour: Extra inputs"),
    ],
)
def test_bad_settings_say_why_and_show_nothing(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PersonasError, match=message) as caught:
        open_destination("webhook", settings)
    assert MARKER not in str(caught.value)
    assert caught.value.__cause__ is None and caught.value.__context__ is None


def test_unknown_type() -> None:
    with pytest.raises(PersonasError, match="no destination type `carrier_pigeon`"):
        open_destination("carrier_pigeon", {})
