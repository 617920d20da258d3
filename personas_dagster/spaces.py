"""A space that is open: its definitions, its lake, engine, state and landing folder.

What belongs here: the wiring from declarations to adapters. The environment is read here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from pydantic import BaseModel, SecretStr, ValidationError

from personas_dagster import access, masking
from personas_dagster.activation.connection import Connection, Kind, problems
from personas_dagster.activation.destination import Abilities
from personas_dagster.destinations import DESTINATIONS
from personas_dagster.engines import DuckDBEngine
from personas_dagster.errors import PersonasError, Problem
from personas_dagster.events import EventSettings, Landing
from personas_dagster.identity import views
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.interfaces import Lake, Session
from personas_dagster.lake import DeltaLake
from personas_dagster.lake.overlay import Overlay
from personas_dagster.profiles.store import ProfileStore, open_store
from personas_dagster.project import fields, models, wording
from personas_dagster.project.declared import Project, query_definitions, space_identity
from personas_dagster.query import Definition
from personas_dagster.simulated import Simulation, read_simulation
from personas_dagster.state import State
from personas_dagster.state.schema import refreshes
from personas_dagster.traits.custom import Promotion
from personas_dagster.traits.world import prepare_values


@dataclass(frozen=True)
class Space:
    """One space of a project. Stores are opened when they are first used."""

    project: Project
    name: str

    @cached_property
    def settings(self) -> models.Space:
        return self.project.spaces[self.name].model

    @cached_property
    def lake(self) -> DeltaLake:
        location = self.settings.lake.location
        options = {k: fields.resolve(v) for k, v in self.settings.lake.storage_options.items()}
        root = location if "://" in location else str(self.project.root / location)
        return DeltaLake(root, storage_options=options)

    @cached_property
    def engine(self) -> DuckDBEngine:
        engine = self.settings.engine
        return DuckDBEngine(
            threads=engine.threads,
            memory_limit=engine.memory_limit,
            spill=self.project.root / engine.temp_directory,
        )

    @cached_property
    def state(self) -> State:
        url = sa.make_url(fields.resolve(self.settings.state.url))
        if url.get_backend_name() == "sqlite" and url.database:
            url = url.set(database=str(self.project.root / url.database))
        return State(url)

    @property
    def landing_folder(self) -> Path:
        """Where messages land, whether the state database answers or not."""
        return self.project.root / self.settings.landing

    @cached_property
    def simulation(self) -> Simulation | None:
        """Set where destinations are simulated; syncs are then kept apart from the real ones."""
        return read_simulation()

    @cached_property
    def sync_state(self) -> State:
        """The state of syncs: intents, leases of destinations, their audit trail."""
        return self.simulation.state(self.name) if self.simulation else self.state

    @cached_property
    def ledger_lake(self) -> Lake:
        """The lake whose ledger syncs read and write."""
        if self.simulation is None:
            return self.lake
        return Overlay(self.lake, self.simulation.ledger(self.name), ["ledger"])

    @cached_property
    def profiles(self) -> ProfileStore:
        """What the Profile API reads: the last refresh that the store was brought up to."""
        return open_store(self.state.url)

    @cached_property
    def landing(self) -> Landing:
        return Landing(self.landing_folder, self.state)

    @cached_property
    def events(self) -> EventSettings:
        return EventSettings(dedupe_days=self.settings.dedupe_days)

    @cached_property
    def rules(self) -> IdentityRules:
        return space_identity(self.project, self.settings).rules()

    def has(self, model: Any) -> bool:
        """Whether a declaration is switched on in this space."""
        return bool(getattr(model, "enabled", True)) and (
            model.spaces is None or self.name in model.spaces
        )

    @cached_property
    def definitions(self) -> tuple[Definition, ...]:
        """The computed traits and audiences of this space."""
        return tuple(found[2] for found in query_definitions(self.project, self.has))

    @cached_property
    def sql_traits(self) -> dict[str, models.SqlTrait]:
        return {k: d.model for k, d in self.project.sql_traits.items() if self.has(d.model)}

    @cached_property
    def sources(self) -> dict[str, models.Source]:
        chosen = self.settings.sources
        return {
            key: declared.model
            for key, declared in self.project.sources.items()
            if self.has(declared.model) and (chosen is None or key in chosen)
        }

    @cached_property
    def destinations(self) -> dict[str, models.Destination]:
        chosen = self.settings.destinations
        return {
            key: declared.model
            for key, declared in self.project.destinations.items()
            if self.has(declared.model) and (chosen is None or key in chosen)
        }

    @cached_property
    def connections(self) -> dict[str, models.Connection]:
        """Connections that are on, whose destination is on too."""
        return {
            name: declared.model
            for name, declared in self.project.connections.items()
            if self.has(declared.model) and declared.model.destination in self.destinations
        }

    @cached_property
    def promotions(self) -> tuple[Promotion, ...]:
        """Event properties that are kept as custom traits."""
        return tuple(Promotion(p.event, p.property, p.key) for p in self.settings.promote)

    @cached_property
    def conflicts(self) -> dict[str, str]:
        """Which value of a custom trait a merged profile has, by key; others: the newest."""
        return dict(space_identity(self.project, self.settings).conflicts)

    @cached_property
    def keys_without_history(self) -> frozenset[str]:
        """Traits and audiences that count only what was received since they were created."""
        found = query_definitions(self.project, self.has)
        return frozenset(key for key, one, _ in found if not one.model.include_historical)

    @property
    def computed_keys(self) -> list[str]:
        return [d.key for d in self.definitions if d.kind == "trait"]

    @property
    def audience_keys(self) -> list[str]:
        return [d.key for d in self.definitions if d.kind == "audience"]

    def snapshot(self) -> DeltaLake:
        """The lake as the last finished refresh left it; empty before the first one."""
        last = self.last_refresh()
        return self.lake.at(last["versions"] if last else {})

    def last_refresh(self) -> dict[str, Any] | None:
        """The row of the last finished refresh."""
        query = (
            sa.select(refreshes)
            .where(refreshes.c.status == "finished")
            .order_by(refreshes.c.refresh_id.desc())
            .limit(1)
        )
        found = self.state.rows(query)
        return found[0] if found else None

    @contextmanager
    def session(self, lake: Lake | None = None) -> Iterator[Session]:
        """A session with the graph's relations and current values (default: the snapshot)."""
        with self.bare_session(lake) as session:
            prepare_values(session, defined=self.computed_keys)
            yield session

    @contextmanager
    def bare_session(self, lake: Lake | None = None) -> Iterator[Session]:
        """A session with the graph's relations only (default: on the snapshot)."""
        with self.engine.session(self.snapshot() if lake is None else lake) as session:
            views.prepare(session)
            masking.prepare(session, has_pii=self.operator_has_pii)
            yield session

    @property
    def operator_has_pii(self) -> bool:
        """Whether the command line shows e-mails, phones and raw exports as they are."""
        return access.PII in self.settings.operator


def open_space(project: Project, name: str | None = None) -> Space:
    """The space by name (default: the project's default space)."""
    chosen = name or project.default_space
    if chosen not in project.spaces:
        there = ", ".join(sorted(project.spaces))
        raise PersonasError(f"no space is named `{chosen}`; expected one of: {there}")
    return Space(project, chosen)


def data_folder(root: Path) -> Path:
    """Where a project keeps what it makes by default."""
    return root / ".personas"


def destination_problems(project: Project) -> list[Problem]:
    """What the tools themselves say about the settings of their destinations, and what they take.

    Secrets are not read: a stand-in takes their place.
    """
    found: list[Problem] = []
    for declared in project.destinations.values():
        kind, document = declared.model.type, declared.document
        if kind not in DESTINATIONS:
            message = wording.unknown(f"`{kind}`", kind, sorted(DESTINATIONS))
            found.append(document.problem(("type",), message))
            continue
        try:
            for name in literal_secrets(declared.model):
                found.append(document.problem(("settings", name), SECRET_FOUND))
            found += _connection_problems(project, declared.model)
        except ValidationError as error:
            found += wording.problems(
                error, document, BaseModel, under=("settings",), with_values=False
            )
        except PersonasError as error:
            found.append(document.problem(("settings",), str(error)))
    return found


def _connection_problems(project: Project, destination: models.Destination) -> Iterator[Problem]:
    """Connections that lead to a destination which cannot take them."""
    abilities = abilities_of(destination)
    for declared in project.connections.values():
        model = declared.model
        of = project.audiences.get(model.key) or project.computed_traits.get(model.key)
        if model.destination != destination.name or not (of or model.trait):
            continue
        kind: Kind = "audience" if model.audience else "computed_trait" if of else "sql_trait"
        # only its result says of whom a SQL trait speaks: what is sent is believed until then
        by_sql: fields.Collection = "accounts" if "group" in (model.send or ()) else "users"
        made = Connection(
            name=model.name,
            destination=model.destination,
            key=model.key,
            kind=kind,
            collection=of.model.collection if of else by_sql,
            forms=tuple(model.send or ()),
            alias=model.alias,
            list_id=model.list_id,
        )
        for text in problems(made, abilities):
            yield declared.document.problem((kind.split("_")[-1],), text)


def abilities_of(model: models.Destination) -> Abilities:
    """What a destination takes, read from its settings; no secret is read for it."""
    if model.type not in DESTINATIONS:
        raise PersonasError(wording.unknown(f"`{model.type}`", model.type, sorted(DESTINATIONS)))
    return DESTINATIONS[model.type](_stand_in(model.settings)).abilities


SECRET_FOUND = "found a secret in the file, expected {env: NAME} or {file: PATH}; move it there"


def literal_secrets(model: models.Destination) -> list[str]:
    """Settings whose value is a secret and stands in the file itself.

    Addresses and headers may be secret, and need not be.
    """
    settings = getattr(DESTINATIONS[model.type](_stand_in(model.settings)), "settings", None)
    return [
        name
        for name, value in model.settings.items()
        if isinstance(value, str)
        and name != "url"
        and isinstance(getattr(settings, name, None), SecretStr)
    ]


def _stand_in(value: Any) -> Any:
    if isinstance(value, dict):
        if set(value) in ({"env"}, {"file"}):
            return SecretStr("https://secret.invalid")
        return {key: _stand_in(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_stand_in(part) for part in value]
    return value
