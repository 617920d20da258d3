"""100,000 fuzzed bodies: an answer for each, the process lives, its memory stays as it is."""

from __future__ import annotations

import gzip
import http.client
import json
import random
import threading
from collections import Counter
from collections.abc import Callable

import psutil
import pytest

from tests.place import Place
from tests.serving.server_process import ServerProcess
from tests.serving.serving_place import KEY, take_in, web_place

BODIES, SENDERS = 100_000, 4
PATHS = ("/v1/batch", "/v1/import", "/b", "/v1/t", "/v1/identify", "/v1/group", "/p")
MESSAGE = {
    "type": "track",
    "userId": "u1",
    "event": "Order Completed",
    "messageId": "m-é",
    "timestamp": "2026-03-01T12:00:00.000Z",
    "properties": {"revenue": 12.5, "products": [{"sku": "a"}, None, True, -1e-5]},
    "context": {"groupId": "g1", "externalIds": [{"id": "x", "type": "email"}]},
    "writeKey": KEY,
}
STRANGE = [
    *(b"\x00", b"\n", b"\r\n", b"\xff", b"\xed\xa0\xbd", b"\\ud83d", b"\\u0000", b"\xe2\x80\xa8"),
    *(
        b"NaN",
        b"-Infinity",
        b"1e999",
        b"9" * 400,
        b"null",
        b'"',
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
    ),
    *(b"!", b"\t", b" " * 40_000, b"[" * 2_000, b'{"a":' * 2_000),
    *(b'"receivedAt":7,', b'"type":[],', b'"batch":1,'),
]


def fuzzed(chance: random.Random) -> bytes:
    """A body that began as a good one."""
    messages = [MESSAGE] * chance.randrange(1, 4)
    good = (
        {"batch": messages, "sentAt": "2026-03-01T12:00:01Z"} if chance.random() < 0.6 else MESSAGE
    )
    body = bytearray(json.dumps(good, ensure_ascii=chance.random() < 0.5).encode())
    for _ in range(chance.choice((0, 1, 1, 1, 2, 5))):
        at = chance.randrange(len(body) + 1)
        kind = chance.random()
        if kind < 0.4:
            body[at:at] = chance.choice(STRANGE)
        elif kind < 0.6:
            body[at : at + chance.randrange(1, 30)] = b""
        elif kind < 0.8:
            body[at : at + 1] = chance.randbytes(1)
        elif kind < 0.9:
            body = body[:at]
        else:
            body = bytearray(chance.randbytes(chance.randrange(200)))
    if chance.random() < 0.15:
        body = bytearray(gzip.compress(body, 1))
        if chance.random() < 0.5 and body:
            body[chance.randrange(len(body))] ^= 1 << chance.randrange(8)
    return bytes(body)


class Sender(threading.Thread):
    def __init__(self, seed: int, port: int, bodies: int) -> None:
        super().__init__(daemon=True)
        self.chance, self.port, self.bodies = random.Random(seed), port, bodies
        self.answers: Counter[int] = Counter()

    def run(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        for _ in range(self.bodies):
            headers = {"Content-Type": self.chance.choice(("application/json", "text/plain", "x"))}
            if self.chance.random() < 0.7:
                headers["Authorization"] = "Basic a2V5LW9mLXdlYjo="
            path = self.chance.choice(PATHS)
            connection.request("POST", path, fuzzed(self.chance), headers)
            answer = connection.getresponse()
            json.loads(answer.read())
            self.answers[answer.status] += 1
        connection.close()


@pytest.mark.slow
def test_an_answer_for_each(new_place: Callable[[], Place]) -> None:
    place = web_place(new_place)
    with ServerProcess(place.root, "-q") as server:
        assert server.process is not None
        process, sizes = psutil.Process(server.process.pid), list[int]()
        answers: Counter[int] = Counter()
        for part in range(5):
            senders = [
                Sender(10 * part + number, server.port, BODIES // 5 // SENDERS)
                for number in range(SENDERS)
            ]
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join(300)
                answers += sender.answers
            sizes.append(process.memory_info().rss)
        assert server.stop() == 0
    assert answers.total() == BODIES
    assert set(answers) == {200, 400, 401}
    assert max(sizes[1:]) < sizes[0] + 20 * 2**20, sizes
    incoming = place.root / ".personas/landing/incoming/web"
    lines = sum(path.read_bytes().count(b"\n") for path in incoming.iterdir())
    assert lines > 10_000
    report = take_in(place)  # and none of them stops a load
    assert report.accepted + report.duplicates + report.rejected == lines
    assert report.rejected > 1_000
