"""Sending: parcels of changes through a destination, several at once, each settled row by row.

A parcel is what is written down together: the changes of one connection that fill one batch. A
profile's rows are never divided between parcels, so that a killed sync knows a profile's
recipients all or not at all.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from typing import Protocol

import msgspec

from personas_dagster.activation.connection import Connection
from personas_dagster.activation.destination import (
    DELIVERED,
    Abilities,
    Destination,
    Message,
    Outcome,
    Pace,
)
from personas_dagster.activation.messages import Change, Writer
from personas_dagster.activation.outbox import Settled
from personas_dagster.activation.pace import SharedPace
from personas_dagster.activation.retries import Retries
from personas_dagster.errors import (
    DeliveryError,
    NeedsSetup,
    Rejected,
    Throttled,
    Unauthorized,
    Unavailable,
)

GIVE_UP_AFTER = 3  # parcels in a row that failed after all retries: the tool is down
_DETAIL = 300
_MOST_REASONS = 20


@dataclass(frozen=True, slots=True)
class Parcel:
    """Changes of one connection, each with its messages. `fits`: the tool takes them at once."""

    connection: str
    rows: Sequence[tuple[Change, Sequence[Message]]]
    fits: bool = False

    @property
    def messages(self) -> list[Message]:
        return [message for _, messages in self.rows for message in messages]


def parcels(
    changes: Iterable[Change], writers: Mapping[str, Writer], abilities: Abilities
) -> Iterator[Parcel]:
    """Pack changes, which come ordered by connection and profile, into parcels."""

    def packed() -> Parcel:
        fits = count <= abilities.batch_size and size <= (abilities.max_batch_bytes or size)
        return Parcel(connection, rows, fits)

    for connection, theirs in groupby(changes, key=attrgetter("connection")):
        writer = writers[connection]
        rows: list[tuple[Change, Sequence[Message]]] = []
        count = size = 0
        for _, profile in groupby(theirs, key=attrgetter("profile_id")):
            more = [(change, writer.write(change)) for change in profile]
            messages = [message for _, some in more for message in some]
            weight = sum(map(_bytes, messages)) if abilities.max_batch_bytes else 0
            if rows and (
                count + len(messages) > abilities.batch_size
                or size + weight > (abilities.max_batch_bytes or 0)
            ):
                yield packed()
                rows, count, size = [], 0, 0
            rows.extend(more)
            count, size = count + len(messages), size + weight
        if rows:
            yield packed()


def batches(parcel: Parcel, abilities: Abilities) -> Iterator[list[Message]]:
    """Cut a parcel's messages to what the tool takes at once; a profile may need several."""
    if parcel.fits:
        yield parcel.messages
        return
    batch: list[Message] = []
    size = 0
    for message in parcel.messages:
        weight = _bytes(message) if abilities.max_batch_bytes else 0
        if batch and (
            len(batch) >= abilities.batch_size or size + weight > (abilities.max_batch_bytes or 0)
        ):
            yield batch
            batch, size = [], 0
        batch.append(message)
        size += weight
    if batch:
        yield batch


def _bytes(message: Message) -> int:
    return len(msgspec.json.encode(message.body)) + 1


class Log(Protocol):
    """Where intents and answers are written, and what counts them."""

    def intend(self, parcel: Parcel) -> int: ...

    def answer(self, intent_id: int, parcel: Parcel, settled: Sequence[Settled]) -> None: ...

    def lacks(self, connection: str, what: str) -> None: ...


class Delivery:
    """One sync's sending. `stopped` says why it ended before the last parcel, if it did.

    `needs` says what a person must make at the tool first, by connection; nothing more is sent
    for those.
    """

    def __init__(
        self, destination: Destination, pace: SharedPace, retries: Retries, log: Log
    ) -> None:
        self._destination, self._pace, self._retries, self._log = destination, pace, retries, log
        self._failures = 0
        self.failed_attempts: Counter[str] = Counter()
        self.stopped: DeliveryError | None = None
        self.needs: dict[str, str] = {}

    async def check(self, connections: Sequence[Connection]) -> None:
        """Ask the tool whether what these connections need is there, each tried as a batch is."""
        if not connections:
            return
        async with self._destination:
            for one in connections:
                try:
                    async for attempt in self._retries.attempts(self._pace):
                        with attempt, self._pace.turn() as turn:
                            await self._destination.check(one, turn)
                except NeedsSetup as error:
                    self._lacks(one.name, error)
                except DeliveryError as error:
                    self.stopped = error
                    return

    def _lacks(self, connection: str, error: NeedsSetup) -> None:
        self.needs[connection] = str(error)
        self._log.lacks(connection, str(error))

    async def run(self, queue: Iterator[Parcel]) -> None:
        """Send parcels until there are none, the tool is down, or it knows us no more."""
        broken: BaseException | None = None
        async with self._destination:
            try:
                async with asyncio.TaskGroup() as group:
                    for _ in range(max(1, self._destination.abilities.concurrency)):
                        group.create_task(self._work(queue))
            except BaseExceptionGroup as errors:
                broken = errors.exceptions[0]
        if broken is not None:
            raise broken

    async def _work(self, queue: Iterator[Parcel]) -> None:
        for parcel in queue:
            if parcel.connection in self.needs:
                continue
            intent = self._log.intend(parcel)
            dispatch = Dispatch(self._destination, self._pace, self._retries, self.failed_attempts)
            try:
                for batch in batches(parcel, self._destination.abilities):
                    await dispatch.send(batch)
            except Unauthorized as error:
                self.stopped = error
            except NeedsSetup as error:
                self._lacks(parcel.connection, error)
            self._log.answer(intent, parcel, settle(parcel, dispatch))
            if parcel.connection in self.needs:
                continue
            self._failures = 0 if dispatch.reached else self._failures + 1
            if self._failures >= GIVE_UP_AFTER and not self.stopped:
                self.stopped = dispatch.last_error
            if self.stopped:
                return


class Sender(Protocol):
    """What takes a batch: a destination, or a part of it."""

    async def send(self, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]: ...


class Dispatch:
    """The messages of one parcel on their way: how each ended.

    `failed_attempts` counts the attempts that failed and may be made again, by what was said.
    """

    def __init__(
        self,
        sender: Sender,
        pace: SharedPace,
        retries: Retries,
        failed_attempts: Counter[str],
    ) -> None:
        self._sender, self._pace, self._retries = sender, pace, retries
        self._failed_attempts = failed_attempts
        self.outcomes: dict[str, Outcome] = {}
        self.in_doubt = False
        self.last_error: DeliveryError | None = None

    @property
    def reached(self) -> bool:
        """Whether the tool took a decision on any message."""
        return any(not o.error or isinstance(o.error, Rejected) for o in self.outcomes.values())

    async def send(self, batch: Sequence[Message]) -> None:
        """Send one batch to the end of its retries; `Unauthorized`, `NeedsSetup` pass through."""
        pending = list(batch)
        try:
            async for attempt in self._retries.attempts(self._pace):
                with attempt:
                    pending = await self._try(pending)
        except Rejected as error:
            await self._halve(pending, error)
        except (Throttled, Unavailable) as error:
            self.last_error = error
            for message in pending:
                self.outcomes[message.message_id] = Outcome(error)

    async def _try(self, pending: list[Message]) -> list[Message]:
        """One attempt. Settles what it can; raises for what is to be tried again."""
        try:
            with self._pace.turn() as turn:
                outcomes = await self._sender.send(pending, turn)
        except (Throttled, Unavailable) as error:
            self.in_doubt |= isinstance(error, Unavailable)
            self._note(error)
            raise
        later: list[Message] = []
        worst: DeliveryError | None = None
        for message, outcome in zip(pending, outcomes, strict=True):
            if isinstance(outcome.error, Throttled | Unavailable):
                later.append(message)
                worst = _slower(worst, outcome.error)
                self.in_doubt |= isinstance(outcome.error, Unavailable)
            else:
                self.outcomes[message.message_id] = outcome
        pending[:] = later
        if worst is not None:
            self._note(worst)
            raise worst
        return later

    def _note(self, error: DeliveryError) -> None:
        said = str(error)[:_DETAIL]
        known = said in self._failed_attempts or len(self._failed_attempts) < _MOST_REASONS
        self._failed_attempts[said if known else "others"] += 1

    async def _halve(self, batch: Sequence[Message], error: Rejected) -> None:
        if len(batch) == 1:
            self.outcomes[batch[0].message_id] = Outcome(error)
            return
        middle = len(batch) // 2
        await self.send(batch[:middle])
        await self.send(batch[middle:])


def settle(parcel: Parcel, dispatch: Dispatch) -> list[Settled]:
    """How each row of a parcel ended, from how its messages did.

    When nothing of a parcel can have reached the tool, its rows leave no trace and stay due.
    """
    found = [_settle_row(messages, dispatch) for _, messages in parcel.rows]
    untouched = not dispatch.reached and not dispatch.in_doubt
    return [Settled("not_taken", one.detail) for one in found] if untouched else found


def _settle_row(messages: Sequence[Message], dispatch: Dispatch) -> Settled:
    outcomes = [dispatch.outcomes.get(message.message_id) for message in messages]
    errors = [one.error for one in outcomes if one and one.error]
    detail = str(errors[0])[:_DETAIL] if errors else None
    if all(one == DELIVERED for one in outcomes):
        notes = [one.note for one in outcomes if one and one.note]
        receipts = tuple(one.receipt for one in outcomes if one and one.receipt)
        said = receipts[0] if receipts else (notes[0][:_DETAIL] if notes else None)
        return Settled("confirmed", said, receipts)
    if None in outcomes or any(not isinstance(error, Rejected) for error in errors):
        return Settled("failed", detail or "not sent")
    taken = any(one == DELIVERED for one in outcomes)
    return Settled("partial" if taken else "rejected", detail)


def _slower(one: DeliveryError | None, other: DeliveryError) -> DeliveryError:
    """Of two errors to try again after, the one that asks for more time."""
    return one if one is not None and _patience(one) >= _patience(other) else other


def _patience(error: DeliveryError) -> float:
    return (error.retry_after or 0.0) if isinstance(error, Throttled) else -1.0
