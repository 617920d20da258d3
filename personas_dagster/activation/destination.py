"""What a destination is to the delivery engine: abilities as data, and one coroutine that sends.

What belongs here: the words that the engine and every tool share. What does not: any tool's name
or wire format (`destinations/`), and how changes are found, batched and tried again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from personas_dagster.errors import DeliveryError

if TYPE_CHECKING:
    from personas_dagster.activation.connection import Connection

Form = Literal["identify", "track", "group", "alias", "add", "remove", "delete"]
Accepted = Literal["trait", "audience"]


@dataclass(frozen=True)
class Abilities:
    """What a tool takes, and how much of it at a time.

    `kind`: an event destination gets messages, a list destination gets adds and removes.
    `batch_size` counts messages in one call of `send`; `max_batch_bytes` their JSON.
    `matches_on`: the identifier types that the tool knows people by, best first.
    `results_after`: how long a tool that works off requests later is left in peace.
    `takes_historical`: False makes each connection behave as `backfill: false`.
    `requests_per_second` caps what `send` asks of its pace; None leaves it to the receiver.
    `concurrency`: batches in flight at once, and so the most that a kill can repeat.
    `interval`: a list destination is not synced more often than this.
    `requires`: traits that the tool wants in each payload, such as `name`.
    `deletes_by`: the identifier types by which the tool can be asked to delete a person for good;
    empty where it cannot. `deletes_at_once` counts people in one call of `delete`.
    """

    kind: Literal["event", "list"]
    matches_on: tuple[str, ...]
    accepts: tuple[Accepted, ...] = ("trait", "audience")
    forms: tuple[Form, ...] = ("identify", "track", "group")
    batch_size: int = 1
    max_batch_bytes: int | None = None
    takes_anonymous: bool = False
    knows_alias: bool = False
    takes_historical: bool = True
    results_after: timedelta = timedelta(minutes=30)
    requests_per_second: float | None = None
    concurrency: int = 4
    interval: timedelta | None = None
    requires: tuple[str, ...] = ()
    deletes_by: tuple[str, ...] = ()
    deletes_at_once: int = 1

    @property
    def can_delete(self) -> bool:
        """Whether the tool can be asked to delete people for good."""
        return bool(self.deletes_by)


@dataclass(frozen=True, slots=True)
class Message:
    """One message to one recipient.

    `body` is the message as `docs/activation.md` shows it, ready to be written as JSON. The other
    attributes are the same facts for tools that have a format of their own; `recipient` maps
    identifier types of the graph to values, `value` is the trait's or membership's. `list_id` is
    that of the tool's list, where the connection names one.
    """

    form: Form
    message_id: str
    connection: str
    key: str
    recipient: Mapping[str, str]
    value: Any
    body: Mapping[str, Any]
    list_id: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one message of a batch: delivered, unless it carries an error.

    The error's class says what happens next: `Rejected` ends it, `Throttled` and `Unavailable`
    are tried again. `note` is what a person should know of a message that was delivered.
    `receipt` is what the tool calls a request that it took and works off later; the engine asks
    for its result.
    """

    error: DeliveryError | None = None
    note: str | None = field(default=None, compare=False)
    receipt: str | None = field(default=None, compare=False)


DELIVERED = Outcome()


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a request that a tool took and worked off later.

    With an error, nothing of it was done: `Rejected` ends its messages, others have them sent
    again. `note` says what was not done where the tool does not say to whom.
    """

    error: DeliveryError | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A request as a dry run shows it: secrets already masked."""

    method: str
    url: str
    body: str
    headers: Mapping[str, str] = field(default_factory=dict)


class Pace(Protocol):
    """`await pace()` before each HTTP request; returns when the request may start."""

    async def __call__(self) -> None: ...


class Destination(Protocol):
    """One account at a tool. `async with` opens and closes its connections."""

    @property
    def abilities(self) -> Abilities: ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *_: object) -> None: ...

    async def send(self, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]:
        """Send one batch: one outcome per message, in order.

        Raises a `DeliveryError` when the whole batch met the same end. A whole batch that is
        `Rejected` is halved by the engine until the messages at fault stand alone; after
        `NeedsSetup` nothing more is sent for that connection.
        """

    def preview(self, batch: Sequence[Message]) -> Sequence[Request]:
        """The requests that `send` would make for this batch, masked; nothing is sent."""

    async def result(self, receipt: str, pace: Pace) -> Result | None:
        """What became of what the tool took under this receipt; None when it is not known yet.

        Never called where no outcome carries a receipt.
        """

    async def check(self, connection: Connection, pace: Pace) -> None:
        """Ask the tool whether what this connection needs is there; makes and sends nothing.

        Called before a connection's first sync. Raises `NeedsSetup` with what is missing, and
        other `DeliveryError`s when the tool cannot be asked. By default nothing is asked.
        """

    async def delete(self, people: Sequence[Mapping[str, str]], pace: Pace) -> Sequence[Outcome]:
        """Ask the tool to delete these people for good: one outcome each, in order.

        A person is a recipient as the ledger has it: identifier types to values, at least one of
        them of `abilities.deletes_by`. Somebody who is not there is deleted already. Errors are
        those of `send`. Never called where `abilities.can_delete` is False.
        """
