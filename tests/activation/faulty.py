"""A tool in a process of its own that loses, delays and refuses what it is sent, as it is told."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from typing import Any

SLOW_SECONDS = 0.4  # longer than the clients of these tests wait
_ANSWER = "HTTP/1.1 {} X\r\nContent-Length: {}\r\n{}\r\n{}"


class Tool:
    """What it took: user -> value, and how often each message came. `rate`: of each fault."""

    def __init__(self, seed: int) -> None:
        self.chance, self.rate = random.Random(seed), 0.0
        self.values: dict[str, Any] = {}
        self.seen: Counter[str] = Counter()
        self.requests = 0

    def take(self, messages: list[dict[str, Any]]) -> None:
        for message in messages:
            self.values[message["userId"]] = message["traits"]["buyers"]
            self.seen[message["messageId"]] += 1

    def happens(self) -> bool:
        return self.chance.random() < self.rate

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().split(b"content-length:")[1].split(b"\r\n")[0]
                batch = json.loads(await reader.readexactly(int(length)))["batch"]
                self.requests += 1
                answer = await self.decide(batch, writer)
                if answer is None:
                    return
                writer.write(answer.encode())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def decide(self, batch: list[dict[str, Any]], writer: asyncio.StreamWriter) -> str | None:
        """The answer; None after a reset. What breaks may break before or after it was taken."""
        if self.happens():
            return _ANSWER.format(429, 0, "Retry-After: 0.02\r\n", "")
        is_reset, is_slow, is_broken = self.happens(), self.happens(), self.happens()
        if (is_reset or is_slow or is_broken) and self.chance.random() < 0.5:
            self.take(batch)
            batch = []
        if is_reset:
            writer.transport.abort()
            return None
        if is_slow:
            await asyncio.sleep(SLOW_SECONDS)
        if is_broken:
            return _ANSWER.format(500, 0, "", "")
        refused = [n for n in range(len(batch)) if self.happens()]
        self.take([message for n, message in enumerate(batch) if n not in set(refused)])
        body = json.dumps({"errors": [{"index": n, "retry": True} for n in refused]})
        return _ANSWER.format(200, len(body), "", body)


def serve(pipe: Pipe, seed: int) -> None:
    tool = Tool(seed)

    async def run() -> None:
        server = await asyncio.start_server(tool.handle, "127.0.0.1", 0, limit=2**24)
        pipe.send(server.sockets[0].getsockname()[1])
        loop = asyncio.get_running_loop()
        while True:
            what, value = await loop.run_in_executor(None, pipe.recv)
            if what == "rate":
                tool.rate = value
            pipe.send((tool.requests, tool.values, tool.seen) if what == "all" else tool.requests)

    asyncio.run(run())


class Remote:
    """The tool as a test sees it."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe
        self.url = f"http://127.0.0.1:{pipe.recv()}"

    def _ask(self, what: str, value: object = None) -> Any:
        self._pipe.send((what, value))
        return self._pipe.recv()

    @property
    def requests(self) -> int:
        return int(self._ask("requests"))

    def faults(self, rate: float) -> None:
        """How likely each kind of fault is, for each request, or row in partial failures."""
        self._ask("rate", rate)

    @property
    def members(self) -> set[str]:
        return {user for user, value in self._ask("all")[1].items() if value}

    @property
    def repeated(self) -> int:
        """Messages that came again."""
        return sum(count - 1 for count in self._ask("all")[2].values())


@contextmanager
def tool(seed: int = 0) -> Iterator[Remote]:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=serve, args=(there, seed), daemon=True)
    process.start()
    try:
        yield Remote(here)
    finally:
        process.kill()
        process.join()
