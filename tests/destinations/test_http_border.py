"""Each error of httpx and each status has one meaning."""

import inspect

import httpx
import pytest
from pydantic import SecretStr

from personas_dagster.destinations.http import (
    FOREIGN,
    Masks,
    from_exception,
    from_response,
    retry_after,
)
from personas_dagster.errors import DeliveryError, Rejected, Throttled, Unauthorized, Unavailable

NO_MASKS = Masks([])
EXCEPTIONS = [
    one
    for _, one in inspect.getmembers(httpx, inspect.isclass)
    if issubclass(one, Exception) and one.__module__.startswith("httpx")
]


@pytest.mark.parametrize("kind", EXCEPTIONS, ids=lambda kind: kind.__name__)
def test_each_exception_is_translated(kind: type[Exception]) -> None:
    assert issubclass(kind, FOREIGN)
    error = kind.__new__(kind)
    Exception.__init__(error, "what it said")
    assert isinstance(from_exception(error, NO_MASKS), Unavailable)


def test_each_status_has_a_meaning() -> None:
    for status in range(200, 600):
        error = from_response(httpx.Response(status), NO_MASKS)
        assert (error is None) == (status < 300)
        assert error is None or isinstance(error, DeliveryError)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(301, Unavailable), (400, Rejected), (401, Unauthorized), (403, Unauthorized),
     (404, Unavailable), (408, Unavailable), (413, Rejected), (422, Rejected),
     (429, Throttled), (500, Unavailable), (503, Unavailable)],
)  # fmt: skip
def test_statuses(status: int, kind: type[DeliveryError]) -> None:
    assert type(from_response(httpx.Response(status), NO_MASKS)) is kind


def test_unavailable_with_a_time_is_throttling() -> None:
    error = from_response(httpx.Response(503, headers={"Retry-After": "3"}), NO_MASKS)
    assert isinstance(error, Throttled) and error.retry_after == 3.0


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "-4"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Sun, 22 Nov 2026 12:00:30 GMT"}, None),
        (
            {
                "Retry-After": "Sun, 22 Nov 2026 12:00:30 GMT",
                "Date": "Sun, 22 Nov 2026 12:00:00 GMT",
            },
            30.0,
        ),
    ],
)
def test_retry_after(headers: dict[str, str], seconds: float | None) -> None:
    assert retry_after(httpx.Headers(headers)) == seconds


def test_masks_parts_of_secrets() -> None:
    masks = Masks([SecretStr("https://user:passw0rd@x.example/T000/b-secret?k=v")])
    text = masks("denied for passw0rd at /T000/b-secret on x.example")
    assert text == "denied for *** at /T000/*** on x.example"
