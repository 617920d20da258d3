"""What every destination must do, whichever tool it speaks to.

A destination enters by its type in `DESTINATIONS` and its simulator in `SIMULATORS`. The functions
here are the tests; they know no tool. `test_contract.py` runs them on each.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json
import logging
import re
import socket
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import pytest
from pydantic import SecretStr

from personas_dagster.activation import deletion
from personas_dagster.activation.connection import Connection, problems
from personas_dagster.activation.destination import (
    DELIVERED,
    Abilities,
    Message,
    Outcome,
    Request,
)
from personas_dagster.activation.messages import Change, Writer
from personas_dagster.activation.pace import SharedPace
from personas_dagster.activation.retries import Retries
from personas_dagster.destinations import open_destination
from personas_dagster.errors import (
    DeliveryError,
    NeedsSetup,
    PersonasError,
    Rejected,
    Throttled,
    Unauthorized,
    Unavailable,
)
from personas_dagster.simulators import Answer, Seen, Simulator, simulator
from personas_dagster.simulators.serving import Served

MARKER = "marker-5f1e0c77"
GOLDEN = Path(__file__).parent / "golden"
DOCS = Path(__file__).parents[2] / "docs" / "destinations"
HEADINGS = ("Set-up", "Settings", "What is sent", "Limits")
AUDIENCE = "first_time_shopper"
FAULTS = {
    "throttle": Throttled,
    "error": Unavailable,
    "reset": Unavailable,
    "lost": Unavailable,
    "unauthorized": Unauthorized,
}
_AT = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
_NOT_OURS = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-length"}
_NOT_OURS |= {"x-amz-date", "amz-sdk-invocation-id", "amz-sdk-request"}
_SECRET_HEADERS = {"authorization", "api-key", "x-signature"}


@dataclass
class Subject:
    """One type of destination, and where its simulators are served."""

    type: str
    served: Served

    def account(self) -> tuple[Simulator, Callable[..., Any]]:
        """An empty account whose key is the marker, and how to open a destination on it."""
        account = self.made()
        url = self.served.add(self.type, account)

        def opened(**settings: Any) -> Any:
            return open_destination(self.type, {**_secret(account.settings(url)), **settings})

        return account, opened

    def made(self) -> Simulator:
        return simulator(self.type, key=MARKER)


def _secret(value: Any) -> Any:
    """Settings as the platform hands them out: what holds the marker is a secret."""
    if isinstance(value, dict):
        return {key: _secret(part) for key, part in value.items()}
    return SecretStr(value) if isinstance(value, str) and MARKER in value else value


def write(
    abilities: Abilities, rows: Sequence[tuple[dict[str, str], str]], **connection: Any
) -> list[Message]:
    """The messages of a connection for (recipient, value) rows; `requires` is what it asks for."""
    made = Connection(name="my_connection", destination="my_tool", **connection)
    writer = Writer(made, abilities, space_id="shop", timestamp=_AT)
    sponsor = "user-123" if made.collection == "accounts" else None
    traits = json.dumps({key: f"{key} of Ann" for key in abilities.requires}) or None
    return [
        message
        for n, (recipient, value) in enumerate(rows, 1)
        for message in writer.write(
            Change("c", f"p{n}", made.collection, json.dumps(recipient), value, "entered", f"m{n}",
                   traits=traits, user_id=sponsor)
        )
    ]  # fmt: skip


DEVICE = "AB12CD34-0000-4000-8000-1234567890AB"
ANN = {"user_id": "user-123", "email": "ann@example.com"}
CASES: dict[str, tuple[list[tuple[dict[str, str], str]], dict[str, Any]]] = {
    "audience_entered": ([(ANN, "true")], {"kind": "audience", "key": AUDIENCE}),
    "audience_exited": ([(ANN, "false")], {"kind": "audience", "key": AUDIENCE}),
    "trait": ([(ANN, "450.0")], {"kind": "computed_trait", "key": "total_revenue_180_days"}),
    "trait_list": ([(ANN, '["a","b"]')], {"kind": "computed_trait", "key": "brands"}),
    "trait_removed": ([(ANN, "null")], {"kind": "sql_trait", "key": "segment"}),
    "account": (
        [({"group_id": "acme"}, "7")],
        {"kind": "computed_trait", "key": "logins_30_days", "collection": "accounts"},
    ),
    "only_email": ([({"email": "bo@example.com"}, "true")], {"kind": "audience", "key": AUDIENCE}),
    "phone": ([({"phone": "+4930123456"}, "true")], {"kind": "audience", "key": AUDIENCE}),
    "anonymous": (
        [({"anonymous_id": "anon-9"}, "true")], {"kind": "audience", "key": AUDIENCE}
    ),
    "device": ([({"ios.idfa": DEVICE}, "true")], {"kind": "audience", "key": AUDIENCE}),
    "several": (
        [({"user_id": f"user-{n}", "email": f"{n}@example.com"}, "true") for n in "abc"],
        {"kind": "audience", "key": AUDIENCE},
    ),
}  # fmt: skip


def case(name: str, abilities: Abilities) -> list[Message]:
    """A case's messages; none when this destination would never be given it."""
    rows, connection = CASES[name]
    made = Connection(name="c", destination="my_tool", **connection)
    if problems(made, abilities):
        return []
    known = [(fitting(recipient, abilities), value) for recipient, value in rows]
    return write(abilities, [(who, v) for who, v in known if who], **connection)


def fitting(recipient: dict[str, str], abilities: Abilities) -> dict[str, str]:
    """What the engine would make of somebody with these identifiers."""
    if "group_id" in recipient:
        return recipient
    if "user_id" in abilities.matches_on and "user_id" in recipient:
        return recipient
    for kind in abilities.matches_on:
        if kind in recipient:
            return {kind: recipient[kind]}
    if abilities.takes_anonymous and "anonymous_id" in recipient:
        return recipient
    return {}


def people(count: int, abilities: Abilities, value: str = "true", **more: Any) -> list[Message]:
    """An audience's message to each of so many people; one form, so one message each."""
    rows = [
        (fitting({"user_id": f"user-{n:06}", "email": f"p{n}@example.com"}, abilities), value)
        for n in range(count)
    ]
    return write(
        abilities, rows, kind="audience", key=AUDIENCE, **{"forms": _one(abilities), **more}
    )


def _one(abilities: Abilities) -> tuple[str, ...]:
    return ("identify",) if abilities.kind == "event" else ()


async def no_pace() -> None:
    """As fast as it goes."""


def send(destination: Any, batch: Sequence[Message]) -> Sequence[Outcome]:
    async def run() -> Sequence[Outcome]:
        async with destination:
            found: Sequence[Outcome] = await destination.send(batch, no_pace)
            return found

    return asyncio.run(run())


def deliver(destination: Any, messages: Sequence[Message], again: int = 0) -> list[Outcome]:
    """As an engine does it: cut to batches, halved when refused, tried again."""

    async def run() -> list[Outcome]:
        size = destination.abilities.batch_size
        found: list[Outcome] = []
        async with destination:
            for start in range(0, len(messages), size):
                found += await _deliver(destination, messages[start : start + size], again)
        return found

    return asyncio.run(run())


async def _deliver(destination: Any, batch: Sequence[Message], again: int) -> list[Outcome]:
    try:
        outcomes = list(await destination.send(batch, no_pace))
    except Rejected as error:
        if len(batch) == 1:
            return [Outcome(error)]
        middle = len(batch) // 2
        first = await _deliver(destination, batch[:middle], again)
        return first + await _deliver(destination, batch[middle:], again)
    except (Throttled, Unavailable) as error:
        outcomes = [Outcome(error)] * len(batch)
    later = [n for n, o in enumerate(outcomes) if isinstance(o.error, Throttled | Unavailable)]
    if later and again:
        repeated = await _deliver(destination, [batch[n] for n in later], again - 1)
        for n, outcome in zip(later, repeated, strict=True):
            outcomes[n] = outcome
    return outcomes


def delete(destination: Any, gone: Sequence[Any], pace: Any = no_pace) -> list[Outcome]:
    """As an engine does it, but for trying again."""
    size = destination.abilities.deletes_at_once

    async def run() -> list[Outcome]:
        found: list[Outcome] = []
        async with destination:
            for start in range(0, len(gone), size):
                found += await destination.delete(gone[start : start + size], pace)
        return found

    return asyncio.run(run())


def error_of(destination: Any, batch: Sequence[Message]) -> DeliveryError:
    """The one error of a batch, raised or in each outcome."""
    try:
        outcomes = send(destination, batch)
    except DeliveryError as error:
        return error
    (error,) = {outcome.error for outcome in outcomes}
    assert error is not None
    return error


# the contract


def sends_golden_payloads(subject: Subject, *, update: bool) -> None:
    there = set()
    for name in CASES:
        account, opened = subject.account()
        destination = opened()
        messages = case(name, destination.abilities)
        path = GOLDEN / subject.type / f"{name}.json"
        if not messages:
            continue
        there.add(path.name)
        if name == "audience_exited" and destination.abilities.kind == "list":
            messages = [*case("audience_entered", destination.abilities), *messages]
            messages = [_renamed(one, f"m{n}") for n, one in enumerate(messages)]
        assert deliver(destination, messages) == [DELIVERED] * len(messages), name
        found = [_golden(request.seen, account) for request in account.requests]
        if update:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(found, indent=2) + "\n")
        assert found == json.loads(path.read_text()), name
    path = GOLDEN / subject.type / "deletion.json"
    found = _deletions(subject)
    if found:
        there.add(path.name)
        if update:
            path.write_text(json.dumps(found, indent=2) + "\n")
        assert found == json.loads(path.read_text())
    assert {path.name for path in (GOLDEN / subject.type).iterdir()} == there


def _deletions(subject: Subject) -> list[dict[str, Any]]:
    """The requests that delete one person of each kind that the tool can be told of."""
    account, opened = subject.account()
    destination = opened()
    names = [name for name in DELETED if deletable(name, destination.abilities)]
    for name in names:
        deliver(destination, case(name, destination.abilities))
    account.requests.clear()
    known = [deletable(name, destination.abilities) for name in names]
    assert bool(known) == destination.abilities.can_delete
    assert delete(destination, known) == [DELIVERED] * len(known)
    assert account.people == {}
    return [_golden(request.seen, account) for request in account.requests]


DELETED = ("audience_entered", "only_email", "phone", "anonymous", "device")


def deletable(name: str, abilities: Abilities) -> dict[str, str]:
    """A case's recipient, where the tool can be asked to delete it."""
    ((recipient, _),) = CASES[name][0]
    found = fitting(recipient, abilities)
    return found if set(abilities.deletes_by) & found.keys() else {}


def _golden(seen: Seen, account: Simulator) -> dict[str, Any]:
    headers = {
        name: "***" if name in _SECRET_HEADERS else value.replace(MARKER, "***")
        for name, value in seen.headers.items()
        if name not in _NOT_OURS
    }
    found = {"method": seen.method, "path": seen.target.replace(MARKER, "***"), "headers": headers}
    text = account.shown(seen).replace(MARKER, "***")
    if text:
        is_form = "urlencoded" in headers.get("content-type", "")
        found["body"] = _form(text) if is_form else json.loads(text)
    return found


def _form(text: str) -> dict[str, Any]:
    pairs = dict(parse_qsl(text, keep_blank_values=True))
    return {k: json.loads(v) if v[:1] in "[{" else v for k, v in pairs.items()}


def keeps_the_audience(subject: Subject) -> None:
    """People in, people out again: the tool's state is the audience."""
    account, opened = subject.account()
    destination = opened()
    inside = people(5, destination.abilities)
    assert deliver(destination, inside) == [DELIVERED] * 5
    assert len(account.members(AUDIENCE)) == 5
    outside = people(3, destination.abilities, "false")
    assert deliver(destination, outside) == [DELIVERED] * 3
    assert len(account.members(AUDIENCE)) == 2


def previews_what_it_sends(subject: Subject) -> None:
    """In order; `<...>` stands for what only the tool knows. Look-ups need not be shown."""
    account, opened = subject.account()
    destination = opened()
    batch = people(3, destination.abilities)[: destination.abilities.batch_size]
    previews = destination.preview(batch)
    assert previews and MARKER not in repr(previews)
    send(destination, batch)
    sent = [request.seen for request in account.requests]
    for preview in previews:
        while sent and not _shows(preview, sent.pop(0), account):
            pass
        assert sent or preview is previews[-1], preview
    assert not sent  # the last one shown is the last one sent
    shown, asked = len(previews), len(account.requests)
    assert shown == asked or account.looks_up


def _shows(preview: Request, seen: Seen, account: Simulator) -> bool:
    type = account.type
    target = preview.url.split(f"/{type}", 1)[-1]
    return (
        preview.method == seen.method
        and bool(_blanks(preview.body).fullmatch(account.shown(seen).replace(MARKER, "***")))
        and (bool(_blanks(target).fullmatch(seen.target)) or type == "webhook")
    )


def _blanks(text: str) -> re.Pattern[str]:
    """What stands between `<` and `>` may be anything; quotes around it are optional."""
    escaped = re.escape(text)
    return re.compile(re.sub(r'"?(<|%3C)[^<>%]+(>|%3E)"?', ".+?", escaped.replace("\\ ", " ")))


def connection_to(destination: Any, **settings: Any) -> Connection:
    """A connection of an audience, in all forms that the destination takes by default."""
    made = {"name": "my_connection", "destination": "my_tool", "key": AUDIENCE, "kind": "audience"}
    return Connection(**{**made, **settings})


def check(destination: Any, pace: Any = no_pace, **settings: Any) -> str | None:
    """What the tool lacks for a connection, if it does."""

    async def run() -> str | None:
        async with destination:
            try:
                await destination.check(connection_to(destination, **settings), pace)
            except NeedsSetup as error:
                return str(error)
        return None

    return asyncio.run(run())


def checks_before_the_first_sync(subject: Subject) -> None:
    """Asks at its pace, makes nothing, lacks nothing by default, and says which list is missing."""
    account, opened = subject.account()
    before = {**account.state(), "requests": 0}
    asked = 0

    async def pace() -> None:
        nonlocal asked
        asked += 1

    assert check(opened(), pace) is None
    assert {**account.state(), "requests": 0} == before and asked == len(account.requests)
    for fault, kind in (("unauthorized", Unauthorized), ("error", Unavailable)):
        account.faults.next(fault)
        if asked:
            with pytest.raises(kind):
                check(opened())
    account.faults.clear()
    if opened().abilities.kind == "list":
        said = check(opened(), list_id="9404")
        assert said and "9404" in said
        assert asked and not account.members(AUDIENCE)


def keeps_a_list_that_a_connection_names(subject: Subject) -> None:
    account, opened = subject.account()
    destination = opened()
    if destination.abilities.kind != "list":
        return
    deliver(destination, people(1, destination.abilities))
    (number,) = account.list_ids
    named = opened(list_prefix="another: ")
    assert check(named, list_id=number) is None
    batch = people(4, named.abilities, list_id=number)
    assert deliver(named, batch) == [DELIVERED] * 4
    assert len(account.members(AUDIENCE)) == 4 and account.list_ids == [number]


def asks_its_pace(subject: Subject) -> None:
    account, opened = subject.account()
    asked = 0

    async def pace() -> None:
        nonlocal asked
        asked += 1

    async def run() -> None:
        async with opened() as destination:
            messages = people(3, destination.abilities)
            await destination.send(messages[: destination.abilities.batch_size], pace)

    asyncio.run(run())
    assert asked == len(account.requests) > 0


def understands_faults(subject: Subject) -> None:
    """Whichever of a batch's requests goes wrong, and in whichever way."""
    account, opened = subject.account()
    destination = opened()
    (message,) = people(1, destination.abilities)
    send(destination, [message])
    steps = len(account.requests)
    for before in range(steps):
        for fault, kind in FAULTS.items():
            account, opened = subject.account()
            account.faults.next(*[None] * before, fault)
            error = error_of(opened(), [message])
            assert type(error) is kind, (before, fault, error)
            if isinstance(error, Throttled):
                assert error.retry_after == account.retry_after
            assert send(opened(), [message]) == [DELIVERED]
            assert len(account.members(AUDIENCE)) == 1


def understands_silence(subject: Subject) -> None:
    account, opened = subject.account()
    slow = opened(timeout=0.2)
    account.faults.next("timeout")
    with pytest.raises(Unavailable, match="no answer"):
        send(slow, people(1, slow.abilities))
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        refused = open_destination(subject.type, _secret(account.settings(url)))
        with pytest.raises(Unavailable, match="no answer"):
            send(refused, people(1, refused.abilities))


def understands_statuses(subject: Subject) -> None:
    """Every answer is an error of the tree or a success; none raises anything else."""
    account, opened = subject.account()

    async def run() -> None:
        async with opened() as destination:
            batch = people(1, destination.abilities)
            for status in (200, 207, 301, 400, 404, 405, 408, 409, 413, 422, 500, 502, 503, 520):
                for body in (b"", b"null", b"[]", b'{"errors": 1, "error": [2]}', b"<html>"):
                    account.faults.next(*[Answer(status, body)] * 9)
                    try:
                        outcomes = await destination.send(batch, no_pace)
                    except DeliveryError as error:
                        outcomes = [Outcome(error)]
                    account.faults.clear()
                    (outcome,) = outcomes
                    if status >= 300:
                        assert outcome.error is not None, (status, body)
                    if status >= 500:
                        assert isinstance(outcome.error, Unavailable)

    asyncio.run(run())


def rejects_exactly_the_bad_rows(subject: Subject) -> None:
    account, opened = subject.account()
    destination = opened()
    messages = people(4, destination.abilities)
    bad = write(
        destination.abilities,
        [(fitting(dict(account.bad), destination.abilities), "true")],
        kind="audience", key=AUDIENCE, forms=_one(destination.abilities),
    )  # fmt: skip
    rows = [*messages[:2], *[_renamed(one, "bad-one") for one in bad], *messages[2:]]
    outcomes = deliver(destination, rows)
    assert [one.error is None for one in outcomes] == [True, True, False, True, True]
    assert isinstance(outcomes[2].error, Rejected)
    assert len(account.members(AUDIENCE)) == 4


def _renamed(message: Message, name: str) -> Message:
    body = {**message.body, "messageId": name}
    return replace(message, message_id=name, body=body)


def defers_exactly_the_rows_at_fault(subject: Subject) -> None:
    """Where the tool can say of a row that it may be tried again."""
    account, opened = subject.account()
    if not account.defers_rows:
        return
    destination = opened()
    messages = people(3, destination.abilities)
    account.faults.next_rows(False, True, False)
    outcomes = send(destination, messages)
    assert [one.error is None for one in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].error, Unavailable | Throttled)
    assert deliver(destination, [messages[1]]) == [DELIVERED]
    assert len(account.members(AUDIENCE)) == 3


def keeps_to_the_limits(subject: Subject) -> None:
    """A full batch, and more than one, of both forms: the tool never says that it is too much."""
    account, opened = subject.account()
    destination = opened()
    abilities = destination.abilities
    size = min(abilities.batch_size, 1_200)
    rows = people(size + 2, abilities, forms=())
    assert deliver(destination, rows) == [DELIVERED] * len(rows)
    assert len(account.members(AUDIENCE)) == size + 2
    assert all(request.status < 300 or request.status == 404 for request in account.requests)


def survives_faults(subject: Subject) -> None:
    """With everything going wrong now and then, the end is the audience all the same."""
    account, opened = subject.account()
    destination = opened()
    account.faults.chances.update(
        {"throttle": 0.1, "error": 0.1, "reset": 0.05, "lost": 0.1, "rows": 0.1}
    )
    inside, outside = people(12, destination.abilities), people(5, destination.abilities, "false")
    for messages in (inside, outside):
        outcomes = deliver(destination, messages, again=40)
        assert outcomes == [DELIVERED] * len(messages)
    assert len(account.members(AUDIENCE)) == 7


def has_consistent_abilities(subject: Subject) -> None:
    _, opened = subject.account()
    abilities = opened().abilities
    assert abilities.matches_on and len(set(abilities.matches_on)) == len(abilities.matches_on)
    assert abilities.batch_size >= 1 and abilities.concurrency >= 1
    assert ("alias" in abilities.forms) == abilities.knows_alias
    if abilities.kind == "list":
        assert abilities.accepts == ("audience",) and set(abilities.forms) == {"add", "remove"}
        assert abilities.interval is not None and abilities.interval >= dt.timedelta(hours=1)
    else:
        assert "add" not in abilities.forms and "identify" in abilities.forms
        assert abilities.interval is None
    faster = opened(requests_per_second=7.5, concurrency=3).abilities
    assert (faster.requests_per_second, faster.concurrency) == (7.5, 3)


def has_strict_settings(subject: Subject) -> None:
    _, opened = subject.account()
    address = "url" if subject.type == "webhook" else "base_url"
    for settings, message in (
        ({"colour": MARKER}, "colour: Extra inputs"),
        ({"timeout": 0}, "timeout: "),
        ({"concurrency": 0}, "concurrency: "),
        ({"requests_per_second": 0}, "requests_per_second: "),
        ({address: f"http://tool.example/{MARKER}"}, "expected https://"),
        ({address: f"ftp://{MARKER}"}, "expected an address such as"),
    ):
        with pytest.raises(PersonasError, match=message) as caught:
            opened(**settings)
        assert MARKER not in str(caught.value)
        assert caught.value.__cause__ is None and caught.value.__context__ is None


def opens_without_its_secrets(subject: Subject) -> None:
    """`personas check` reads no secrets: a stand-in takes their place."""
    account, _ = subject.account()

    def stand_in(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: stand_in(part) for key, part in value.items()}
        is_secret = isinstance(value, str) and MARKER in value
        return SecretStr("https://secret.invalid") if is_secret else value

    destination = open_destination(subject.type, stand_in(account.settings("https://x.example")))
    assert destination.abilities.matches_on


def has_a_page(subject: Subject) -> None:
    _, opened = subject.account()
    path = DOCS / f"{subject.type}.md"
    text = path.read_text(encoding="utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert [h for h in HEADINGS if h not in headings] == []
    assert f"type: {subject.type}" in text
    if opened().abilities.can_delete:
        assert "Deletion of a person" in headings
    rows = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    assert set(type(opened().settings).model_fields) <= rows


def deletes_people(subject: Subject) -> None:
    """For good, at its pace, however often it is asked; others stay."""
    account, opened = subject.account()
    destination = opened()
    abilities = destination.abilities
    if not abilities.can_delete:
        return
    assert set(abilities.deletes_by) <= {*abilities.matches_on, "anonymous_id"}
    count = min(abilities.deletes_at_once, 150) + 3
    messages = people(count, abilities)
    assert deliver(destination, messages) == [DELIVERED] * count
    gone, asked = [message.recipient for message in messages[:-2]], 0
    account.requests.clear()

    async def pace() -> None:
        nonlocal asked
        asked += 1

    for _ in range(2):  # whoever is not there is deleted already
        assert delete(destination, gone, pace) == [DELIVERED] * len(gone)
        assert len(account.members(AUDIENCE)) == len(account.people) == 2
    assert asked == len(account.requests) > 0


def understands_faults_of_deletions(subject: Subject) -> None:
    """Whichever request goes wrong, and in whichever way; nothing is shown of the secrets."""
    account, opened = subject.account()
    if not opened().abilities.can_delete:
        return
    (message,) = people(1, opened().abilities)
    send(opened(), [message])
    account.requests.clear()
    delete(opened(), [message.recipient])
    steps = len(account.requests)
    for before in range(steps):
        for fault, kind in FAULTS.items():
            account, opened = subject.account()
            send(opened(), [message])
            account.faults.next(*[None] * before, fault)
            destination = opened()
            with pytest.raises(kind) as caught:
                delete(destination, [message.recipient])
            assert MARKER not in str(caught.value)
            if isinstance(caught.value, Throttled):
                assert caught.value.retry_after == account.retry_after
            assert delete(destination, [message.recipient]) == [DELIVERED]
            assert account.people == {}
        account, opened = subject.account()
        send(opened(), [message])
        account.faults.next(*[None] * before, lambda seen: _echo(seen, 400))
        with pytest.raises(DeliveryError) as caught:
            delete(opened(), [message.recipient])
        assert MARKER not in str(caught.value)


def deletes_in_the_end(subject: Subject) -> None:
    """With everything going wrong now and then, also for a part of a batch."""
    account, opened = subject.account()
    destination = opened()
    if not destination.abilities.can_delete:
        return
    messages = people(12, destination.abilities)
    deliver(destination, messages)
    account.faults.chances.update(
        {"throttle": 0.1, "error": 0.1, "reset": 0.05, "lost": 0.1, "rows": 0.1}
    )
    retries = Retries(again=40, sleep=_no_wait)
    found = asyncio.run(
        deletion.delete(
            destination,
            [message.recipient for message in messages],
            pace=SharedPace(None, _no_wait),
            retries=retries,
        )
    )
    assert (found.done, found.is_whole) == (12, True), found
    assert account.people == {}


async def _no_wait(seconds: float) -> None:
    """Instead of sleeping."""


def never_shows_a_secret(subject: Subject) -> None:
    """Even when the tool repeats it, at any log level, in any error or repr."""
    log = io.StringIO()
    handler = logging.StreamHandler(log)
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    account, opened = subject.account()
    try:
        destination = opened()
        batch = people(1, destination.abilities)
        shown = [repr(destination), repr(vars(destination)), repr(destination.preview(batch))]
        shown += [repr(destination.settings)]
        send(destination, batch)
        sent = [f"{r.seen.target} {r.seen.headers} {r.seen.body!r}" for r in account.requests]
        for status in (200, 207, 400, 401, 403, 404, 429, 500):
            account.faults.next(lambda seen, status=status: _echo(seen, status))
            try:
                shown += [repr(send(destination, batch))]
            except DeliveryError as error:
                shown += ["".join(traceback.format_exception(error))]
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    secrets = [s.get_secret_value() for s in destination.settings.secrets]
    assert any(s in text for s in secrets for text in sent)  # they were really used
    for text in [log.getvalue(), *shown]:
        assert MARKER not in text and MARKER[:12] not in text
        assert not [s for s in secrets if s in text]


def _echo(seen: Seen, status: int) -> Answer:
    said = f"{'x' * 190}{seen.target} {seen.headers} {seen.body!r}"
    errors = [{"index": 0, "batch_index": 0, "type": said, "message": said, "reason": said}]
    return Answer(status, json.dumps({"message": said, "errors": errors}).encode())


CLAUSES = (
    keeps_the_audience,
    previews_what_it_sends,
    asks_its_pace,
    checks_before_the_first_sync,
    keeps_a_list_that_a_connection_names,
    understands_faults,
    understands_silence,
    understands_statuses,
    rejects_exactly_the_bad_rows,
    defers_exactly_the_rows_at_fault,
    keeps_to_the_limits,
    survives_faults,
    has_consistent_abilities,
    has_strict_settings,
    opens_without_its_secrets,
    has_a_page,
    deletes_people,
    understands_faults_of_deletions,
    deletes_in_the_end,
    never_shows_a_secret,
)
