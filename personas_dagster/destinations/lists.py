"""A list destination that is spoken to over HTTP: how it comes by its lists.

What belongs here: finding and making lists. What does not: members, which each tool has its own
way to change.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from personas_dagster.activation.destination import Message, Pace
from personas_dagster.destinations.settings import ListSettings
from personas_dagster.destinations.tool import BatchTool
from personas_dagster.errors import NeedsSetup


class ListTool(BatchTool):
    """A list destination. A list is found by its name, and made when there is none, unless the
    connection's `list_id` or the settings' `lists` names it. `calls` gets its id from `list_id`.
    """

    def __init__(self, settings: ListSettings) -> None:
        super().__init__(settings)
        self._lists = settings
        self._ids: dict[str, str] = dict(settings.lists)

    @abstractmethod
    async def find_list(self, name: str, pace: Pace) -> str | None:
        """The id of the list of this name; None when there is none."""

    @abstractmethod
    async def make_list(self, name: str, pace: Pace) -> str:
        """Make a list of this name; its id."""

    @abstractmethod
    async def has_list(self, number: str, pace: Pace) -> bool:
        """Whether there is a list of this id, whose members can be changed."""

    def list_id(self, message: Message) -> str:
        """The id of a message's list, or what stands for it in a dry run."""
        key = message.key
        return message.list_id or self._ids.get(key) or f"<id of list {self._name(key)}>"

    async def prepare(self, batch: Sequence[Message], pace: Pace, *, makes: bool = True) -> None:
        for message in {(one.key, one.list_id): one for one in batch}.values():
            known = message.list_id or self._lists.lists.get(message.key)
            if known is None:
                await self._find(message.key, pace, makes=makes)
            elif not makes and not await self.has_list(known, pace):
                raise self.lacks(known)

    def lacks(self, number: str) -> NeedsSetup:
        """What to say when there is no list of an id that somebody gave."""
        return NeedsSetup(f"there is no list with the id {number}; make one, and give its id")

    async def _find(self, key: str, pace: Pace, *, makes: bool) -> None:
        if key in self._ids:
            return
        name = self._name(key)
        found = await self.find_list(name, pace)
        if found is None and not self._lists.create_lists:
            raise NeedsSetup(f"there is no list `{name}`; make it, or set create_lists to true")
        if found is None and makes:
            found = await self.make_list(name, pace)
        if found is not None:
            self._ids[key] = found

    def _name(self, key: str) -> str:
        return self._lists.list_prefix + key
