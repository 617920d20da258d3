"""From a folder of declarations to a `Project`, with every problem found on the way.

All files are read before anything is reported, so that one run shows all there is to mend.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from personas_dagster.errors import DefinitionError, InputError, Problem, QueryError
from personas_dagster.project import fields, models, wording
from personas_dagster.project.checks import cross_check, in_query
from personas_dagster.project.declared import Declared, M, Project, definition_of
from personas_dagster.project.identity import Identity
from personas_dagster.project.lines import Document, parse
from personas_dagster.query import check
from personas_dagster.query import parse as parse_query

__all__ = [
    "Declared",
    "Project",
    "load_project",
    "read_definition",
    "read_project",
    "read_sql_trait",
]

_SQL_FRONT = re.compile(r"\A\s*/\*(.*?)\*/\s*", re.DOTALL)
FOLDERS: Mapping[str, type[fields.Model]] = {
    "assets/sources": models.Source,
    "assets/computed_traits": models.ComputedTrait,
    "assets/audiences": models.Audience,
    "assets/sql_traits": models.SqlTrait,
    "resources/spaces": models.Space,
    "resources/warehouses": models.Warehouse,
    "resources/destinations": models.Destination,
    "sensors/connections": models.Connection,
}


def load_project(root: Path) -> Project:
    """Read and check every declaration under `root`; DefinitionError lists all problems."""
    project, problems = read_project(root)
    if problems:
        raise DefinitionError(problems)
    return project


def read_project(root: Path) -> tuple[Project, list[Problem]]:
    """What could be read of a project, and everything that is wrong with it."""
    root = root.resolve()
    if not (root / "resources" / "spaces").is_dir():
        message = (
            "found no resources/spaces/, expected a project; run `personas init DIR`, or name the "
            "project with --project"
        )
        raise DefinitionError([Problem(root, 1, 1, message)])
    reader = _Reader(root)
    parts: dict[str, Any] = {
        folder.split("/")[1]: reader.folder(folder, model) for folder, model in FOLDERS.items()
    }
    project = Project(
        root=root,
        identity=reader.single("assets/identity.yaml", Identity),
        schedules=reader.single("sensors/schedules.yaml", models.Schedules),
        alerts=reader.single("sensors/alerts.yaml", models.Alerts),
        **parts,
    )
    problems, warnings = cross_check(project, reader.broken)
    return replace(project, warnings=tuple(warnings)), [*reader.problems, *problems]


def read_identity(path: Path) -> Identity:
    """Identity rules from a file like assets/identity.yaml. DefinitionError names each problem."""
    if not path.is_file():
        raise InputError(f"{path} is not a file; give one like assets/identity.yaml")
    reader = _Reader(path.parent)
    found = reader.single(path.name, Identity)
    if reader.problems:
        raise DefinitionError(reader.problems)
    return found


def read_definition(path: Path) -> Declared[Any]:
    """One computed trait or audience from a file, wherever it lies.

    An audience is what lies in a folder `audiences`, or has a field that only audiences have, or
    a query that ends in a condition. DefinitionError lists what is wrong.
    """
    shown = path if not path.is_absolute() else Path(path.name)
    document, _ = _document(path, shown)
    data = document.data if isinstance(document.data, dict) else {}
    folders = {parent.name for parent in path.resolve().parents}
    model: type[models.ComputedTrait] | type[models.Audience] = models.ComputedTrait
    if "computed_traits" not in folders and (
        "audiences" in folders or _is_audience(data) or "include_anonymous" in data
    ):
        model = models.Audience
    reader = _Reader(path.parent.resolve())
    declared: Declared[Any] | None = reader._read(path.resolve(), model, _defaults(model, path))
    if declared is not None:
        try:
            check(definition_of(declared.model))
        except QueryError as error:
            reader.problems.append(in_query(declared, error))
    if reader.problems or declared is None:
        raise DefinitionError(reader.problems)
    return declared


def read_sql_trait(path: Path) -> models.SqlTrait:
    """One SQL trait from a file, wherever it lies. DefinitionError lists what is wrong."""
    reader = _Reader(path.parent.resolve())
    model = models.SqlTrait
    declared = reader._read(path.resolve(), model, _defaults(model, path))
    if declared is None:
        raise DefinitionError(reader.problems)
    return declared.model


def _is_audience(data: Mapping[str, Any]) -> bool:
    if any(name in data for name in models.Audience.ready_made):
        return True
    try:
        return parse_query(str(data.get("query", ""))).type == "boolean"
    except QueryError:
        return False


class _Reader:
    """Reads files into models and gathers what is wrong with them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.problems: list[Problem] = []
        self.broken: dict[str, set[str]] = {}

    def single(self, relative: str, model: type[M]) -> M:
        path = self.root / relative
        if not path.exists():
            return model()
        return (self._read(path, model, {}) or Declared(model(), Document(path, {}))).model

    def folder(self, relative: str, model: type[M]) -> dict[str, Declared[M]]:
        found: dict[str, Declared[M]] = {}
        for path in sorted((self.root / relative).rglob("*")):
            if path.suffix not in (".yaml", ".yml", ".sql") or path.name.startswith("."):
                continue
            if path.suffix == ".sql" and path.with_suffix(".yaml").exists():
                continue  # the query of the settings beside it
            declared = self._read(path, model, _defaults(model, path))
            if declared is None:
                self.broken.setdefault(relative.split("/")[1], set()).add(path.stem)
                continue
            name = _name(declared.model)
            if name in found:
                message = f"found `{name}`, which {found[name].path} has; choose another"
                self.problems.append(declared.document.problem(_named_by(declared.model), message))
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
            message = f"found {wording.quoted(document.data)}, expected fields (`name: value`)"
            self.problems.append(document.problem((), message))
            return None
        data = {**defaults, **document.data}
        if query is not None:
            data.setdefault("query", query)
        try:
            return Declared(model.model_validate(data), document)
        except ValidationError as error:
            self.problems.extend(wording.problems(error, document, model))
            return None


def _document(path: Path, shown: Path) -> tuple[Document, str | None]:
    """The settings of a file, and the SQL that stands in it or beside it."""
    try:
        text = path.read_text(encoding="utf-8-sig")
        sql = path.with_suffix(".sql")
        beside = sql.read_text(encoding="utf-8-sig") if sql.exists() else None
    except UnicodeDecodeError as error:
        message = "found bytes that are not UTF-8, expected text; save the file as UTF-8"
        raise DefinitionError([Problem(shown, 1, 1, message)]) from error
    except OSError as error:
        message = f"cannot be read: {error.strerror}; mend its rights"
        raise DefinitionError([Problem(shown, 1, 1, message)]) from error
    if path.suffix == ".sql":
        front = _SQL_FRONT.match(text)
        if front is None:
            return Document(shown, {}), text
        before = text[: front.start(1)]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        settings = parse(shown, front.group(1), first_line=line, first_column=column)
        return settings, text[front.end() :]
    return parse(shown, text), beside


def _defaults(model: type[fields.Model], path: Path) -> dict[str, Any]:
    stem = path.stem
    if model is models.Source:
        return {"id": stem}
    if model is models.Audience:
        return {"key": stem, "name": stem.replace("_", " ").capitalize()}
    if model in (models.ComputedTrait, models.SqlTrait):
        return {"key": stem}
    return {"name": stem}


def _name(model: fields.Model) -> str:
    return str(getattr(model, _named_by(model)[0]))


def _named_by(model: fields.Model) -> tuple[str]:
    """The field that a declaration goes by."""
    if isinstance(model, models.ComputedTrait | models.Audience | models.SqlTrait):
        return ("key",)
    return ("id",) if isinstance(model, models.Source) else ("name",)
