"""`kill -9` at random instants under load: what was answered 200 is there, once."""

from __future__ import annotations

import http.client
import json
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable

import psutil
import pytest

from tests.place import Place
from tests.serving.server_process import ServerProcess
from tests.serving.serving_place import KEY, stored, take_in, web_place

pytestmark = pytest.mark.slow
SENDERS, BATCH = 8, 20


class Sender(threading.Thread):
    """Sends batches one after the other; a batch that was not answered 200 is sent again."""

    def __init__(self, name: str, server: ServerProcess) -> None:
        super().__init__(daemon=True, name=name)
        self.server, self.ending = server, threading.Event()
        self.sent, self.acknowledged, self.again = list[str](), list[str](), 0

    def run(self) -> None:
        while not self.ending.is_set():
            ids = [f"{self.name}-{len(self.sent) + index}" for index in range(BATCH)]
            self.sent += ids
            batch = [
                {"type": "track", "event": "e", "userId": "u", "messageId": one} for one in ids
            ]
            body = json.dumps({"batch": batch, "writeKey": KEY})
            while not self._post(body):
                self.again += 1
                if self.ending.is_set():
                    return
                time.sleep(0.02)
            self.acknowledged += ids

    def _post(self, body: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=30)
        try:
            connection.request("POST", "/v1/batch", body)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()


@pytest.mark.parametrize(("workers", "kills"), [(1, 8), (2, 4)])
def test_what_was_answered_is_there_once(
    new_place: Callable[[], Place], workers: int, kills: int
) -> None:
    place, chance = web_place(new_place), random.Random(workers)
    with ServerProcess(place.root, workers=workers) as server:
        senders = [Sender(f"s{number}", server) for number in range(SENDERS)]
        for sender in senders:
            sender.start()
        for number in range(kills):
            time.sleep(chance.uniform(0.05, 1.5))
            if workers > 1 and number % 2:
                assert server.process is not None
                one = chance.choice(psutil.Process(server.process.pid).children())
                os.kill(one.pid, signal.SIGKILL)  # the others go on, and a new one comes
                continue
            server.kill()
            if number % 2:
                take_in(place)  # somebody looks while no server runs
            server.start()
            if number % 3 == 0:
                take_in(place)  # and while one does
        time.sleep(0.5)
        server.kill()
        for sender in senders:
            sender.ending.set()
        for sender in senders:
            sender.join(60)
    assert sum(sender.again for sender in senders) > 0
    take_in(place)
    counts = Counter(row["message_id"] for row in stored(place))
    acknowledged = {one for sender in senders for one in sender.acknowledged}
    assert len(acknowledged) > 1_000
    assert acknowledged - set(counts) == set()
    assert set(counts) <= {one for sender in senders for one in sender.sent}
    assert max(counts.values()) == 1
    assert stored(place, "rejected_events") == []
    left = [path for path in (place.root / ".personas/landing/incoming").rglob("*.part")]
    assert left == []


def test_workers_end_with_their_parent(new_place: Callable[[], Place]) -> None:
    place = web_place(new_place)
    with ServerProcess(place.root, workers=2) as server:
        assert server.process is not None
        tree = psutil.Process(server.process.pid).children(recursive=True)
        server.process.kill()
        server.process.wait()
        assert psutil.wait_procs(tree, timeout=60)[1] == []
        server.start()  # the port is free
        assert server.stop() == 0


def test_workers_end_whose_parent_was_killed_while_they_started(
    new_place: Callable[[], Place],
) -> None:
    server = ServerProcess(web_place(new_place).root, workers=2)
    server.launch()
    assert server.process is not None
    parent = psutil.Process(server.process.pid)
    while len(tree := parent.children(recursive=True)) < 2:
        time.sleep(0.01)
    server.process.kill()
    server.process.wait()
    assert psutil.wait_procs(tree, timeout=60)[1] == []
