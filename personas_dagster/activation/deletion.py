"""Deleting people at a tool: in batches, at its pace, tried again as deliveries are.

What belongs here: whom the tool is asked to delete, and what became of it in numbers. What does
not: which people these are, and what the platform itself forgets.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from personas_dagster.activation.delivery import Dispatch
from personas_dagster.activation.destination import Destination, Message, Outcome, Pace
from personas_dagster.activation.messages import deletion
from personas_dagster.activation.pace import SharedPace
from personas_dagster.activation.retries import Retries
from personas_dagster.errors import DeliveryError, NeedsSetup, Rejected, Throttled, Unauthorized

Recipient = Mapping[str, str]
_WHY: dict[type[DeliveryError] | type[None], str] = {
    Unauthorized: "the credentials were not accepted",
    NeedsSetup: "something must be set up there first",
    Throttled: "the tool was too busy",
}


@dataclass(frozen=True)
class Deleted:
    """How it ended: recipients that are gone, that the tool refused to delete or has no way to,
    and that got no answer. `error` is what stopped it."""

    done: int = 0
    refused: int = 0
    unreachable: int = 0
    error: DeliveryError | None = None

    @property
    def is_whole(self) -> bool:
        return not self.refused and not self.unreachable

    @property
    def said(self) -> str:
        """One line for people. What the tool said may name the person, and is left out."""
        if self.is_whole:
            return f"deleted there (recipients: {self.done})"
        parts = [f"recipients deleted there: {self.done}"]
        if self.refused:
            parts.append(f"refused, or without an identifier to delete by: {self.refused}")
        if self.unreachable:
            why = _WHY.get(type(self.error), "the tool did not answer as it should")
            parts.append(f"not deleted, since {why}: {self.unreachable}")
        return f"{', '.join(parts)}; delete the person there by hand"


async def delete(
    destination: Destination,
    recipients: Sequence[Recipient],
    *,
    pace: SharedPace,
    retries: Retries,
) -> Deleted:
    """Ask the tool to delete each of these, once each. Accounts (`group_id`) are nobody.

    Raises no `DeliveryError`: an unreachable tool is in the result.
    """
    abilities = destination.abilities
    asked, unknown = [], 0
    for one in _distinct(recipients):
        if set(abilities.deletes_by) & one.keys():
            asked.append(one)
        elif one.keys() - {"group_id"}:
            unknown += 1
    messages = [
        Message("delete", str(n), "", "", one, None, deletion(one)) for n, one in enumerate(asked)
    ]
    dispatch = Dispatch(_Deleter(destination), pace, retries, Counter())
    error: DeliveryError | None = None
    try:
        async with destination:
            for start in range(0, len(messages), abilities.deletes_at_once):
                await dispatch.send(messages[start : start + abilities.deletes_at_once])
                if dispatch.last_error is not None:
                    break  # the tool is down: asking for the others would take as long again
    except (Unauthorized, NeedsSetup) as stopped:
        error = stopped
    ends = [dispatch.outcomes.get(message.message_id) for message in messages]
    done = sum(one is not None and one.error is None for one in ends)
    refused = sum(one is not None and isinstance(one.error, Rejected) for one in ends)
    last = error or dispatch.last_error
    return Deleted(done, refused + unknown, len(ends) - done - refused, last)


@dataclass(frozen=True)
class _Deleter:
    """A destination's deleting, for what sends batches."""

    destination: Destination

    async def send(self, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]:
        return await self.destination.delete([message.recipient for message in batch], pace)


def _distinct(recipients: Sequence[Recipient]) -> list[Recipient]:
    """Each once. An alias names two people, both of whom may be there."""
    found: dict[frozenset[tuple[str, str]], Recipient] = {}
    for one in recipients:
        plain = {kind: value for kind, value in one.items() if kind != "previous_id"}
        parts = [plain]
        if "previous_id" in one:
            parts += [{"user_id": one["previous_id"]}, {"anonymous_id": one["previous_id"]}]
        for part in parts:
            found.setdefault(frozenset(part.items()), part)
    return list(found.values())
