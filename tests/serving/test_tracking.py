"""The Tracking API: where messages may be sent, what is answered, and what arrives."""

from __future__ import annotations

import asyncio
import base64
import datetime as dt
import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from personas_dagster.serving import messages
from personas_dagster.serving.app import build
from personas_dagster.serving.journal import Journal
from personas_dagster.serving.tracking import BATCH_PATHS, SINGLE_PATHS
from tests.place import NOW, Place
from tests.serving.serving_place import ENV, KEY, OTHER_KEY, stored, take_in, web_place

SUCCESS = {"success": True}
TRACK = {"userId": "u1", "event": "Order Completed", "messageId": "m1"}
AUTH = (KEY, "")


@pytest.fixture
def place(new_place: Callable[[], Place], monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, value in ENV.items():
        monkeypatch.setenv(name, value)
    return web_place(new_place)


@pytest.fixture
def client(place: Place) -> Iterator[TestClient]:
    with TestClient(application(place)) as client:
        yield client


def application(place: Place, journal: Journal | None = None) -> Any:
    from personas_dagster.serving.server import open_spaces

    return build(open_spaces(place.root), journal=journal, now=lambda: NOW)


def arrived(place: Place, client: TestClient, table: str = "raw_events") -> list[dict[str, Any]]:
    """What is stored when the server has ended."""
    client.__exit__(None, None, None)
    take_in(place)
    return stored(place, table)


@pytest.mark.parametrize(("path", "kind"), SINGLE_PATHS.items())
def test_single_messages_have_the_type_of_their_path(
    client: TestClient, place: Place, path: str, kind: str
) -> None:
    message = {**TRACK, "groupId": "g", "previousId": "p"}
    answer = client.post(path, json=message, auth=AUTH)
    assert (answer.status_code, answer.json()) == (200, SUCCESS)
    (row,) = arrived(place, client)
    assert (row["type"], row["user_id"], row["message_id"]) == (kind, "u1", "m1")
    assert row["source_id"] == "web"
    assert row["received_at"] == NOW


@pytest.mark.parametrize("path", BATCH_PATHS)
def test_batches(client: TestClient, place: Place, path: str) -> None:
    batch = [{**TRACK, "type": "track"}, {"type": "identify", "userId": 7, "messageId": "m2"}]
    answer = client.post(path, json={"batch": batch}, auth=AUTH)
    assert (answer.status_code, answer.json()) == (200, SUCCESS)
    rows = arrived(place, client)
    assert [(row["type"], row["user_id"]) for row in rows] == [("track", "u1"), ("identify", "7")]


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({"Authorization": "Basic " + base64.b64encode(f"{KEY}:".encode()).decode()}, {}),
        ({"Authorization": "basic " + base64.b64encode(f"{KEY}".encode()).decode()}, {}),
        ({}, {"writeKey": KEY}),
        ({"Authorization": "Bearer an-oauth-token"}, {"writeKey": KEY}),
        ({"Content-Type": "text/plain"}, {"writeKey": KEY}),
        ({"Content-Type": "application/x-www-form-urlencoded"}, {"writeKey": KEY}),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_keys_and_bodies_however_libraries_put_them(
    client: TestClient, place: Place, headers: dict[str, str], body: dict[str, Any], packed: bool
) -> None:
    text = json.dumps({**body, "batch": [{**TRACK, "type": "track"}]}).encode()
    if packed:
        text, headers = gzip.compress(text), {**headers, "Content-Encoding": "gzip"}
    assert client.post("/v1/batch", content=text, headers=headers).json() == SUCCESS
    assert len(arrived(place, client)) == 1


def test_the_key_may_stand_in_the_first_message(client: TestClient, place: Place) -> None:
    batch = [{**TRACK, "type": "track", "writeKey": KEY}, {**TRACK, "type": "page"}]
    assert client.post("/b", json={"batch": batch}).json() == SUCCESS
    single = client.post("/v1/t", json={**TRACK, "messageId": "m3", "writeKey": KEY})
    assert single.json() == SUCCESS
    assert [row["message_id"] for row in arrived(place, client)] == ["m1", "m3"]


def test_keys_are_not_kept(client: TestClient, place: Place) -> None:
    client.post("/v1/t", json={**TRACK, "writeKey": KEY})
    client.post("/b", json={"batch": [{**TRACK, "type": "track", "writeKey": KEY}]})
    arrived(place, client)
    files = [path for path in (place.root / ".personas").rglob("*") if path.is_file()]
    assert len(files) > 3
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


@pytest.mark.parametrize("path", [*BATCH_PATHS, *SINGLE_PATHS])
def test_unknown_keys(client: TestClient, place: Place, path: str) -> None:
    body = {**TRACK, "batch": []}
    for answer in (
        client.post(path, json=body),
        client.post(path, json=body, auth=("", "")),
        client.post(path, json=body, auth=("key-of-we", "")),
        client.post(path, json=body, headers={"Authorization": f"Bearer {KEY}"}),
        client.post(path, json={**body, "writeKey": [KEY]}),
        client.post(path, json={**body, "writeKey": KEY}, auth=("unknown", "")),
    ):
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "authentication_error"
    assert not (place.root / ".personas/landing/incoming").exists()


def test_a_key_is_one_space_s(client: TestClient, place: Place) -> None:
    client.post("/v1/track", json=TRACK, auth=(OTHER_KEY, ""))
    assert arrived(place, client) == []
    (file,) = (place.root / ".personas/elsewhere/landing/incoming/web").iterdir()
    assert b'"m1"' in file.read_bytes()


def test_a_source_that_is_off_takes_nothing(place: Place) -> None:
    place.write(
        "assets/sources/web.yaml",
        "name: Web\nenabled: false\nwrite_keys: {main: {env: WEB_KEY}}\n",
    )
    with TestClient(application(place)) as client:
        assert client.post("/v1/track", json=TRACK, auth=AUTH).status_code == 401


def test_bad_messages_are_rejected_alone(client: TestClient, place: Place) -> None:
    good = json.dumps({**TRACK, "type": "track"})
    large = json.dumps({**TRACK, "type": "track", "messageId": "large", "x": "y" * 32_768})
    bad = [
        ('{"type": "track", "userId": "u", "event": "e", "properties": {"a": NaN}}', "not_json"),
        ('{"type": "track", "userId": "u", "event": "\\ud83d"}', "not_json"),
        ('"text"', "not_an_object"),
        ("[1]", "not_an_object"),
        ("null", "not_an_object"),
        ('{"type": "jump", "userId": "u"}', "unknown_type"),
        ('{"userId": "u"}', "missing_type"),
        ('{"type": "track", "userId": "u"}', "missing_event"),
        ('{"type": "page"}', "missing_ids"),
        ('{"type": "page", "userId": "u", "timestamp": "yesterday"}', "bad_timestamp"),
        (large, "message_too_large"),
    ]
    for number, (text, _) in enumerate(bad):
        own = good.replace("m1", f"m{number}")
        body = f'{{"batch": [{text},\n{own}\r\n]}}'
        answer = client.post("/v1/batch", content=body, auth=AUTH)
        assert (answer.status_code, answer.json()) == (200, SUCCESS)
    rejected = arrived(place, client, "rejected_events")
    assert [row["reason"] for row in rejected] == [reason for _, reason in bad]
    assert rejected[-1]["raw"] == large
    assert rejected[-1]["detail"] == f"found {len(large):,} bytes, at most 32,768"
    assert {row["source_id"] for row in rejected} == {"web"}
    assert [row["message_id"] for row in stored(place)] == [f"m{n}" for n in range(len(bad))]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/batch", b""),
        ("/v1/batch", b"nonsense"),
        ("/v1/batch", b'{"batch": [}'),
        ("/v1/batch", b"[]"),
        ("/v1/batch", b"{}"),
        ("/v1/batch", b'{"batch": {}}'),
        ("/v1/batch", b'{"batch": null, "x": NaN}'),
        ("/v1/batch", b'{"batch": [' + b"[" * 100_000),
        ("/v1/batch", b"\x1f\x8b nonsense"),
        ("/v1/batch", gzip.compress(b'{"batch": []}', mtime=0)[:-9]),
        ("/v1/batch", b'\xff{"batch": []}'),
        ("/v1/track", b""),
        ("/v1/track", b"[]"),
        ("/v1/track", b"3"),
        ("/v1/track", b'{"event": NaN}'),
        ("/v1/track", b'{"a":' * 100_000),
    ],
)
def test_what_cannot_be_used_is_400(client: TestClient, path: str, body: bytes) -> None:
    answer = client.post(path, content=body, auth=AUTH)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request_error"


def test_limits_to_the_byte(client: TestClient, place: Place) -> None:
    def single(size: int) -> bytes:
        empty = json.dumps({**TRACK, "messageId": "m2", "x": ""}).encode()
        return empty.replace(b'""', b'"' + b"y" * (size - len(empty)) + b'"')

    def batch(size: int) -> bytes:
        empty = b'{"batch": [], "x": ""}'
        return empty.replace(b'""', b'"' + b"y" * (size - len(empty)) + b'"')

    whole, limit = messages.MAX_BODY, messages.MAX_MESSAGE
    assert (whole, limit) == (512_000, 32_768)
    assert client.post("/v1/track", content=single(limit), auth=AUTH).status_code == 200
    assert client.post("/v1/batch", content=batch(whole), auth=AUTH).status_code == 200
    for path, body in (
        ("/v1/track", single(limit + 1)),
        ("/v1/batch", batch(whole + 1)),
        ("/v1/batch", gzip.compress(batch(whole + 1))),
        ("/v1/batch", gzip.compress(b" " * 200_000_000)),  # what unpacks to much more
        ("/v1/batch", gzip.compress(b" " * 300_000) * 2),
        ("/v1/batch", batch(5_000_000)),
    ):
        answer = client.post(path, content=body, auth=AUTH)
        assert answer.status_code == 400
        assert "bytes" in answer.json()["error"]["message"]
    assert [row["message_id"] for row in arrived(place, client)] == ["m2"]


def test_the_device_s_clock_is_corrected(client: TestClient, place: Place) -> None:
    late = NOW - dt.timedelta(hours=2)  # what the device believes
    spoken = {"type": "track", "userId": "u", "event": "e", "receivedAt": "2001-01-01T00:00:00Z"}
    ago = (late - dt.timedelta(minutes=5)).isoformat()
    batch = [
        {**spoken, "messageId": "1", "timestamp": ago},
        {**spoken, "messageId": "2", "originalTimestamp": ago, "timestamp": "2020-01-01"},
        {**spoken, "messageId": "3", "originalTimestamp": None, "timestamp": ago},
        {**spoken, "messageId": "4", "sentAt": "2020-01-01", "timestamp": ago},
        {**spoken, "messageId": "5"},
    ]
    client.post("/v1/batch", json={"batch": batch, "sentAt": late.isoformat()}, auth=AUTH)
    alone = {**spoken, "messageId": "6", "timestamp": ago}
    client.post("/v1/t", json=alone, auth=AUTH)
    client.post("/v1/t", json={**alone, "messageId": "7", "sentAt": late.isoformat()}, auth=AUTH)
    rows = {row["message_id"]: row for row in arrived(place, client)}
    assert {row["received_at"] for row in rows.values()} == {NOW}
    true = NOW - dt.timedelta(minutes=5)
    stamps = {key: row["timestamp"] for key, row in sorted(rows.items())}
    assert stamps == {
        **dict.fromkeys("1234", true),
        "5": NOW,
        "6": late - dt.timedelta(minutes=5),
        "7": true,
    }


def test_a_batch_s_context_goes_for_its_messages(client: TestClient, place: Place) -> None:
    body = {
        "context": {"app": {"name": "a"}, "locale": "de"},
        "integrations": {"All": False},
        "batch": [
            {**TRACK, "type": "track", "messageId": "1"},
            {**TRACK, "type": "track", "messageId": "2", "context": {"locale": "fr", "ip": "::1"}},
        ],
    }
    client.post("/v1/batch", json=body, auth=AUTH)
    rows = arrived(place, client)
    assert [json.loads(row["context"]) for row in rows] == [
        {"app": {"name": "a"}, "locale": "de"},
        {"app": {"name": "a"}, "locale": "fr", "ip": "::1"},
    ]
    assert [json.loads(row["integrations"]) for row in rows] == [{"All": False}] * 2


def test_values_are_kept_as_they_were_written() -> None:
    properties = '{"a":1e400,"b":123456789012345678901234567890,"c":1.10,"d":"\\u00e9\\u0000 é"}'
    body = f'{{"userId": "u", "event": "e", "properties": {properties}}}'
    lines = messages.read_single(body.encode(), "track").lines(NOW)
    assert f'"properties":{properties}'.encode() in lines.text


def test_what_is_sent_again_counts_once(client: TestClient, place: Place) -> None:
    anonymous = {"type": "track", "userId": "u", "event": "no id"}
    for sent_at in ("2026-03-01T12:00:00Z", "2026-03-01T12:00:09Z"):
        body = {"batch": [{**TRACK, "type": "track"}, anonymous], "sentAt": sent_at}
        client.post("/v1/batch", json=body, auth=AUTH)
    assert [row["event"] for row in arrived(place, client)] == ["Order Completed", "no id"]


@pytest.mark.parametrize("path", ["/v1/t", "/v1/b", "/v1/projects/x/settings", "/sourceConfig/"])
def test_browsers_may_ask_from_any_origin(client: TestClient, path: str) -> None:
    origin = {"Origin": "https://shop.example"}
    wanted = "authorization,content-type,anonymousid"
    answer = client.options(
        path,
        headers={
            **origin,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": wanted,
        },
    )
    assert answer.status_code == 200
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Access-Control-Allow-Headers"] == wanted
    refused = client.request("GET" if "o" in path else "POST", path, headers=origin)
    assert refused.status_code in (400, 401)
    assert refused.headers["Access-Control-Allow-Origin"] == "*"


def test_nothing_else_is_for_browsers(client: TestClient) -> None:
    for path in ("/healthz", "/metrics", "/openapi.json", "/v1/spaces/main/audiences"):
        answer = client.get(path, headers={"Origin": "https://shop.example"})
        assert "Access-Control-Allow-Origin" not in answer.headers


def test_settings_send_browsers_to_where_they_came_from(client: TestClient) -> None:
    settings = client.get(f"/v1/projects/{KEY}/settings").json()
    assert settings["integrations"]["Segment.io"] == {
        "apiKey": KEY,
        "apiHost": "testserver/v1",
        "protocol": "http",
    }
    assert client.get("/v1/projects/unknown/settings").status_code == 401


@pytest.mark.parametrize("path", ["/sourceConfig", "/sourceConfig/"])
def test_source_config(client: TestClient, path: str) -> None:
    for answer in (
        client.get(path, params={"writeKey": KEY}),
        client.get(path, auth=AUTH),
    ):
        source = answer.json()["source"]
        assert (source["name"], source["writeKey"], source["enabled"]) == ("Web", KEY, True)
    assert client.get(path).status_code == 401
    assert client.get(path, params={"writeKey": "unknown"}).status_code == 401


def test_overload_is_answered_before_memory_grows(place: Place) -> None:
    journal = Journal(limit=50_000)
    large = json.dumps({"batch": [{**TRACK, "x": "y" * 30_000}]}).encode()
    with TestClient(application(place, journal)) as client:
        for body in (large, large * 2, gzip.compress(large + b" " * 30_000)):
            answer = client.post("/v1/batch", content=body, auth=AUTH)
            assert (answer.status_code, answer.headers["Retry-After"]) == (429, "1")
            assert answer.json()["error"]["code"] == "rate_limit_error"
        small = {"batch": [{**TRACK, "type": "track"}]}
        for _ in range(10):  # what was refused is held no longer
            assert client.post("/v1/batch", json=small, auth=AUTH).status_code == 200


def test_a_disk_that_takes_nothing(
    client: TestClient, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_self: Any, _lines: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("personas_dagster.serving.journal.JournalFile.append", full)
        answer = client.post("/v1/track", json=TRACK, auth=AUTH)
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
        unready = client.get("/readyz")
        assert unready.status_code == 503
        assert "No space left" in unready.json()["error"]["message"]
    assert client.get("/readyz").status_code == 200  # without a message that would tell
    assert client.post("/v1/track", json=TRACK, auth=AUTH).json() == SUCCESS
    assert len(arrived(place, client)) == 1


def test_one_sync_for_all_that_wait(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    syncs: list[int] = []
    monkeypatch.setattr(os, "fdatasync", syncs.append)
    folder = place.root / ".personas/landing/incoming/web"

    async def many() -> None:
        async with Journal() as journal:
            await asyncio.gather(*(journal.append(folder, b"{}\n") for _ in range(1_000)))

    asyncio.run(many())
    (file,) = folder.iterdir()
    assert file.read_bytes() == b"{}\n" * 1_000
    assert 1 <= len(syncs) <= 2


def test_files_change_by_size_and_age(tmp_path: Path) -> None:
    async def by_size() -> None:
        async with Journal(rotate_bytes=3, rotate_seconds=3_600) as journal:
            for _ in range(3):
                await journal.append(tmp_path / "size", b"{}\n")

    async def by_age() -> None:
        async with Journal(rotate_seconds=0.05) as journal:
            await journal.append(tmp_path / "age", b"{}\n")
            while not list((tmp_path / "age").glob("*.http.jsonl")):
                await asyncio.sleep(0.01)

    asyncio.run(by_size())
    asyncio.run(asyncio.wait_for(by_age(), 10))
    assert len(list((tmp_path / "size").glob("*.http.jsonl"))) == 3
