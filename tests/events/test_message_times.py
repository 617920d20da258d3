"""The four times of a message, and which two come of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest

Message = Callable[..., dict[str, Any]]
DAY = "2024-03-07T"


def instant(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text).astimezone(dt.UTC)


@pytest.mark.parametrize(
    ("given", "received", "timestamp"),
    [
        # the worked example: the device's clock is corrected
        (
            {"originalTimestamp": "04:08:31.577Z", "sentAt": "04:08:31.581Z"}
            | {"receivedAt": "04:08:31.909Z", "timestamp": "01:00:00Z"},
            "04:08:31.909Z",
            "04:08:31.905Z",
        ),
        ({"receivedAt": "05:00:00Z", "timestamp": "04:00:00Z"}, "05:00:00Z", "04:00:00Z"),
        ({"receivedAt": "05:00:00Z"}, "05:00:00Z", "05:00:00Z"),
        ({"receivedAt": "05:00:00Z", "sentAt": "04:00:00Z"}, "05:00:00Z", "05:00:00Z"),
        ({"receivedAt": "05:00:00Z", "originalTimestamp": "01:00:00Z"}, "05:00:00Z", "05:00:00Z"),
        ({"sentAt": "05:00:00Z", "timestamp": "04:00:00Z"}, "05:00:00Z", "04:00:00Z"),
        ({"sentAt": "05:00:00Z", "originalTimestamp": "04:00:00Z"}, "05:00:00Z", "04:00:00Z"),
        ({"timestamp": "04:00:00Z"}, "04:00:00Z", "04:00:00Z"),
    ],
)
def test_which_time(
    intake: Any, message: Message, given: dict[str, str], received: str, timestamp: str
) -> None:
    times = {name: DAY + text for name, text in given.items()}
    row = intake.row(message(**{"receivedAt": ..., **times}))
    assert row["received_at"] == instant(DAY + received)
    assert row["timestamp"] == instant(DAY + timestamp)
    assert row["received_date"] == dt.date(2024, 3, 7)


def test_without_any_time(intake: Any, message: Message) -> None:
    row = intake.row(message(receivedAt=...))
    landed_at = dt.datetime(2024, 6, 1, 12, tzinfo=dt.UTC)
    assert (row["received_at"], row["timestamp"]) == (landed_at, landed_at)


ISO_8601 = {
    "2024-03-07T01:02:03.123456789Z": "2024-03-07T01:02:03.123456Z",
    "2024-03-07T01:02:03.9999999Z": "2024-03-07T01:02:03.999999Z",
    "2024-03-07T01:02:03,5Z": "2024-03-07T01:02:03.500000Z",
    "2024-03-07T01:02:03": "2024-03-07T01:02:03Z",
    "2024-03-07 01:02:03+02:00": "2024-03-06T23:02:03Z",
    "2024-03-07T01:02:03-0330": "2024-03-07T04:32:03Z",
    "2024-03-07T01:02:03+05": "2024-03-06T20:02:03Z",
    "2024-03-07T01:02Z": "2024-03-07T01:02:00Z",
    "2024-03-07": "2024-03-07T00:00:00Z",
    "1969-12-31T20:00:00-05:00": "1970-01-01T01:00:00Z",
}
NOT_ISO_8601 = (
    """
    now|infinity|2024|2024-13-01|2024-03-07T25:00:00Z|20240307T010203Z|07.03.2024|1709776923|
    2024-03-07T01:02:03 Europe/Berlin|2024-03-07 (BC)|2024-3-7| 2024-03-07|2024-03-07T01:02:03Z+
""".strip()
    .replace("\n", "")
    .split("|")
)


def test_iso_8601(intake: Any, message: Message) -> None:
    intake.take(*(message(i, receivedAt=text) for i, text in enumerate(ISO_8601)))
    found = intake.rows()
    assert [row["received_at"] for row in found] == [instant(text) for text in ISO_8601.values()]
    assert all(row["received_date"] == row["received_at"].date() for row in found)


def test_not_iso_8601(intake: Any, message: Message) -> None:
    texts = ["", " ", *NOT_ISO_8601]
    report = intake.take(*(message(i, timestamp=text) for i, text in enumerate(texts)))
    assert report.reasons == {"bad_timestamp": len(texts)}


def test_a_wrong_clock_is_corrected(intake: Any, message: Message) -> None:
    row = intake.row(
        message(
            originalTimestamp="1969-12-31T00:00:00Z",
            sentAt="1969-12-31T00:00:05Z",
            receivedAt="2024-03-07T00:00:10Z",
        )
    )
    assert row["timestamp"] == instant("2024-03-07T00:00:05Z")


@pytest.mark.parametrize(
    ("timestamp", "skewed"), [("2024-03-08T00:00:00Z", 0)] + [("2024-03-08T00:00:00.000001Z", 1)]
)
def test_clock_skew(intake: Any, message: Message, timestamp: str, skewed: int) -> None:
    report = intake.take(message(receivedAt="2024-03-07T00:00:00Z", timestamp=timestamp))
    assert (report.accepted, report.clock_skew) == (1, skewed)
