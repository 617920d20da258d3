"""A list destination that is spoken to over HTTP: how it comes by its lists.

What belongs here: finding and making lists. What does not: members, which each tool has its own
way to change.
"""

from __future__ import annotations

from collections.abc import Sequence

from personas_dagster.activation.destination import Message, Pace
from personas_dagster.destinations.settings import ListSettings
from personas_dagster.destinations.tool import BatchTool
from personas_dagster.errors import Unavailable


class ListTool(BatchTool):
    """A list destination. A list is found by its name, and made when there is none; `lists` of
    the settings says otherwise. `calls` gets its id from `list_id`.
    """

    def __init__(self, settings: ListSettings) -> None:
        super().__init__(settings)
        self._lists = settings
        self._ids: dict[str, str] = dict(settings.lists)

    async def find_list(self, name: str, pace: Pace) -> str | None:
        """The id of the list of this name; None when there is none."""
        raise NotImplementedError

    async def make_list(self, name: str, pace: Pace) -> str:
        """Make a list of this name; its id."""
        raise NotImplementedError

    def list_id(self, key: str) -> str:
        """The id of an audience's list, or what stands for it in a dry run."""
        return self._ids.get(key) or f"<id of list {self._lists.list_prefix}{key}>"

    async def prepare(self, batch: Sequence[Message], pace: Pace) -> None:
        for key in sorted({message.key for message in batch}):
            if key not in self._ids:
                self._ids[key] = await self._resolve(self._lists.list_prefix + key, pace)

    async def _resolve(self, name: str, pace: Pace) -> str:
        found = await self.find_list(name, pace)
        if found is not None:
            return found
        if not self._lists.create_lists:
            raise Unavailable(f"there is no list `{name}`; make it, or set create_lists to true")
        return await self.make_list(name, pace)
