import gzip
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from personas_dagster.samples.receiver import Receiver


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as running:
        yield running


def test_keeps_one_message(receiver: Receiver) -> None:
    answer = httpx.post(f"{receiver.url}/hook", json={"type": "identify"}, headers={"X-Key": "k"})
    assert answer.status_code == 200
    assert receiver.messages == [{"type": "identify"}]
    assert receiver.headers[0]["x-key"] == "k"
    assert receiver.received[0].path == "/hook"


def test_unpacks_a_batch(receiver: Receiver) -> None:
    httpx.post(receiver.url, json={"batch": [{"n": 1}, {"n": 2}]})
    assert receiver.messages == [{"n": 1}, {"n": 2}]
    assert receiver.requests == 1


def test_reads_gzip(receiver: Receiver) -> None:
    body = gzip.compress(b'{"n": 1}')
    httpx.post(receiver.url, content=body, headers={"Content-Encoding": "gzip"})
    assert receiver.messages == [{"n": 1}]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b'{"batch": 1}', b'{"batch": [1]}'])
def test_refuses_other_bodies(receiver: Receiver, body: bytes) -> None:
    assert httpx.post(receiver.url, content=body).status_code == 400
    assert receiver.messages == []


def test_fails_when_told(receiver: Receiver) -> None:
    receiver.fail_next(2, status=429, retry_after=1.5)
    answers = [httpx.post(receiver.url, json={"n": n}) for n in range(3)]
    assert [answer.status_code for answer in answers] == [429, 429, 200]
    assert answers[0].headers["Retry-After"] == "1.5"
    assert receiver.messages == [{"n": 2}]
    assert receiver.requests == 3


def test_many_at_once(receiver: Receiver) -> None:
    with httpx.Client() as client, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: client.post(receiver.url, json={"n": n}), range(100)))
    assert sorted(m["n"] for m in receiver.wait_for(100)) == list(range(100))


def test_says_how_many_came(receiver: Receiver) -> None:
    with pytest.raises(TimeoutError, match="0 of 1"):
        receiver.wait_for(1, timeout=0.01)


def test_writes_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with Receiver(log=log) as receiver:
        httpx.post(receiver.url, json={"batch": [{"n": 1}, {"n": "ü"}]})
    assert [json.loads(line) for line in log.read_text("utf-8").splitlines()] == [
        {"n": 1},
        {"n": "ü"},
    ]


def test_closed_means_closed() -> None:
    with Receiver() as receiver, httpx.Client() as client:
        client.post(receiver.url, json={})
        receiver.__exit__(None, None, None)
        with pytest.raises(httpx.ConnectError):
            client.post(receiver.url, json={})
