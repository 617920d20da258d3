"""From a folder of declarations to a `Project`, with every problem found on the way.

All files are read before anything is reported, so that one run shows all there is to mend.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from personas_dagster.errors import DefinitionError, Problem, QueryError
from personas_dagster.project import models
from personas_dagster.project.lines import Document, parse
from personas_dagster.query import Definition, check, order

M = TypeVar("M", bound=models.Model)

_SQL_FRONT = re.compile(r"\A\s*/\*(.*?)\*/\s*", re.DOTALL)
FOLDERS: Mapping[str, type[models.Model]] = {
    "assets/sources": models.Source,
    "assets/computed_traits": models.ComputedTrait,
    "assets/audiences": models.Audience,
    "assets/sql_traits": models.SqlTrait,
    "resources/spaces": models.Space,
    "resources/warehouses": models.Warehouse,
    "resources/destinations": models.Destination,
    "sensors/connections": models.Connection,
}


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
    identity: models.Identity = field(default_factory=models.Identity)
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


def load_project(root: Path) -> Project:
    """Read and check every declaration under `root`; DefinitionError lists all problems."""
    root = root.resolve()
    if not (root / "resources" / "spaces").is_dir():
        raise DefinitionError(
            [
                Problem(
                    root,
                    1,
                    1,
                    "not a project: resources/spaces/ is missing; run `personas init DIR`, or "
                    "name the project with --project",
                )
            ]
        )
    reader = _Reader(root)
    parts = {folder: reader.folder(folder, model) for folder, model in FOLDERS.items()}
    project = Project(
        root=root,
        identity=reader.single("assets/identity.yaml", models.Identity),
        schedules=reader.single("sensors/schedules.yaml", models.Schedules),
        alerts=reader.single("sensors/alerts.yaml", models.Alerts),
        **{folder.split("/")[1]: part for folder, part in parts.items()},
    )
    warnings = _check(project, reader.problems)
    if reader.problems:
        raise DefinitionError(reader.problems)
    return Project(**{**project.__dict__, "warnings": tuple(warnings)})


class _Reader:
    """Reads files into models and gathers what is wrong with them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[Problem] = []

    def single(self, relative: str, model: type[M]) -> M:
        path = self.root / relative
        if not path.exists():
            return model()
        return (self._read(path, model, {}) or Declared(model(), Document(path, {}))).model

    def folder(self, relative: str, model: type[M]) -> dict[str, Declared[M]]:
        found: dict[str, Declared[M]] = {}
        for path in sorted((self.root / relative).glob("*")):
            if path.suffix not in (".yaml", ".yml", ".sql"):
                continue
            if path.suffix == ".sql" and path.with_suffix(".yaml").exists():
                continue  # the query of the settings beside it
            declared = self._read(path, model, _defaults(model, path))
            if declared is None:
                continue
            name = _name(declared.model)
            if name in found:
                other = found[name].path.relative_to(self.root)
                self.problems.append(
                    declared.document.problem(
                        ("key",), f"`{name}` is taken by {other}; choose another"
                    )
                )
                continue
            found[name] = declared
        return found

    def _read(self, path: Path, model: type[M], defaults: dict[str, Any]) -> Declared[M] | None:
        shown = path.relative_to(self.root)
        try:
            document, query = _document(path, shown)
        except DefinitionError as error:
            self.problems.extend(error.problems)
            return None
        if not isinstance(document.data, dict):
            kind = type(document.data).__name__
            self.problems.append(document.problem((), f"found a {kind}, expected fields"))
            return None
        data = {**defaults, **document.data}
        if query is not None:
            data.setdefault("query", query)
        try:
            return Declared(model.model_validate(data), document)
        except ValidationError as error:
            self.problems.extend(_problems(error, document, model))
            return None


def _document(path: Path, shown: Path) -> tuple[Document, str | None]:
    """The settings of a file, and the SQL that stands in it or beside it."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DefinitionError([Problem(shown, 1, 1, "not UTF-8 text; save it as UTF-8")]) from error
    if path.suffix == ".sql":
        front = _SQL_FRONT.match(text)
        if front is None:
            return Document(shown, {}), text
        first = text[: front.start(1)].count("\n") + 1
        return parse(shown, front.group(1), first_line=first), text[front.end() :]
    sql = path.with_suffix(".sql")
    return parse(shown, text), sql.read_text(encoding="utf-8") if sql.exists() else None


def _defaults(model: type[models.Model], path: Path) -> dict[str, Any]:
    stem = path.stem
    if model is models.Source:
        return {"id": stem}
    if model is models.Audience:
        return {"key": stem, "name": stem.replace("_", " ").capitalize()}
    if model in (models.ComputedTrait, models.SqlTrait):
        return {"key": stem}
    return {"name": stem}


def _name(model: models.Model) -> str:
    for attribute in ("key", "id", "name"):
        if attribute == "key" and isinstance(model, models.Connection):
            continue
        value = getattr(model, attribute, None)
        if value:
            return str(value)
    raise AssertionError(model)


def _problems(
    error: ValidationError, document: Document, model: type[models.Model]
) -> list[Problem]:
    found = []
    for detail in error.errors(include_url=False):
        loc = tuple(part for part in detail["loc"] if part not in ("str", "Secret"))
        value = detail.get("input")
        if detail["type"] == "extra_forbidden":
            known = ", ".join(sorted(model.model_fields)) if len(loc) == 1 else ""
            message = "unknown field" + (f"; expected one of: {known}" if known else "")
        elif detail["type"] == "missing":
            message = "missing; add it"
        elif detail["type"] == "value_error":
            message = str(detail["ctx"]["error"])
        else:
            text = detail["msg"][0].lower() + detail["msg"][1:]
            message = f"found {_short(value)}, expected {_expected(text)}"
        problem = document.problem(loc, message)
        if problem not in found:
            found.append(problem)
    return found


def _expected(text: str) -> str:
    for prefix in ("input should be ", "input should have ", "string should "):
        if text.startswith(prefix):
            return text.removeprefix(prefix)
    return text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _check(project: Project, problems: list[Problem]) -> list[Problem]:
    """What spans fields and files. Adds to `problems`; returns warnings."""
    warnings: list[Problem] = []
    definitions: dict[str, tuple[Definition, Document]] = {}
    _references(project, problems)
    for key, declared, definition in query_definitions(project):
        taken = definitions.get(key)
        if taken:
            problems.append(
                declared.document.problem(("key",), f"`{key}` is taken by {taken[1].path}")
            )
            continue
        try:
            checked = check(definition)
        except QueryError as error:
            problems.append(_query_problem(declared.document, error))
            continue
        warnings += [declared.document.problem(("query",), text) for text in checked.warnings]
        definitions[key] = (definition, declared.document)
    try:
        order([definition for definition, _ in definitions.values()])
    except QueryError as error:
        named = [key for key in definitions if re.search(rf"\b{key}\b", error.reason)]
        document = definitions[named[0]][1] if named else Document(Path("assets"), {})
        problems.append(document.problem(("query",), error.reason))
    return warnings


def query_definitions(
    project: Project, include: Callable[[Any], bool] = lambda model: model.enabled
) -> list[tuple[str, Declared[Any], Definition]]:
    """Each computed trait and audience as the query language knows it."""
    found: list[tuple[str, Declared[Any], Definition]] = []
    for key, trait in project.computed_traits.items():
        model = trait.model
        if include(model):
            definition = Definition(
                key=key,
                kind="trait",
                collection=model.collection,
                query=model.query,
                lookback=model.lookback,
            )
            found.append((key, trait, definition))
    for key, audience in project.audiences.items():
        one = audience.model
        if include(one):
            definition = Definition(
                key=key,
                kind="audience",
                collection=one.collection,
                query=one.query,
                include_anonymous=one.include_anonymous,
                lookback=one.lookback,
            )
            found.append((key, audience, definition))
    return found


def _query_problem(document: Document, error: QueryError) -> Problem:
    line, column = document.inside(("query",), error.line, error.column)
    message = str(error).split(": ", 1)[1] if ": " in str(error) else str(error)
    return Problem(document.path, line, column, message, "query")


def _references(project: Project, problems: list[Problem]) -> None:
    def known(
        declared: Declared[Any], loc: Sequence[str | int], name: str, among: Mapping[str, Any]
    ) -> None:
        if name not in among:
            there = ", ".join(sorted(among)) or "none is declared"
            problems.append(
                declared.document.problem(loc, f"found `{name}`, expected one of: {there}")
            )

    if not project.spaces and not problems:
        folder = Path("resources/spaces")
        problems.append(Problem(folder, 1, 1, "no space is declared; add one file"))
    for declared in (
        *project.sources.values(),
        *project.computed_traits.values(),
        *project.audiences.values(),
        *project.sql_traits.values(),
        *project.destinations.values(),
        *project.connections.values(),
    ):
        for index, space in enumerate(declared.model.spaces or ()):  # type: ignore[attr-defined]
            known(declared, ("spaces", index), space, project.spaces)
    for trait in project.sql_traits.values():
        if trait.model.warehouse != "lake":
            known(trait, ("warehouse",), trait.model.warehouse, project.warehouses)
    for connection in project.connections.values():
        model = connection.model
        known(connection, ("destination",), model.destination, project.destinations)
        if model.audience is not None:
            known(connection, ("audience",), model.audience, project.audiences)
        if model.trait is not None:
            traits = {**project.computed_traits, **project.sql_traits}
            known(connection, ("trait",), model.trait.split(".")[0], traits)
    for space in project.spaces.values():
        _space_identity(project, space, problems)
        for index, name in enumerate(space.model.sources or ()):
            known(space, ("sources", index), name, project.sources)
        for index, name in enumerate(space.model.destinations or ()):
            known(space, ("destinations", index), name, project.destinations)


def _space_identity(
    project: Project, space: Declared[models.Space], problems: list[Problem]
) -> None:
    try:
        space_identity(project, space.model)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            problems.append(
                space.document.problem(("identity", *detail["loc"]), str(detail["msg"]))
            )


def space_identity(project: Project, space: models.Space) -> models.Identity:
    """The identity rules of a space: the shared file, overridden by its own, type by type."""
    base = project.identity.model_dump(exclude_unset=True)
    types = {**base.pop("types", {}), **space.identity.get("types", {})}
    own = {key: value for key, value in space.identity.items() if key != "types"}
    return models.Identity.model_validate({**base, **own, "types": types})
