"""What every destination must do, whichever tool it speaks to.

A destination enters by an entry in `SUBJECTS` of `test_contract.py`: how it is opened against an
address, and how its tool says no. The functions here are the tests; they know no tool.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json
import logging
import socket
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from loopback import Loopback, Reply

from personas_dagster.activation.connection import Connection
from personas_dagster.activation.destination import DELIVERED, Destination, Message, Outcome
from personas_dagster.activation.messages import Change, Writer
from personas_dagster.errors import (
    DeliveryError,
    Rejected,
    Throttled,
    Unauthorized,
    Unavailable,
)

MARKER = "marker-5f1e0c77"
GOLDEN = Path(__file__).parent / "golden"
_AT = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)


@dataclass(frozen=True)
class Subject:
    """One tool: its type, how to open it at an address, and its words for what went wrong.

    `open` plants `MARKER` in each secret. `partial` answers a batch of three whose second message
    is refused for good, and `partial_later` one whose second may be tried again.
    """

    type: str
    open: Callable[..., Destination]
    success: Reply = field(default_factory=Reply)
    throttled: Reply = Reply(429, headers={"Retry-After": "7"})
    rejected: Reply = Reply(422, b'{"message": "no"}')
    unauthorized: Reply = Reply(401)
    partial: Reply | None = None
    partial_later: Reply | None = None


def messages(name: str, kind: Any, key: str, rows: Sequence[Sequence[str]], **more: Any) -> Any:
    """The messages of a connection for (recipient, value) rows."""
    connection = Connection(name=name, destination="my_tool", key=key, kind=kind, **more)
    return lambda abilities: [
        message
        for n, (recipient, value) in enumerate(rows, 1)
        for message in Writer(connection, abilities, space_id="shop", timestamp=_AT).write(
            Change("c", f"p{n}", connection.collection, recipient, value, "entered", f"m{n}",
                   user_id="u1" if connection.collection == "accounts" else None)
        )
    ]  # fmt: skip


ANN = '{"user_id":"u123","email":"ann@example.com"}'
CASES: dict[str, Callable[[Any], list[Message]]] = {
    "audience_entered": messages("a", "audience", "first_time_shopper", [(ANN, "true")]),
    "audience_exited": messages("a", "audience", "first_time_shopper", [(ANN, "false")]),
    "trait": messages("t", "computed_trait", "total_revenue_180_days", [(ANN, "450.0")]),
    "trait_removed": messages("t", "sql_trait", "segment", [(ANN, "null")]),
    "account": messages(
        "g", "computed_trait", "logins_30_days", [('{"group_id":"acme"}', "7")],
        collection="accounts",
    ),
    "anonymous": messages("a", "audience", "visitors", [('{"anonymous_id":"anon-9"}', "true")]),
    "device": messages("a", "audience", "visitors", [('{"ios.idfa":"AB-12"}', "true")]),
}  # fmt: skip


def three(subject: Destination) -> list[Message]:
    rows = [(f'{{"user_id":"u{n}"}}', "true") for n in range(3)]
    made: list[Message] = messages("a", "audience", "k", rows, forms=("identify",))(
        subject.abilities
    )
    return made


async def no_pace() -> None:
    """As fast as it goes."""


def send(destination: Destination, batch: Sequence[Message]) -> Sequence[Outcome]:
    async def run() -> Sequence[Outcome]:
        async with destination:
            return await destination.send(batch, no_pace)

    return asyncio.run(run())


def takes_each_form(subject: Subject, server: Loopback) -> None:
    server.reply = lambda request: subject.success
    destination = subject.open(server.url)
    for name, make in CASES.items():
        batch = make(destination.abilities)
        assert list(send(destination, batch[:1])) == [DELIVERED], name


def sends_golden_payloads(subject: Subject, server: Loopback, *, update: bool) -> None:
    server.reply = lambda request: subject.success
    destination = subject.open(server.url)
    for name, make in CASES.items():
        server.received.clear()
        for message in make(destination.abilities):
            send(destination, [message])
        found = [
            {"method": r.method, "path": r.path.replace(MARKER, "***"), "body": json.loads(r.body)}
            for r in server.received
        ]
        path = GOLDEN / subject.type / f"{name}.json"
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found, indent=2) + "\n")
        assert found == json.loads(path.read_text()), name


def previews_what_it_sends(subject: Subject, server: Loopback) -> None:
    server.reply = lambda request: subject.success
    destination = subject.open(server.url)
    batch = three(destination)[: destination.abilities.batch_size]
    previews = destination.preview(batch)
    send(destination, batch)
    assert [p.body for p in previews] == [r.body.decode() for r in server.received]
    assert MARKER not in repr(previews)


def asks_its_pace(subject: Subject, server: Loopback) -> None:
    asked = 0

    async def pace() -> None:
        nonlocal asked
        asked += 1

    async def run() -> None:
        async with subject.open(server.url) as destination:
            await destination.send(three(destination)[: destination.abilities.batch_size], pace)

    server.reply = lambda request: subject.success
    asyncio.run(run())
    assert asked == len(server.received)


def fails(subject: Subject, server: Loopback, reply: Reply, kind: type[DeliveryError]) -> Any:
    server.reply = lambda request: reply
    destination = subject.open(server.url)
    with pytest.raises(kind) as caught:
        send(destination, three(destination)[:1])
    return caught.value


def understands_throttling(subject: Subject, server: Loopback) -> None:
    assert fails(subject, server, subject.throttled, Throttled).retry_after == 7.0


def understands_failures(subject: Subject, server: Loopback) -> None:
    for status in (500, 502, 503, 504):
        fails(subject, server, Reply(status), Unavailable)
    fails(subject, server, subject.unauthorized, Unauthorized)
    fails(subject, server, subject.rejected, Rejected)


def understands_silence(subject: Subject, server: Loopback) -> None:
    server.reply = lambda request: Reply(delay=5)
    with pytest.raises(Unavailable, match="no answer"):
        slow = subject.open(server.url, timeout=0.2)
        send(slow, three(slow)[:1])
    fails(subject, server, Reply(0), Unavailable)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        refused = subject.open(f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(Unavailable, match="no answer"):
            send(refused, three(refused)[:1])


def understands_partial_failure(subject: Subject, server: Loopback) -> None:
    for reply, kind in ((subject.partial, Rejected), (subject.partial_later, Unavailable)):
        if reply is None:
            continue
        server.reply = lambda request, reply=reply: reply  # type: ignore[misc]
        destination = subject.open(server.url, batch=True)
        first, second, third = send(destination, three(destination))
        assert first == third == DELIVERED
        assert isinstance(second.error, kind)


def never_shows_a_secret(subject: Subject, server: Loopback) -> None:
    """Even when the tool repeats it, at any log level, in any error or repr."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        destination = subject.open(server.url)
        preview = destination.preview(three(destination)[:1])
        shown = [repr(destination), repr(vars(destination)), repr(preview)]
        server.reply = lambda request: subject.success
        send(destination, three(destination)[:1])
        sent = repr(server.received)
        for status in (400, 401, 404, 429, 500):
            server.reply = lambda request, status=status: Reply(  # type: ignore[misc]
                status, f"{'x' * 190}{request.path} {request.headers}".encode()
            )
            try:
                send(destination, three(destination)[:1])
            except DeliveryError as error:
                shown += ["".join(traceback.format_exception(error))]
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert MARKER in sent  # it was really used
    for text in [log.getvalue(), *shown]:
        assert MARKER not in text and MARKER[:12] not in text
