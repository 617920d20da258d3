"""What spans fields and files: references, taken keys, queries, the rules of each space.

What belongs here: checks on declarations that were read. What a single file says by itself is
checked by its model.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from personas_dagster.errors import Problem, QueryError
from personas_dagster.project import fields, models, wording
from personas_dagster.project.declared import (
    Declared,
    Project,
    query_definitions,
    space_identity,
)
from personas_dagster.project.identity import Identity
from personas_dagster.project.lines import Loc
from personas_dagster.project.sql_columns import trait_columns
from personas_dagster.query import Definition, check, order

Broken = Mapping[str, Collection[str]]


def cross_check(project: Project, broken: Broken) -> tuple[list[Problem], list[Problem]]:
    """Problems, and warnings. `broken`: names of files, by kind, that could not be read.

    A reference to one of those is not reported: what is wrong with it is reported already.
    """
    problems = [*_references(project, broken), *_taken_keys(project), *_sql_columns(project)]
    if not project.spaces and not broken.get("spaces"):
        message = "found no space, expected at least one; add a file"
        problems.append(Problem(Path("resources/spaces"), 1, 1, message))
    for space in project.spaces.values():
        problems += _identity(project, space)
    for destination in project.destinations.values():
        for loc in _passwords(destination.model.settings, ("settings",)):
            problems.append(destination.document.problem(loc, fields.PASSWORD_FOUND))
    warnings: list[Problem] = []
    sound: dict[str, tuple[Definition, Declared[Any]]] = {}
    for key, declared, definition in query_definitions(project, lambda model: True):
        try:
            checked = check(definition)
        except QueryError as error:
            problems.append(in_query(declared, error))
            continue
        place = form_loc(declared) or ("query",)
        warnings += [declared.document.problem(place, text) for text in checked.warnings]
        if declared.model.enabled:
            sound.setdefault(key, (definition, declared))
    problems += _cycles(sound)
    return problems, warnings


def _cycles(sound: dict[str, tuple[Definition, Declared[Any]]]) -> Iterator[Problem]:
    """Every cycle, in the file whose reference closes it."""
    while True:
        try:
            order([definition for definition, _ in sound.values()])
            return
        except QueryError as error:
            keys = error.reason.split(": ", 1)[-1].split("; ")[0].split(" -> ")
            keys = [key for key in keys if key in sound]
            if len(keys) < 2:
                raise
            yield in_query(sound[keys[-2]][1], error)
            for key in keys[:-1]:
                sound.pop(key, None)


def form_loc(declared: Declared[Any]) -> tuple[str, ...] | None:
    """Where the ready-made form stands that is written in place of a query."""
    form = declared.model.form
    return (form[0],) if form else None


def in_query(declared: Declared[Any], error: QueryError) -> Problem:
    """An error of a query, at its place in the file; in a ready-made form, in its `where`."""
    document = declared.document
    loc: tuple[str, ...] = ("query",)
    line, column = error.line, error.column
    form = declared.model.form
    if form is not None:
        loc = (form[0],)
        before, where = form[1].before_where, form[1].where
        inside = where is not None and (line > 1 or column > len(before))
        if inside and where is not None and (line, column) <= _end(where, len(before)):
            loc = (form[0], "where")
            column -= len(before) if line == 1 else 0
        else:
            line, column = 0, 0
    place = document.inside(loc, line, column) if line else document.at(loc)
    message = str(error).removeprefix(f"{error.line}:{error.column}: ")
    return Problem(document.path, *place, message, ".".join(loc))


def _end(text: str, first: int) -> tuple[int, int]:
    """Line and column of a text's end; its first line begins after `first` characters."""
    lines = text.split("\n")
    return len(lines), len(lines[-1]) + (first if len(lines) == 1 else 0) + 1


def _taken_keys(project: Project) -> Iterator[Problem]:
    """A key is one trait's or one audience's."""
    taken: dict[str, Declared[Any]] = {}
    kinds: list[Mapping[str, Declared[Any]]] = [
        project.computed_traits,
        project.audiences,
        project.sql_traits,
    ]
    for key, declared in chain.from_iterable(kind.items() for kind in kinds):
        if key in taken:
            message = f"found `{key}`, which {taken[key].path} has; choose another key"
            yield declared.document.problem(("key",), message)
        else:
            taken[key] = declared


def _sql_columns(project: Project) -> Iterator[Problem]:
    """A column of a SQL trait is no other definition's key, nor another SQL trait's column."""
    taken: dict[str, list[Declared[Any]]] = {}
    kinds: list[Mapping[str, Declared[Any]]] = [project.computed_traits, project.audiences]
    for key, defined in chain.from_iterable(kind.items() for kind in kinds):
        taken[key] = [defined]
    for declared in project.sql_traits.values():
        model = declared.model
        dialect = "duckdb" if model.warehouse == "lake" else None
        for name in trait_columns(model.query, dialect=dialect) or ():
            for other in taken.get(name, ()):
                if _share_a_space(model, other.model):
                    message = (
                        f"found the column `{name}`, which {other.path} has too; rename it with AS"
                    )
                    yield declared.document.problem(("query",), message)
            taken.setdefault(name, []).append(declared)


def _share_a_space(one: Any, other: Any) -> bool:
    return one.spaces is None or other.spaces is None or bool({*one.spaces} & {*other.spaces})


def _references(project: Project, broken: Broken) -> Iterator[Problem]:
    for declared, loc, name, kinds in _named(project):
        among = {key for kind in kinds for key in getattr(project, kind)}
        lost = {key for kind in kinds for key in broken.get(kind, ())}
        if name not in among | lost:
            message = wording.unknown(f"`{name}`", name, sorted(among))
            yield declared.document.problem(loc, message)


def _named(
    project: Project,
) -> Iterator[tuple[Declared[Any], Sequence[str | int], str, tuple[str, ...]]]:
    """Each name that a declaration uses: where, the name, and what kinds it may be of."""
    limited: list[Mapping[str, Declared[Any]]] = [
        project.sources,
        project.computed_traits,
        project.audiences,
        project.sql_traits,
        project.destinations,
        project.connections,
    ]
    for some in chain.from_iterable(kind.values() for kind in limited):
        for index, space in enumerate(some.model.spaces or ()):
            yield some, ("spaces", index), space, ("spaces",)
    for source in project.sources.values():
        for space in source.model.write_keys:
            yield source, ("write_keys", space), space, ("spaces",)
    for trait in project.sql_traits.values():
        if trait.model.warehouse != "lake":
            yield trait, ("warehouse",), trait.model.warehouse, ("warehouses",)
    for connection in project.connections.values():
        model = connection.model
        yield connection, ("destination",), model.destination, ("destinations",)
        if model.audience is not None:
            yield connection, ("audience",), model.audience, ("audiences",)
        if model.trait is not None:
            name = model.trait.split(".")[0]
            yield connection, ("trait",), name, ("computed_traits", "sql_traits")
    for declared in project.spaces.values():
        for index, name in enumerate(declared.model.sources or ()):
            yield declared, ("sources", index), name, ("sources",)
        for index, name in enumerate(declared.model.destinations or ()):
            yield declared, ("destinations", index), name, ("destinations",)


def _passwords(value: Any, loc: Loc) -> Iterator[Loc]:
    """Where a URL with a password stands in settings that only their tool knows."""
    if isinstance(value, str) and fields.has_password(value):
        yield loc
    parts: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        parts = value.items()
    elif isinstance(value, list):
        parts = enumerate(value)
    for key, part in parts:
        yield from _passwords(part, (*loc, key))


def _identity(project: Project, space: Declared[models.Space]) -> list[Problem]:
    try:
        space_identity(project, space.model)
    except ValidationError as error:
        return wording.problems(error, space.document, Identity, under=("identity",))
    return []
