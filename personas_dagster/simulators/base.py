"""What every simulator is: an account at a tool, held in memory, behind an ASGI application.

What belongs here: keeping people, events and lists, logging requests, and applying the
switchboard. What does not: any tool's paths and words (a module each), and how an application is
served (`serving.py`). Nothing here needs more than the standard library and msgspec.
"""

from __future__ import annotations

import asyncio
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar
from urllib.parse import parse_qsl, unquote

import msgspec

from personas_dagster.simulators.faults import Answer, Seen, Switchboard

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Handler = Callable[..., Answer]

INSPECT = "/_simulator"
_LARGEST = 200_000_000


@dataclass(frozen=True)
class Event:
    """One event that the tool has taken. `person` is the key of `people`."""

    person: str
    name: str
    properties: Mapping[str, Any]
    id: str | None = None


@dataclass
class Request:
    """One request, and what became of it. `rows` is how many the tool read in it."""

    seen: Seen
    status: int = 0  # 0: no answer
    fault: str | None = None
    rows: int = 0


class Refused(Exception):
    """Raised by a handler: the tool answers so instead."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        super().__init__(answer.status)


@dataclass(frozen=True)
class Route:
    """A path of the tool's API: `/users/{id}` hands `id` to its handler."""

    method: str
    path: str
    handler: str
    pattern: re.Pattern[str] = field(compare=False, default_factory=lambda: re.compile(""))


def route(method: str, path: str, handler: str) -> Route:
    """A route; `handler` names a method that takes the request and the path's parts."""
    pattern = re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)
    return Route(method, path, handler, re.compile(pattern))


class Simulator(ABC):
    """One account. Subclasses have `type`, `routes`, their handlers, and the tool's words.

    `people` maps a key (the tool's own best identifier) to attributes; `lists` a name to members;
    `groups` an account's id to attributes. `requests` is everything that came, in order.
    `retry_after` is what the tool's throttling asks for, None when it does not say.
    """

    type: ClassVar[str]
    routes: ClassVar[tuple[Route, ...]] = ()
    retry_after: ClassVar[float | None] = None
    largest_body: ClassVar[int] = _LARGEST
    # a recipient that the tool refuses for good, and whether it has words for a row that may later
    bad: ClassVar[Mapping[str, str]] = {"user_id": "user-bad", "email": "not-an-address"}
    defers_rows: ClassVar[bool] = False
    looks_up: ClassVar[bool] = False  # whether a client must ask before it can tell

    def __init__(self, *, key: str = "simulated-key", seed: int = 0) -> None:
        self.key = key
        self.faults = Switchboard(seed=seed)
        self.people: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.events: list[Event] = []
        self.lists: dict[str, set[str]] = {}
        self.requests: list[Request] = []
        self.keeps_bodies = True  # False: `requests` has times and paths only
        self._event_ids: set[str] = set()

    # what a subclass says

    @abstractmethod
    def settings(self, url: str) -> dict[str, Any]:
        """Settings with which a destination reaches this account at an address."""

    @abstractmethod
    def is_authorized(self, seen: Seen) -> bool:
        """Whether a request carries the account's key."""

    def unauthorized(self) -> Answer:
        return answer(401, {"message": "Unauthorized"})

    def throttled(self) -> Answer:
        headers = {} if self.retry_after is None else {"Retry-After": f"{self.retry_after:g}"}
        return Answer(429, b'{"message": "Too Many Requests"}', headers)

    def failed(self, status: int) -> Answer:
        return Answer(status, b"upstream is busy")

    def shown(self, seen: Seen) -> str:
        """A request's body as people read it."""
        return seen.body.decode()

    def missing(self, seen: Seen) -> Answer:
        return answer(404, {"message": f"no route {seen.method} {seen.path}"})

    # what people ask it

    @property
    def list_ids(self) -> list[str]:
        """The ids of its lists, as its API gives them."""
        return [str(number) for number in getattr(self, "names", {})]

    def members(self, audience: str) -> set[str]:
        """Who is in an audience, as the tool sees it: by a true attribute, or on a list."""
        listed = self.lists.get(audience, set())
        return listed | {who for who, has in self.people.items() if has.get(audience) is True}

    def state(self) -> dict[str, Any]:
        """Everything it holds, as JSON."""
        return {
            "type": self.type,
            "people": self.people,
            "groups": self.groups,
            "events": [asdict(event) for event in self.events],
            "lists": {name: sorted(members) for name, members in self.lists.items()},
            "requests": len(self.requests),
        }

    def person(self, key: str) -> dict[str, Any]:
        """Somebody's attributes, known from now on."""
        return self.people.setdefault(key, {})

    def forget(self, key: str) -> bool:
        """Delete somebody with their events and memberships; whether they were there."""
        self.events = [event for event in self.events if event.person != key]
        for members in self.lists.values():
            members.discard(key)
        return self.people.pop(key, None) is not None

    def happen(self, event: Event) -> None:
        """Keep an event, but for one whose id is there already."""
        if event.id is not None:
            if event.id in self._event_ids:
                return
            self._event_ids.add(event.id)
        self.events.append(event)

    # the application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI."""
        if scope["type"] != "http":
            return
        seen = await _read(scope, receive)
        if seen.path.startswith(INSPECT):
            await _reply(send, self._inspected(seen))
            return
        request = Request(seen)
        kept = request if self.keeps_bodies else Request(replace(seen, body=b"", headers={}))
        self.requests.append(kept)
        drawn = self.faults.draw()
        kept.fault = drawn if isinstance(drawn, str) else None
        if drawn == "reset":
            await _cut(scope)
            return
        if isinstance(drawn, Answer):
            found = drawn
        elif callable(drawn):
            found = drawn(seen)
        elif drawn in ("throttle", "error", "unauthorized"):
            found = {
                "throttle": self.throttled,
                "error": lambda: self.failed(self.faults.status()),
                "unauthorized": self.unauthorized,
            }[drawn]()
        else:
            if drawn == "rows":
                self.faults.next_rows(True)
            found = self.handle(request)
        if drawn == "lost":
            await _cut(scope)
            return
        if drawn == "timeout":
            await _patience(receive, self.faults.delay)
        kept.status, kept.rows = found.status, request.rows
        await _reply(send, found)

    def handle(self, request: Request) -> Answer:
        """The tool's own answer to one request."""
        seen = request.seen
        if not self.is_authorized(seen):
            return self.unauthorized()
        if len(seen.body) > self.largest_body:
            return answer(413, {"message": "Payload Too Large"})
        for one in self.routes:
            found = one.pattern.fullmatch(seen.path) if one.method == seen.method else None
            if found:
                parts = {name: unquote(value) for name, value in found.groupdict().items()}
                try:
                    result: Answer = getattr(self, one.handler)(request, **parts)
                except Refused as refused:
                    return refused.answer
                return result
        return self.missing(seen)

    def _inspected(self, seen: Seen) -> Answer:
        if seen.method == "GET":
            return answer(200, self.state())
        wanted = msgspec.json.decode(seen.body or b"{}")
        if wanted.get("clear"):
            self.faults.clear()
        self.faults.chances.update(wanted.get("chances", {}))
        self.faults.next(*wanted.get("next", []))
        self.faults.delay = wanted.get("delay", self.faults.delay)
        return answer(200, {"chances": self.faults.chances})


def answer(status: int, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
    """An answer of JSON."""
    content = msgspec.json.encode(body)
    return Answer(status, content, {"Content-Type": "application/json", **(headers or {})})


def refuse(status: int, body: Any) -> Refused:
    """What a handler raises when the tool says no to the whole request."""
    return Refused(answer(status, body))


def read_json(request: Request) -> Any:
    """A request's JSON; 400 when it is none."""
    try:
        return msgspec.json.decode(request.seen.body)
    except msgspec.DecodeError as error:
        raise refuse(400, {"message": f"not JSON: {error}"}) from None


def read_form(request: Request) -> dict[str, str]:
    """A request's url-encoded fields."""
    return dict(parse_qsl(request.seen.body.decode(), keep_blank_values=True))


def read_query(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.seen.query, keep_blank_values=True))


def is_address(text: object) -> bool:
    """Whether a tool would take this for an e-mail address."""
    return isinstance(text, str) and re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", text) is not None


async def _read(scope: Scope, receive: Receive) -> Seen:
    body = b""
    while True:
        part = await receive()
        body += part.get("body", b"")
        if not part.get("more_body"):
            break
    headers = {k.decode("latin-1").lower(): v.decode("latin-1") for k, v in scope["headers"]}
    raw = scope.get("raw_path") or scope["path"].encode()
    path = raw.decode("latin-1").removeprefix(scope.get("root_path", ""))
    query = scope["query_string"].decode("latin-1")
    return Seen(time.monotonic(), scope["method"], path, query, headers, body)


async def _reply(send: Send, found: Answer) -> None:
    headers = {"Content-Type": "application/json", **found.headers}
    pairs = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in headers.items()]
    pairs.append((b"content-length", str(len(found.body)).encode()))
    await send({"type": "http.response.start", "status": found.status, "headers": pairs})
    await send({"type": "http.response.body", "body": found.body})


async def _cut(scope: Scope) -> None:
    """Abort the connection. `serving.py` puts its transport into the state."""
    scope["state"]["transport"].abort()
    await asyncio.sleep(0.01)  # until the server has noticed, or it would answer 500


async def _patience(receive: Receive, seconds: float) -> None:
    """Wait, but not longer than the other side does."""
    try:
        await asyncio.wait_for(receive(), seconds)
    except TimeoutError:
        pass
