"""The Tracking API, measured: `python benchmarks/serving.py [MESSAGES]` (default 500,000).

Batches of 100 messages of about 560 bytes from 16 connections to a server of its own process on
loopback; client and server share the machine. Every answer must be 200, and every message must be
in the landing folder. Bodies are made first and are not part of any figure. Prints a table, and
with --json FILE the same as JSON.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil

BATCH = 100
CONNECTIONS = 16
KEY = "benchmark"
SPACE = """\
lake: {location: lake}
state: {url: "sqlite:///state.db"}
landing: landing
"""


def project(root: Path) -> None:
    """A project whose source takes messages over HTTP."""
    for folder in ("assets/sources", "resources/spaces"):
        (root / folder).mkdir(parents=True)
    (root / "resources/spaces/bench.yaml").write_text(SPACE)
    (root / "assets/sources/web.yaml").write_text("name: Web\nwrite_keys: {bench: {env: KEY}}\n")


def body(number: int) -> bytes:
    """A batch as a server-side library sends it."""
    messages = [
        {
            "type": "track",
            "messageId": f"bench-{number:08d}-{index:02d}-000000000000000000",
            "userId": f"user-{(number * BATCH + index) % 50_000}",
            "anonymousId": None,
            "event": "Order Completed",
            "timestamp": "2026-03-01T12:00:00.000+00:00",
            "properties": {
                "revenue": 12.5,
                "currency": "EUR",
                "products": [{"sku": "a-1", "price": 1.5, "quantity": 2}] * 3,
            },
            "context": {
                "library": {"name": "analytics-python", "version": "2.4.0"},
                "ip": "203.0.113.7",
                "page": {"url": "https://shop.example/checkout", "title": "Checkout"},
            },
            "integrations": {},
        }
        for index in range(BATCH)
    ]
    return json.dumps({"batch": messages, "sentAt": "2026-03-01T12:00:01Z"}).encode()


def request(number: int, port: int) -> bytes:
    user = base64.b64encode(f"{KEY}:".encode()).decode()
    text = body(number)
    head = (
        f"POST /v1/batch HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Basic {user}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(text)}\r\n\r\n"
    )
    return head.encode() + text


class Client:
    """A few connections, each of which sends its requests one after the other."""

    def __init__(self, port: int) -> None:
        self.port, self.seconds, self.refused = port, list[float](), 0

    def send(self, requests: list[bytes]) -> None:
        queues = [requests[start::CONNECTIONS] for start in range(CONNECTIONS)]
        threads = [threading.Thread(target=self._connection, args=(queue,)) for queue in queues]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _connection(self, queue: list[bytes]) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for text in queue:
                began = time.perf_counter()
                connection.sendall(text)
                answer = connection.recv(4_096)
                while not answer.endswith(b"}"):
                    answer += connection.recv(4_096)
                self.seconds.append(time.perf_counter() - began)
                self.refused += not answer.startswith(b"HTTP/1.1 200")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def serve(root: Path, port: int) -> subprocess.Popen[bytes]:
    """A server that is ready."""
    command = [sys.executable, "-m", "personas_dagster.cli", "serve", "--port", str(port), "-q"]
    server = subprocess.Popen([*command, "--project", str(root)], env={**os.environ, "KEY": KEY})
    while server.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return server
        except OSError:
            time.sleep(0.05)
    raise SystemExit("the server did not start")


def measure(root: Path, messages: int) -> dict[str, Any]:
    """Messages a second and the rest, for this many messages."""
    project(root)
    port = free_port()
    requests = [request(number, port) for number in range(messages // BATCH)]
    server = serve(root, port)
    try:
        process = psutil.Process(server.pid)
        client = Client(port)
        client.send(requests[:CONNECTIONS])  # connections, the first file
        before, own = process.cpu_times(), time.process_time()
        began = time.perf_counter()
        client.send(requests[CONNECTIONS:])
        seconds = time.perf_counter() - began
        after, own = process.cpu_times(), time.process_time() - own
        memory = process.memory_info().rss
    finally:
        server.terminate()
        server.wait()
    kept = sum(path.read_bytes().count(b"\n") for path in (root / "landing/incoming/web").iterdir())
    if client.refused or kept != len(requests) * BATCH:
        raise SystemExit(f"{client.refused} requests refused, {kept:,} messages kept")
    waits = sorted(client.seconds[CONNECTIONS:])
    return {
        "messages": kept,
        "messages a second": round((len(requests) - CONNECTIONS) * BATCH / seconds),
        "requests a second": round((len(requests) - CONNECTIONS) / seconds),
        "median ms": round(waits[len(waits) // 2] * 1000, 1),
        "99% ms": round(waits[len(waits) * 99 // 100] * 1000, 1),
        "server CPU s": round(after.user + after.system - before.user - before.system, 2),
        "client CPU s": round(own, 2),
        "seconds": round(seconds, 2),
        "server MiB": round(memory / 2**20),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("messages", nargs="?", type=int, default=500_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), arguments.messages)
    for name, value in found.items():
        print(f"{name:20} {value:>12,}")
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
