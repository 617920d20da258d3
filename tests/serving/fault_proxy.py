"""Stands between a library and the server, and does what networks and servers do."""

from __future__ import annotations

import http.client
import random
import threading
import time
from collections.abc import Mapping
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.serving.server_process import ServerProcess

FAULTS = ("429", "500", "lost", "cut", "killed")


class FaultProxy:
    """Passes requests on, but for some POSTs, by their number (from 1):

    `429` and `500` are answered without the server; `lost` reaches the server, and its answer is
    500 all the same; `cut` ends the connection without an answer; `killed` kills the server while
    it has the request, starts it again, and ends the connection.
    """

    def __init__(self, server: ServerProcess, faults: Mapping[int, str]) -> None:
        self.server, self.faults = server, dict(faults)
        self.done: list[str] = []
        self.answers: list[int] = []
        self._posts = 0
        self._lock = threading.Lock()
        self._up = threading.Lock()  # held while the server is started again
        self._random = random.Random(6)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def fault(self) -> str | None:
        with self._lock:
            self._posts += 1
            fault = self.faults.get(self._posts)
            if fault:
                self.done.append(fault)
            return fault

    def pass_on(self, method: str, path: str, headers: Any, body: bytes) -> Any:
        with self._up:
            port = self.server.port
        upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
        upstream.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                upstream.putheader(name, value)
        upstream.putheader("Content-Length", str(len(body)))
        upstream.endheaders(body)
        return upstream

    def kill(self, method: str, path: str, headers: Any, body: bytes) -> None:
        with closing(self.pass_on(method, path, headers, body)):
            time.sleep(self._random.uniform(0, 0.02))
            with self._up:
                self.server.kill()
                self.server.start()

    def __enter__(self) -> Self:
        self._http = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._http.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128


def _handler(proxy: FaultProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.fault() if self.command == "POST" else None
            if fault in ("429", "500"):
                proxy.answers.append(int(fault))
                self.reply(int(fault), {"Retry-After": "1"} if fault == "429" else {}, b"{}")
                return
            if fault == "killed":
                proxy.kill(self.command, self.path, self.headers, body)
            if fault in ("killed", "cut"):
                self.close_connection = True
                return
            with (
                closing(proxy.pass_on(self.command, self.path, self.headers, body)) as upstream,
                upstream.getresponse() as found,
            ):
                content, headers = found.read(), dict(found.getheaders())
            if self.command == "POST":
                proxy.answers.append(found.status)
            self.reply(500 if fault == "lost" else found.status, headers, content)

        def reply(self, status: int, headers: Mapping[str, str], content: bytes) -> None:
            given = {name.lower(): value for name, value in headers.items()}
            given.setdefault("access-control-allow-origin", "*")
            given["content-length"] = str(len(content))
            self.send_response_only(status)
            for name, value in given.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_OPTIONS = answer

        def log_message(self, *_: Any) -> None:
            pass

    return Handler
