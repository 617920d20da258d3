"""Requests to Marketo's static lists, and what the answers mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from personas_dagster.activation.destination import Message, Outcome, Pace
from personas_dagster.destinations.lists import ListTool
from personas_dagster.destinations.marketo.api import MarketoTool, Missing
from personas_dagster.destinations.marketo.payload import ensure, person
from personas_dagster.destinations.marketo_static_lists import payload
from personas_dagster.destinations.marketo_static_lists.settings import MarketoStaticListsSettings
from personas_dagster.destinations.tool import Call, decoded, fields, items
from personas_dagster.errors import DeliveryError, NeedsSetup, Rejected, Unavailable

_GONE = frozenset({"1004", "1015"})  # no such lead; not on this list


class MarketoStaticLists(MarketoTool, ListTool):
    """One instance's static lists. Members are leads' ids: they are looked up, or made, first."""

    def __init__(self, settings: MarketoStaticListsSettings) -> None:
        super().__init__(settings)
        self._static = settings

    async def find_list(self, name: str, pace: Pace) -> str | None:
        found = await self._assets(Call("GET", payload.LIST_BY_NAME, params={"name": name}), pace)
        return str(found[0].get("id")) if found else None

    async def has_list(self, number: str, pace: Pace) -> bool:
        if not number.isdigit():
            return False
        try:
            call = Call("GET", f"{payload.LIST}/{number}.json")
            return bool(await self._assets(call, pace))
        except Missing:
            return False

    async def prepare(self, batch: Sequence[Message], pace: Pace, *, makes: bool = True) -> None:
        own = self._static.user_id_field
        if not makes and own is not None and own not in await self.lead_fields(pace):
            raise NeedsSetup(
                f"Marketo's leads have no field {own} that can be written; make it there, as a "
                "string, or name another in user_id_field"
            )
        await super().prepare(batch, pace, makes=makes)
        if not makes and any(self.list_id(one).startswith("<") for one in batch):
            await self._folder(self._static.folder or "", pace)  # the list is to be made there

    async def make_list(self, name: str, pace: Pace) -> str:
        folder = await self._folder(self._static.folder or "", pace)
        form = {"folder": msgspec.json.encode(folder).decode(), "name": name}
        made = await self._assets(Call("POST", payload.LISTS, form=form), pace)
        if not made:
            raise Unavailable(f"Marketo did not say which list it made for `{name}`")
        return str(made[0].get("id"))

    async def _folder(self, name: str, pace: Pace) -> dict[str, Any]:
        found = await self._assets(Call("GET", payload.FOLDER_BY_NAME, params={"name": name}), pace)
        if len(found) != 1:
            how_many = "no folder or program" if not found else "more than one folder or program"
            raise NeedsSetup(f"Marketo has {how_many} `{name}`; name one in `folder`")
        number = fields(found[0].get("folderId"))
        return {"id": number.get("id"), "type": str(number.get("type")).capitalize()}

    async def _assets(self, call: Call, pace: Pace) -> list[dict[str, Any]]:
        """What is said of lists and folders; nothing found is a success without a result."""
        answer = fields(decoded(await self.ask(call, pace)))
        if answer.get("success") is None:
            raise Unavailable("Marketo did not say which lists and folders there are")
        return items(answer.get("result"))

    def calls(self, batch: Sequence[Message]) -> Sequence[Call]:
        return payload.calls(batch, self.list_id, self._static)

    def before(self, call: Call, batch: Sequence[Message]) -> Sequence[Call]:
        make = ensure if call.method == "POST" else payload.find
        return [make([batch[row] for row in call.rows], self._static)]

    async def perform(self, call: Call, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]:
        """Look up or make, then change. Who could not be found again is not let in."""
        people = [batch[row] for row in call.rows]
        names = [person(one, self._static) for one in people]
        change = self._remove if call.method == "DELETE" else self._add
        fit = [one for one, name in zip(people, names, strict=True) if "," not in name]
        try:
            taken = iter(await change(fit, pace) if fit else ())
        except Missing:
            raise self.lacks(self.list_id(people[0])) from None
        refused = Outcome(Rejected("Marketo looks up no name that has a comma"))
        return [refused if "," in name else next(taken) for name in names]

    async def _add(self, people: Sequence[Message], pace: Pace) -> list[Outcome]:
        leads = await self.leads(people, pace)
        found = [leads[person(one, self._static)] for one in people]
        outcomes = [outcome for _, outcome in found]
        known = [at for at, outcome in enumerate(outcomes) if outcome.error is None]
        if known:
            number = self.list_id(people[0])
            add = payload.change(number, [found[at][0] for at in known], (), is_add=True)
            taken = self.read(await self.ask(add, pace), len(known))
            for at, (_, outcome) in zip(known, taken, strict=True):
                outcomes[at] = _again(outcome)
        return outcomes

    async def _remove(self, people: Sequence[Message], pace: Pace) -> list[Outcome]:
        """All leads of that name leave. Who is not there, or not on the list, has left."""
        found = await self._leads_of(people, pace)
        errors: dict[str, DeliveryError] = {}
        for start in range(0, len(found), payload.MOST_IDS):
            some = found[start : start + payload.MOST_IDS]
            ids = [number for number, _ in some]
            leave = payload.change(self.list_id(people[0]), ids, (), is_add=False)
            taken = self.read(await self.ask(leave, pace), len(ids), fine=_GONE)
            errors.update(
                (name, outcome.error)
                for (_, name), (_, outcome) in zip(some, taken, strict=True)
                if outcome.error
            )
        return [Outcome(errors.get(person(one, self._static).lower())) for one in people]

    async def _leads_of(self, people: Sequence[Message], pace: Pace) -> list[tuple[Any, str]]:
        """The leads of these names, each by its id and name; the name in lower case."""
        found: list[tuple[Any, str]] = []
        page: str | None = None
        while True:
            answer = fields(decoded(await self.ask(payload.find(people, self._static, page), pace)))
            if answer.get("success") is False:  # nothing found, which is no error
                return found
            if not isinstance(answer.get("result"), list):
                raise Unavailable("Marketo did not say which leads there are")
            rows = items(answer["result"])
            field = self._static.lookup_field
            found += [(row.get("id"), str(row.get(field)).lower()) for row in rows]
            page = answer.get("nextPageToken")
            if not rows or not isinstance(page, str):
                return found


def _again(outcome: Outcome) -> Outcome:
    """A lead that was there a moment ago, and is not any more, is made anew by another try."""
    error = outcome.error
    return Outcome(Unavailable(str(error))) if isinstance(error, Rejected) else outcome
