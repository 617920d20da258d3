"""A project as it was declared: models, and the files they came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from personas_dagster.errors import Problem
from personas_dagster.project import fields, models
from personas_dagster.project.identity import Identity
from personas_dagster.project.lines import Document
from personas_dagster.query import Definition

M = TypeVar("M", bound=fields.Model)


@dataclass(frozen=True)
class Declared(Generic[M]):
    """A model and where it was declared."""

    model: M
    document: Document

    @property
    def path(self) -> Path:
        return self.document.path

    @property
    def line(self) -> int:
        return self.document.first_line


@dataclass(frozen=True)
class Project:
    """All declarations of a project, keyed by name (sources by id, traits and audiences by key)."""

    root: Path
    identity: Identity = field(default_factory=Identity)
    sources: Mapping[str, Declared[models.Source]] = field(default_factory=dict)
    computed_traits: Mapping[str, Declared[models.ComputedTrait]] = field(default_factory=dict)
    audiences: Mapping[str, Declared[models.Audience]] = field(default_factory=dict)
    sql_traits: Mapping[str, Declared[models.SqlTrait]] = field(default_factory=dict)
    spaces: Mapping[str, Declared[models.Space]] = field(default_factory=dict)
    warehouses: Mapping[str, Declared[models.Warehouse]] = field(default_factory=dict)
    destinations: Mapping[str, Declared[models.Destination]] = field(default_factory=dict)
    connections: Mapping[str, Declared[models.Connection]] = field(default_factory=dict)
    schedules: models.Schedules = field(default_factory=models.Schedules)
    alerts: models.Alerts = field(default_factory=models.Alerts)
    warnings: tuple[Problem, ...] = ()

    @property
    def default_space(self) -> str:
        """The space that says `default: true`, else the first by name."""
        chosen = [name for name, space in self.spaces.items() if space.model.default]
        return (chosen or sorted(self.spaces))[0]


def query_definitions(
    project: Project, include: Callable[[Any], bool] = lambda model: model.enabled
) -> list[tuple[str, Declared[Any], Definition]]:
    """Each computed trait and audience as the query language knows it."""
    kinds: tuple[Mapping[str, Declared[Any]], ...] = (project.computed_traits, project.audiences)
    return [
        (key, declared, definition_of(declared.model))
        for kind in kinds
        for key, declared in kind.items()
        if include(declared.model)
    ]


def definition_of(model: models.ComputedTrait | models.Audience) -> Definition:
    """A computed trait or an audience as the query language knows it."""
    is_audience = isinstance(model, models.Audience)
    return Definition(
        key=model.key,
        kind="audience" if is_audience else "trait",
        collection=model.collection,
        query=model.text,
        include_anonymous=model.include_anonymous if isinstance(model, models.Audience) else True,
        lookback=model.lookback,
    )


def space_identity(project: Project, space: models.Space) -> Identity:
    """The identity rules of a space: the shared file, overridden by its own, type by type."""
    base = project.identity.model_dump(exclude_unset=True)
    own = dict(space.identity)
    types = own.pop("types", {})
    if isinstance(types, Mapping):  # else the model says what is wrong
        types = {**base.pop("types", {}), **types}
    return Identity.model_validate({**base, **own, "types": types})
