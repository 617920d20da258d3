"""A small world for syncs: people, audiences and traits in memory, a lake and a state on disk, and
a tool that remembers what it was told."""

from __future__ import annotations

import datetime as dt
import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pyarrow as pa

from personas_dagster.activation.connection import Connection
from personas_dagster.activation.destination import (
    DELIVERED,
    Abilities,
    Message,
    Outcome,
    Pace,
    Result,
)
from personas_dagster.activation.report import SyncReport
from personas_dagster.activation.retries import Retries
from personas_dagster.activation.sync import sync
from personas_dagster.engines.duckdb import DuckDBEngine
from personas_dagster.errors import NeedsSetup
from personas_dagster.interfaces import Session
from personas_dagster.lake.delta import DeltaLake
from personas_dagster.state.store import State

NOW = dt.datetime(2026, 11, 22, 12, 0, tzinfo=dt.UTC)
ABILITIES = Abilities(
    kind="event", matches_on=("user_id", "email", "ios.idfa"), takes_anonymous=True, batch_size=10
)
_TEXT = pa.string()
_INSTANT = pa.timestamp("us", tz="UTC")


def buyers(**settings: Any) -> Connection:
    """A connection of the audience `buyers` to the tool."""
    return Connection(**{"name": "c", "destination": "tool", "key": "buyers", "kind": "audience",
                         **settings})  # fmt: skip


def spend(**settings: Any) -> Connection:
    """A connection of the computed trait `spend` to the tool."""
    return Connection(**{"name": "t", "destination": "tool", "key": "spend",
                         "kind": "computed_trait", **settings})  # fmt: skip


async def no_wait(seconds: float) -> None:
    """Instead of sleeping."""


class Tool:
    """A destination in memory. `faults` may raise, or answer for a batch instead of it."""

    def __init__(self, abilities: Abilities = ABILITIES) -> None:
        self.abilities = abilities
        self.calls: list[list[Message]] = []
        self.taken: list[Message] = []
        self.lacks: dict[str, str] = {}
        self.results: dict[str, Result] = {}
        self.asked: list[str] = []
        self.deleting: list[list[dict[str, str]]] = []
        self.deletion_faults: Callable[[Sequence[Any]], Sequence[Outcome] | None] = lambda _: None
        self.faults: Callable[[Sequence[Message]], Sequence[Outcome] | None] = lambda batch: None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def send(self, batch: Sequence[Message], pace: Pace) -> Sequence[Outcome]:
        await pace()
        self.calls.append(list(batch))
        outcomes = self.faults(batch)
        outcomes = [DELIVERED] * len(batch) if outcomes is None else outcomes
        self.taken += [m for m, one in zip(batch, outcomes, strict=True) if one == DELIVERED]
        return outcomes

    def preview(self, batch: Sequence[Message]) -> list[Any]:
        return [[message.body for message in batch]]

    async def result(self, receipt: str, pace: Pace) -> Result | None:
        await pace()
        self.asked.append(receipt)
        return self.results.get(receipt)

    async def delete(self, people: Sequence[Mapping[str, str]], pace: Pace) -> Sequence[Outcome]:
        await pace()
        self.deleting.append([dict(person) for person in people])
        outcomes = self.deletion_faults(people)
        return [DELIVERED] * len(people) if outcomes is None else outcomes

    async def check(self, connection: Connection, pace: Pace) -> None:
        if connection.name in self.lacks:
            await pace()
            raise NeedsSetup(self.lacks[connection.name])

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """What was taken since this was last asked, as JSON has it."""
        taken, self.taken = self.taken, []
        return [json.loads(json.dumps(message.body)) for message in taken]

    @property
    def told(self) -> list[tuple[str, Any]]:
        """(recipient, value) of each identify taken since this was last asked."""
        taken, self.taken = self.taken, []
        return sorted(
            ("+".join(m.recipient.values()), m.value) for m in taken if m.form == "identify"
        )


class World:
    """People by profile id, and what is true of them. `sync` delivers it to `tool`."""

    def __init__(self, folder: Path) -> None:
        self.lake = DeltaLake(folder / "lake")
        self.state = State(f"sqlite:///{folder / 'state.db'}")
        self.engine = DuckDBEngine(threads=1)
        self.tool = Tool()
        self.people: dict[str, dict[str, list[str]]] = {}
        self.accounts: dict[str, str] = {}
        self.links: set[tuple[str, str]] = set()
        self.merged: dict[str, str] = {}
        self.members: defaultdict[str, set[str]] = defaultdict(set)
        self.traits: defaultdict[tuple[str, str], dict[str, Any]] = defaultdict(dict)
        self.seen: dict[str, int] = {}
        self.refresh_id = 0

    def person(self, profile: str, **ids: str | list[str]) -> None:
        """Add identifiers to a profile; each is seen later than those before."""
        mine = self.people.setdefault(profile, {})
        for kind, values in ids.items():
            for value in [values] if isinstance(values, str) else values:
                mine.setdefault(kind.replace("__", "."), []).append(value)
                self.seen[value] = len(self.seen)

    def merge(self, child: str, parent: str) -> None:
        """The child's identifiers become the parent's; its membership and traits go."""
        for kind, values in self.people.pop(child).items():
            self.people.setdefault(parent, {}).setdefault(kind, []).extend(values)
        self.merged[child] = parent
        for audience in self.members.values():
            audience.discard(child)

    def sync(self, *connections: Connection, **options: Any) -> SyncReport:
        """One refresh later: deliver."""
        self.refresh_id = options.pop("refresh_id", self.refresh_id + 1)
        defaults: dict[str, Any] = {
            "now": lambda: NOW + dt.timedelta(hours=self.refresh_id),
            "owner": "test",
            "retries": Retries(sleep=no_wait),
        }
        return sync(
            "tool",
            options.pop("tool", self.tool),
            connections or [buyers()],
            lake=self.lake,
            engine=self.engine,
            state=self.state,
            prepare=self.prepare,
            space_id="shop",
            refresh_id=self.refresh_id,
            **{**defaults, **options},
        )

    def prepare(self, session: Session) -> None:
        collection = {
            **dict.fromkeys(self.people, "users"),
            **dict.fromkeys(self.accounts, "accounts"),
        }
        identifiers = [
            ("users", kind, value, profile, NOW + dt.timedelta(seconds=self.seen[value]))
            for profile, ids in self.people.items()
            for kind, values in ids.items()
            for value in values
        ] + [("accounts", "group_id", group, a, NOW) for a, group in self.accounts.items()]
        _register(session, "graph_profiles", "collection profile_id", "created_at",
                  rows=[(c, p, NOW) for p, c in collection.items()])  # fmt: skip
        _register(session, "graph_roots", "profile_id root_id",
                  rows=[*((p, p) for p in collection), *self.merged.items()])  # fmt: skip
        _register(session, "graph_identifiers", "collection type value profile_id",
                  "first_seen_at", rows=identifiers)  # fmt: skip
        _register(session, "graph_links", "user_profile_id account_profile_id",
                  rows=sorted(self.links))  # fmt: skip
        _register(session, "trait_values", "class collection profile_id key value", rows=[
            (kind, collection[p], p, key, json.dumps(value))
            for (kind, key), values in self.traits.items() for p, value in values.items()
        ])  # fmt: skip
        _register(session, "members", "audience collection profile_id", "entered_at", rows=[
            (audience, collection[p], p, NOW)
            for audience, profiles in self.members.items() for p in sorted(profiles)
        ])  # fmt: skip

    def ledger(self, *columns: str) -> list[Any]:
        """The ledger's rows, oldest sync first."""
        with self.engine.session(self.lake) as session:
            session.view("ledger")
            found = session.fetch("select * from ledger order by sync_id, recipient").to_pylist()
        return [tuple(row[c] for c in columns) if columns else row for row in found]

    def audit(self) -> list[tuple[str, str, str, str | None]]:
        from personas_dagster.state.schema import audit

        rows = self.state.rows(audit.select().order_by(audit.c.audit_id))
        return [(row["what"], row["subject"], row["outcome"], row["reason"]) for row in rows]


def _register(
    session: Session, name: str, texts: str, instant: str = "", *, rows: Sequence[tuple[Any, ...]]
) -> None:
    fields = [(column, _TEXT) for column in texts.split()]
    fields += [(instant, _INSTANT)] if instant else []
    columns = list(zip(*rows, strict=True)) or [()] * len(fields)
    arrays = [pa.array(c, kind) for c, (_, kind) in zip(columns, fields, strict=True)]
    session.register(name, pa.Table.from_arrays(arrays, schema=pa.schema(fields)))
