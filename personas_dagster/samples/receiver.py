"""A webhook's other end, for demos and tests: keeps what it is sent, and fails when told to.

    python -m personas_dagster.samples.receiver --port 8099 --log FILE

A POST carries one JSON object or `{"batch": [object, ...]}`, plain or gzipped, on any path.
"""

import argparse
import gzip
import json
import logging
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

logger = logging.getLogger(__name__)

Message = dict[str, Any]


@dataclass(frozen=True)
class Request:
    """One POST as it came; header names are in lower case."""

    path: str
    headers: dict[str, str]
    body: bytes
    status: int


class Receiver:
    """A server in a thread of its own, to be used in a `with` block.

    >>> with Receiver() as receiver:  # doctest: +SKIP
    ...     httpx.post(receiver.url, json={"type": "identify"})
    ...     receiver.messages
    [{'type': 'identify'}]
    """

    def __init__(self, port: int = 0, log: Path | None = None) -> None:
        self._server = _Server(("127.0.0.1", port), self)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._log = log
        self._changed = threading.Condition()
        self._messages: list[Message] = []
        self._received: list[Request] = []
        self._failures: list[tuple[int, float | None]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    @property
    def messages(self) -> list[Message]:
        """What was accepted, in the order of arrival."""
        with self._changed:
            return list(self._messages)

    @property
    def received(self) -> list[Request]:
        """All requests, those that were told to fail among them."""
        with self._changed:
            return list(self._received)

    @property
    def requests(self) -> int:
        return len(self.received)

    @property
    def headers(self) -> list[dict[str, str]]:
        return [request.headers for request in self.received]

    def fail_next(self, n: int, status: int = 500, retry_after: float | None = None) -> None:
        """Answer the next n requests with this status, and keep nothing of them."""
        with self._changed:
            self._failures += [(status, retry_after)] * n

    def wait_for(self, count: int, timeout: float = 5.0) -> list[Message]:
        """Block until `count` messages are there; TimeoutError says how many came."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._messages) >= count, timeout):
                raise TimeoutError(f"{len(self._messages)} of {count} messages in {timeout} s")
            return list(self._messages)

    def clear(self) -> None:
        with self._changed:
            self._messages.clear()
            self._received.clear()
            self._failures.clear()

    def take(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, float | None]:
        """Decide on one request: the status to answer with, and Retry-After if any."""
        with self._changed:
            retry_after = None
            if self._failures:
                status, retry_after = self._failures.pop(0)
            else:
                try:
                    messages = _decode(headers, body)
                except ValueError as error:
                    logger.warning("refused a request to %s: %s", path, error)
                    status = 400
                else:
                    status = 200
                    self._keep(messages)
            self._received.append(Request(path, headers, body, status))
            self._changed.notify_all()
        return status, retry_after

    def _keep(self, messages: list[Message]) -> None:
        self._messages += messages
        if self._log is not None:
            with self._log.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(m, ensure_ascii=False) + "\n" for m in messages)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _decode(headers: dict[str, str], body: bytes) -> list[Message]:
    """The messages of a body; ValueError says what is wrong with it."""
    if headers.get("content-encoding") == "gzip":
        try:
            body = gzip.decompress(body)
        except (OSError, EOFError) as error:
            raise ValueError(f"not gzip: {error}") from error
    found = json.loads(body)
    messages = found["batch"] if isinstance(found, dict) and "batch" in found else [found]
    if not isinstance(messages, list) or not all(isinstance(m, dict) for m in messages):
        raise ValueError('expected a JSON object or {"batch": [object, ...]}')
    return messages


class _Server(ThreadingHTTPServer):
    # Many clients may connect at once; the default backlog is 5.
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], receiver: Receiver) -> None:
        self.receiver = receiver
        super().__init__(address, _Handler)


class _Handler(BaseHTTPRequestHandler):
    # HTTP/1.0 on purpose: a kept-alive connection would still answer after the receiver is closed.
    protocol_version = "HTTP/1.0"
    server: _Server

    def do_POST(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        status, retry_after = self.server.receiver.take(self.path, headers, body)
        answer = json.dumps({"ok": status < 400}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        if retry_after is not None:
            self.send_header("Retry-After", f"{retry_after:g}")
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:
        logger.debug(format, *args)


def main() -> None:
    parser = argparse.ArgumentParser(description="Receive webhooks and keep their messages.")
    parser.add_argument("--port", type=int, default=8099)
    parser.add_argument("--log", type=Path, help="append each message to this file as a line")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.DEBUG, format="%(asctime)s %(message)s")
    with Receiver(arguments.port, arguments.log) as receiver:
        logger.info("receiving at %s, stop with Ctrl-C", receiver.url)
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            logger.info("%d messages in %d requests", len(receiver.messages), receiver.requests)


if __name__ == "__main__":
    main()
