"""Each rule of a message, by what is accepted and by the reason for what is not."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from personas_dagster.events.reasons import MESSAGE_TOO_LARGE, REASONS

Message = Callable[..., dict[str, Any]]
LONG = "x" * 101
CASES: list[tuple[str, dict[str, Any] | str | bytes, str]] = [
    ("not_json", "{'type': 'track'}", "found {'type'"),
    ("not_json", '{"type": "track"', "found"),
    ("not_json", '{"userId": "u", "type": "track", "event": "e", "properties": {"a": NaN}}', ""),
    ("not_json", '{"userId": "u", "type": "track", "event": "e", "properties": {"a": nAn}}', ""),
    ("not_json", '{"userId": "u", "type": "track", "event": "e", "properties": {"a": -inf}}', ""),
    ("not_json", '{"userId": "u", "type": "track", "event": "e", }', ""),
    ("not_json", '{"userId": nan, "type": "track", "event": "e"}', ""),
    ("not_an_object", "[1, 2]", "found an array"),
    ("not_an_object", "null", "found null"),
    ("not_utf8", b'{"type": "track", "userId": "\xff"}', "0xff"),
    ("line_too_long", json.dumps({"type": "identify", "userId": "x" * 1_048_577}), "1,048,576"),
    ("missing_type", {"type": ...}, "type"),
    ("missing_type", {"type": None}, "type"),
    ("unknown_type", {"type": "Track"}, 'type: found "Track"'),
    ("wrong_type", {"type": 7}, "type: found a number"),
    ("missing_event", {"event": ...}, "event"),
    ("missing_event", {"event": ""}, "event"),
    ("missing_ids", {"userId": ...}, "userId"),
    ("missing_ids", {"userId": "", "anonymousId": None}, "userId"),
    ("missing_ids", {"userId": ..., "context": {"externalIds": []}}, "externalIds"),
    ("missing_ids", {"type": "alias", "previousId": "p", "userId": ...}, "userId"),
    ("missing_group_id", {"type": "group"}, "groupId"),
    ("missing_group_id", {"type": "group", "groupId": ""}, "groupId"),
    ("missing_group_id", {"type": "group", "context": {"groupId": "g"}}, "groupId"),
    ("group_id_too_long", {"type": "group", "groupId": "g" * 501}, "groupId: found 501"),
    ("group_id_too_long", {"context": {"groupId": "g" * 501}}, "context.groupId: found 501"),
    ("missing_previous_id", {"type": "alias"}, "previousId"),
    ("message_id_too_long", {"messageId": LONG}, "found 101"),
    ("wrong_type", {"messageId": {}}, "messageId: found an object"),
    ("wrong_type", {"userId": {"id": 1}}, "userId: found an object"),
    ("wrong_type", {"anonymousId": [1]}, "anonymousId: found an array"),
    ("wrong_type", {"userId": True}, "userId: found a boolean"),
    ("wrong_type", {"event": 5}, "event: found a number"),
    ("wrong_type", {"properties": []}, "properties: found an array"),
    ("wrong_type", {"traits": "x"}, "traits: found a string"),
    ("wrong_type", {"context": 1}, "context: found a number"),
    ("wrong_type", {"integrations": True}, "integrations: found a boolean"),
    ("wrong_type", {"timestamp": 1717243200}, "timestamp: found a number"),
    ("wrong_type", {"type": "page", "name": {}}, "name: found an object"),
    ("too_many_properties", {"properties": {f"k{i}": i for i in range(301)}}, "found 301"),
    ("too_many_traits", {"traits": {f"k{i}": i for i in range(301)}}, "found 301"),
    ("bad_timestamp", {"timestamp": "yesterday"}, 'timestamp: found "yesterday"'),
    ("bad_timestamp", {"sentAt": "epoch"}, 'sentAt: found "epoch"'),
    ("bad_timestamp", {"receivedAt": "2024-02-30T00:00:00Z"}, "receivedAt"),
    ("bad_timestamp", {"originalTimestamp": "2024-1-1"}, "originalTimestamp"),
    ("bad_timestamp", {"timestamp": "1969-12-31T23:59:59.999Z"}, "before 1970"),
    ("bad_timestamp", {"receivedAt": "1969-12-31T23:59:59Z"}, "receivedAt"),
]


@pytest.fixture(scope="module")
def rejected(make_intake: Any, message: Message) -> dict[int, dict[str, Any]]:
    """All cases in one file, each on the line of its number, between good ones."""
    intake = make_intake()
    lines = [message(**given) if isinstance(given, dict) else given for _, given, _ in CASES]
    report = intake.take(message(1), *lines, message(2))
    assert (report.accepted, report.rejected) == (2, len(CASES))
    assert report.reasons == dict(sorted(Counter(reason for reason, _, _ in CASES).items()))
    assert [row["message_id"] for row in intake.rows()] == ["m1", "m2"]
    return {row["line"]: row for row in intake.rows("rejected_events")}


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: f"{n}-{CASES[n][0]}")
def test_rejected(rejected: dict[int, dict[str, Any]], number: int) -> None:
    reason, _, detail = CASES[number]
    row = rejected[number + 2]
    assert row["reason"] == reason
    assert detail in row["detail"]
    assert (row["load_id"], row["file_id"], row["source_id"]) == (1, 1, "files")


def test_every_reason_has_a_case() -> None:
    over_http = {MESSAGE_TOO_LARGE}
    assert {reason for reason, _, _ in CASES} == set(REASONS) - over_http


def test_rejected_keeps_the_text(intake: Any) -> None:
    path = intake.write('{"type":  "nothing"}', b"\xff")
    intake.take_files(path)
    first, second = intake.rows("rejected_events")
    assert first["raw"] == '{"type":  "nothing"}'
    assert second["raw"] == "\\xff"
    assert first["file"] == str(path)


def test_rejected_date(intake: Any, message: Message) -> None:
    intake.take(message(type="x", receivedAt="2024-03-04T23:30:00-02:00"), "nothing")
    dates = [str(row["received_date"]) for row in intake.rows("rejected_events")]
    assert dates == ["2024-03-05", "2024-06-01"]


@pytest.mark.parametrize("keys", [299, 300])
def test_as_many_properties_as_allowed(intake: Any, message: Message, keys: int) -> None:
    row = intake.row(message(properties={f"k{i}": i for i in range(keys)}))
    assert len(json.loads(row["properties"])) == keys


@pytest.mark.parametrize(
    "fields",
    [
        {"type": "group", "userId": ..., "groupId": "g"},
        {"userId": ..., "context": {"externalIds": [{"id": "1", "type": "x"}]}},
        {"userId": ..., "anonymousId": "a"},
        {"type": "alias", "previousId": "p"},
        {"messageId": "x" * 100},
        {"messageId": "é" * 100},
        {"type": "group", "groupId": "g" * 500},
        {"type": "identify", "name": 5},
        {"properties": None, "context": None, "timestamp": None},
        {"properties": {"text": "a trailing ,] and a NaN"}},
    ],
)
def test_accepted(intake: Any, message: Message, fields: dict[str, Any]) -> None:
    intake.row(message(**fields))


@pytest.mark.parametrize(
    ("given", "stored"),
    [("15", "15"), ("15.0", "15"), ("1e3", "1000"), ("-5", "-5"), ("1.5", "1.5"), ("-0.0", "0")]
    + [("12345678901234567890123", "12345678901234567890123"), ('"15.0"', "15.0"), ('" "', " ")],
)
def test_number_as_id(intake: Any, given: str, stored: str) -> None:
    intake.take(f'{{"type": "alias", "userId": {given}, "previousId": {given}}}')
    (row,) = intake.rows()
    assert (row["user_id"], row["previous_id"]) == (stored, stored)


def test_page_and_screen(intake: Any, message: Message) -> None:
    page = intake.row(message(1, type="page", event=..., name='Ho"me', properties={"path": "/"}))
    assert page["event"] == "Page Viewed"
    assert json.loads(page["properties"]) == {"page_name": 'Ho"me', "name": 'Ho"me', "path": "/"}
    screen = intake.row(message(2, type="screen", event=..., name="Main"))
    assert screen["event"] == "Screen Viewed"
    assert json.loads(screen["properties"]) == {"screen_name": "Main", "name": "Main"}


def test_page_keeps_its_own_name(intake: Any, message: Message) -> None:
    row = intake.row(message(type="page", name="Home", properties={"name": "mine"}))
    assert json.loads(row["properties"]) == {"page_name": "Home", "name": "mine"}


def test_page_without_name(intake: Any, message: Message) -> None:
    row = intake.row(message(type="page", properties={"path": "/"}))
    assert row["properties"] == '{"path":"/"}'


def test_objects_are_kept_as_received(intake: Any, message: Message) -> None:
    given = {"b": [1, {"c": None}], "a": "é\u0000", "n": 12345678901234567890, "x": 0.1}
    row = intake.row(message(properties=given, traits={}, context=given, integrations=None))
    assert json.loads(row["properties"]) == json.loads(row["context"]) == given
    assert row["properties"].startswith('{"b":[1,{"c":null}]')
    assert (row["traits"], row["integrations"]) == ("{}", None)


def test_group_from_context(intake: Any, message: Message) -> None:
    assert intake.row(message(1, context={"groupId": 7}))["group_id"] == "7"
    assert intake.row(message(2, groupId="g", context={"groupId": "h"}))["group_id"] == "g"
    assert intake.row(message(3, properties={"groupId": "no"}))["group_id"] is None


def test_empty_group_is_counted(intake: Any, message: Message) -> None:
    report = intake.take(message(1, context={"groupId": ""}), message(2, groupId=""))
    assert (report.accepted, report.empty_group_ids) == (2, 2)
    assert [row["group_id"] for row in intake.rows()] == [None, None]


def test_event_of_other_types_is_left_out(intake: Any, message: Message) -> None:
    assert intake.row(message(type="identify", event="Signed Up"))["event"] is None


def test_long_lines(intake: Any, message: Message) -> None:
    at_limit = message(1, properties={"x": ""})
    at_limit["properties"]["x"] = "x" * (1_048_576 - len(json.dumps(at_limit)))
    report = intake.take(at_limit, message(2, properties={"x": "x" * 32_768}), message(3))
    assert (report.accepted, report.oversize) == (3, 2)


def test_blank_lines_count_but_are_no_messages(intake: Any, message: Message) -> None:
    path = intake.root / "windows.jsonl"
    lines = ["", json.dumps(message(1)), "  ", json.dumps(message(2))]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    report = intake.take_files(path)
    assert (report.accepted, report.rejected) == (2, 0)
    assert [row["line"] for row in intake.rows()] == [2, 4]


def test_bad_lines_among_many(intake: Any, message: Message, tmp_path: Path) -> None:
    lines: list[Any] = [message(i) for i in range(2_000)]
    lines[700], lines[1_500] = b"\xff\xfe", "x" * 2_000_000
    report = intake.take(*lines)
    assert report.accepted == 1_998
    assert [row["line"] for row in intake.rows("rejected_events")] == [701, 1_501]


def test_an_endless_line_is_not_held(intake: Any, message: Message) -> None:
    report = intake.take(message(1), "x" * 30_000_000, message(2), "y" * 9_000_000)
    assert (report.accepted, report.reasons) == (2, {"line_too_long": 2})
    first, second = intake.rows("rejected_events")
    assert "30,000,000" in first["detail"]
    assert (first["line"], second["line"], len(first["raw"])) == (2, 4, 1_048_576)
