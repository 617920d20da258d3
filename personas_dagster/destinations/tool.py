"""A tool that is spoken to over HTTP: what the clients of all tools share.

What belongs here: opening and closing, the way out of a request, and how the outcomes of several
requests become those of a batch. What does not: any tool's paths, bodies or answers.
"""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self, TypeAlias, TypeVar
from urllib.parse import urlencode

import httpx
import msgspec
from pydantic import SecretStr

from personas_dagster.activation.connection import Connection
from personas_dagster.activation.destination import (
    DELIVERED,
    Abilities,
    Message,
    Outcome,
    Pace,
    Request,
    Result,
)
from personas_dagster.activation.messages import sample
from personas_dagster.destinations.http import (
    FOREIGN,
    MASK,
    Masks,
    from_exception,
    from_response,
    open_client,
    retry_after,
    until_reset,
)
from personas_dagster.destinations.settings import ToolSettings
from personas_dagster.errors import (
    DeliveryError,
    NeedsSetup,
    Rejected,
    Throttled,
    Unauthorized,
    Unavailable,
)

_LARGEST_ANSWER = 10_000_000

Person = Mapping[str, str]  # a recipient: identifier types to values
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Call:
    """One request. `rows` are the messages that it carries, as indexes into the batch, in the
    order in which its body has them. `form` is sent url-encoded instead of a JSON `body`.
    `key_at` names where in the body, or in each of its rows, the tool wants the key. `host` is
    another address than the settings'.
    """

    method: str
    path: str
    body: Any = None
    rows: tuple[int, ...] = ()
    form: Mapping[str, str] | None = None
    params: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    key_at: tuple[str, ...] = ()
    host: str | None = None

    def content(self, key: str) -> bytes:
        """The body as it is sent, with this key."""
        if self.form is not None:
            return urlencode({**{name: key for name in self.key_at}, **self.form}).encode()
        if self.body is None:
            return b""
        return msgspec.json.encode(_keyed(self.body, self.key_at, key))

    @property
    def target(self) -> str:
        return f"{self.path}?{urlencode(self.params)}" if self.params else self.path


def _keyed(body: Any, path: tuple[str, ...], key: str) -> Any:
    if not path:
        return body
    if isinstance(body, list):
        return [_keyed(row, path, key) for row in body]
    first, rest = path[0], path[1:]
    return {**body, first: _keyed(body.get(first, {}), rest, key) if rest else key}


class RowsRefused(Rejected):
    """A request that was refused as a whole, by an answer that names the rows at fault.

    `reasons` maps positions in the call's rows to what was said.
    """

    def __init__(self, reasons: Mapping[int, str]) -> None:
        self.reasons = dict(reasons)
        super().__init__("; ".join(sorted(set(self.reasons.values()))))


def cannot_delete(people: Sequence[Person]) -> list[Outcome]:
    """The answer of a tool that deletes nobody."""
    return [Outcome(Rejected("the tool cannot be asked to delete people"))] * len(people)


class Tool:
    """One account. A tool says its `send` and `preview`; most do so by `BatchTool`."""

    # headers in which the tool's throttling says when to come back
    wait_headers: ClassVar[tuple[str, ...]] = ()  # in seconds; `Retry-After` is always read
    reset_headers: ClassVar[tuple[str, ...]] = ()  # as Unix seconds

    def __init__(self, settings: ToolSettings) -> None:
        self._settings = settings
        self._masks = Masks(settings.secrets)
        self._http: httpx.AsyncClient | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._settings.url})"

    @property
    def settings(self) -> ToolSettings:
        return self._settings

    @property
    def abilities(self) -> Abilities:
        return self._settings.abilities

    async def __aenter__(self) -> Self:
        settings = self._settings
        self._http = open_client(timeout=settings.timeout, connections=settings.concurrency)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._http is not None:
            await self._http.aclose()
        self._http = None

    async def check(self, connection: Connection, pace: Pace) -> None:
        """Nothing must be there first, or the tool cannot be asked; others override this."""

    async def result(self, receipt: str, pace: Pace) -> Result | None:
        """Known at once; tools that work off requests later override this."""
        return Result()

    async def delete(self, people: Sequence[Person], pace: Pace) -> Sequence[Outcome]:
        """Tools whose abilities say `deletes_by` override this."""
        return cannot_delete(people)

    async def ask(
        self, call: Call, pace: Pace, *, also: frozenset[int] = frozenset()
    ) -> httpx.Response:
        """One request, at its pace. Raises what `refusal` makes of the answer, but for the
        statuses of `also`, which its caller reads."""
        if self._http is None:
            raise RuntimeError("open the destination first: `async with destination:`")
        secret = {k: v.get_secret_value() for k, v in self._settings.credentials.items()}
        key = self._settings.body_key
        content = call.content(revealed(key) if key else "")
        await pace()
        try:
            response = await self._http.request(
                call.method,
                (call.host or self._settings.url) + call.target,
                content=content or None,
                headers={**self._headers(call), **secret},
            )
        except FOREIGN as error:
            # not chained: httpx and h11 quote addresses and headers
            raise from_exception(error, self._masks) from None
        refusal = None if response.status_code in also else self.refusal(response)
        if refusal is not None:
            raise refusal
        return response

    def refusal(self, response: httpx.Response) -> DeliveryError | None:
        """What an answer means for the whole request; None when it was taken, or in part."""
        error = from_response(response, self._masks)
        if isinstance(error, Throttled) and error.retry_after is None:
            return Throttled(str(error), self._asked(response.headers))
        return error

    def shown(self, call: Call) -> Request:
        """A request as people may see it."""
        headers = {**self._headers(call), **dict.fromkeys(self._settings.credentials, MASK)}
        url = self._settings.url + call.target
        return Request(call.method, url, self._masks(call.content(MASK).decode()), headers)

    def said(self, text: object) -> str:
        """What a tool said, fit for people: masked, and short."""
        return self._masks(str(text)).strip()[:300] or "refused, without a reason"

    def _asked(self, headers: httpx.Headers) -> float | None:
        waits = [retry_after(headers, name) for name in self.wait_headers]
        waits += [until_reset(headers, name) for name in self.reset_headers]
        return next((seconds for seconds in waits if seconds is not None), None)

    def _headers(self, call: Call) -> dict[str, str]:
        kind = "application/x-www-form-urlencoded" if call.form is not None else "application/json"
        typed = {"Content-Type": kind} if call.form is not None or call.body is not None else {}
        return {**typed, **self._settings.headers, **call.headers}


class BatchTool(Tool, ABC):
    """A tool whose requests are known from the messages, but for what it must be asked first."""

    def __init__(self, settings: ToolSettings) -> None:
        super().__init__(settings)
        self._asking = asyncio.Lock()

    async def __aenter__(self) -> Self:
        self._asking = asyncio.Lock()  # a lock belongs to one event loop
        return await super().__aenter__()

    async def prepare(self, batch: Sequence[Message], pace: Pace, *, makes: bool = True) -> None:
        """Ask what must be known before this batch can go, and make what is missing. Never two at
        once. `makes=False` is the check before a first sync: nothing is made."""

    async def check(self, connection: Connection, pace: Pace) -> None:
        await self._prepare(sample(connection, self.abilities), pace, makes=False)

    async def perform(self, call: Call, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]:
        """Make one call, and others that it needs. Outcomes are those of its rows."""
        return self.outcomes(call, await self.ask(call, pace))

    @abstractmethod
    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        """The requests of a batch, in order. Each message is in at least one of them."""

    def outcomes(self, call: Call, response: httpx.Response) -> Sequence[Outcome]:
        """What an answer says about each of the call's rows."""
        return [DELIVERED] * len(call.rows)

    async def send(self, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]:
        await self._prepare(batch, pace, makes=True)
        return _whole(await self._run(batch, self.calls, self.perform, pace))

    # statuses by which a deletion's answer, if it is JSON, says that nobody is there
    gone: ClassVar[frozenset[int]] = frozenset()

    def deletions(self, people: Sequence[Person]) -> Sequence[Call]:
        """The requests that delete these people, in order; each person is in at least one.

        Tools whose abilities say `deletes_by` override this.
        """
        return ()

    async def perform_deletion(
        self, call: Call, people: Sequence[Person], pace: Pace
    ) -> Sequence[Outcome]:
        """Make one call of `deletions`, and others that it needs. Outcomes are of its rows."""
        response = await self.ask(call, pace, also=self.gone)
        error = self.refusal(response)
        if error is not None and not fields(decoded(response)):  # an address that is nobody's
            raise error
        return [DELIVERED] * len(call.rows)

    async def delete(self, people: Sequence[Person], pace: Pace) -> Sequence[Outcome]:
        if not self.abilities.can_delete:
            return cannot_delete(people)
        return _whole(await self._run(people, self.deletions, self.perform_deletion, pace))

    async def _prepare(self, batch: Sequence[Message], pace: Pace, *, makes: bool) -> None:
        try:
            async with self._asking:
                await self.prepare(batch, pace, makes=makes)
        except Rejected as error:  # of a look-up: these rows are not at fault
            raise Unavailable(str(error)) from None

    def before(self, call: Call, batch: Sequence[Message]) -> Sequence[Call]:
        """What `perform` asks each time before this call; a dry run counts these too."""
        return ()

    def preview(self, batch: Sequence[Message]) -> Sequence[Request]:
        return [
            self.shown(one)
            for call in self.calls(batch)
            for one in (*self.before(call, batch), call)
        ]

    async def _run(
        self, batch: Sequence[Row], calls: Calls[Row], perform: Perform[Row], pace: Pace
    ) -> list[Outcome]:
        """Each call in turn, but for rows that failed in one before. After one that got no
        answer, the rest wait with it."""
        outcomes = [DELIVERED] * len(batch)
        stopped: DeliveryError | None = None
        for call in calls(batch):
            if all(outcomes[row].error for row in call.rows):
                continue
            found: Sequence[Outcome] = [Outcome(stopped)] * len(call.rows)
            if stopped is None:
                try:
                    found = await perform(call, batch, pace)
                except (NeedsSetup, Unauthorized):
                    raise
                except RowsRefused as error:
                    # nothing was taken because of some rows: the others go again
                    bad = {at: Rejected(reason) for at, reason in error.reasons.items()}
                    good = [batch[row] for at, row in enumerate(call.rows) if at not in bad]
                    again = await self._run(good, calls, perform, pace) if good and bad else []
                    sent = iter(again)
                    found = [
                        Outcome(bad[at]) if at in bad else next(sent, Outcome(error))
                        for at in range(len(call.rows))
                    ]
                except Rejected as error:
                    # Refused as a whole, without names: halved until those at fault stand alone.
                    # The engine would halve the whole batch, of which others may have been taken.
                    rows = [batch[row] for row in call.rows]
                    half = len(rows) // 2
                    found = [Outcome(error)]
                    if half:
                        first = await self._run(rows[:half], calls, perform, pace)
                        found = first + await self._run(rows[half:], calls, perform, pace)
                except (Throttled, Unavailable) as error:
                    stopped = error
                    found = [Outcome(error)] * len(call.rows)
            for row, outcome in zip(call.rows, found, strict=True):
                if outcomes[row].error is None:
                    outcomes[row] = outcome
        return outcomes


Calls: TypeAlias = Callable[[Sequence[Row]], Sequence[Call]]
Perform: TypeAlias = Callable[[Call, Sequence[Row], Pace], Awaitable[Sequence[Outcome]]]


def _whole(outcomes: list[Outcome]) -> list[Outcome]:
    """Outcomes of a batch; raises where all of it met the same end."""
    errors = {id(outcome.error) for outcome in outcomes}
    if outcomes and len(errors) == 1 and outcomes[0].error is not None:
        raise outcomes[0].error
    return outcomes


class Spacing:
    """Keeps requests to one endpoint apart, where it allows less than the tool as a whole."""

    def __init__(self, per_second: float) -> None:
        self._gap = 1 / per_second
        self._next = 0.0

    async def __call__(self) -> None:
        now = time.monotonic()
        start = max(now, self._next)
        self._next = start + self._gap
        if start > now:
            await asyncio.sleep(start - now)


def decoded(response: httpx.Response) -> Any:
    """An answer's JSON; None when it is none, or too large to be read."""
    if len(response.content) > _LARGEST_ANSWER:
        return None
    try:
        return msgspec.json.decode(response.content)
    except msgspec.DecodeError:
        return None


def fields(found: Any) -> dict[str, Any]:
    """A JSON object; empty when it is something else."""
    return found if isinstance(found, dict) else {}


def items(found: Any) -> list[dict[str, Any]]:
    """The objects of a JSON list; empty when it is something else."""
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def revealed(secret: SecretStr) -> str:
    """A secret's value, on its way out."""
    return secret.get_secret_value()
