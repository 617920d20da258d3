"""YAML with positions: the data, and where in the file each part of it stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from personas_dagster.errors import DefinitionError, Problem

Loc = tuple[str | int, ...]


@dataclass
class Document:
    """One YAML document. Positions count from 1 in the file that holds it."""

    path: Path
    data: Any
    first_line: int = 1
    _marks: dict[Loc, tuple[int, int]] = field(default_factory=dict)
    _text_marks: dict[Loc, tuple[int, int]] = field(default_factory=dict)

    def at(self, loc: Sequence[str | int]) -> tuple[int, int]:
        """Line and column of a part, or of the nearest part around it."""
        loc = tuple(loc)
        while loc and loc not in self._marks:
            loc = loc[:-1]
        return self._marks.get(loc, (self.first_line, 1))

    def inside(self, loc: Sequence[str | int], line: int, column: int) -> tuple[int, int]:
        """Line and column in the file of a position inside a text value."""
        first, indent = self._text_marks.get(tuple(loc), self.at(loc))
        return first + line - 1, (indent if line == 1 or indent > 1 else 1) + column - 1

    def problem(self, loc: Sequence[str | int], message: str) -> Problem:
        line, column = self.at(loc)
        return Problem(self.path, line, column, message, ".".join(map(str, loc)))


def parse(path: Path, text: str, *, first_line: int = 1) -> Document:
    """The one document of a YAML text; DefinitionError where it is not YAML."""
    document = Document(path, None, first_line)
    try:
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = (mark.line if mark else 0) + first_line
        column = (mark.column if mark else 0) + 1
        reason = error.problem or error.context or "not YAML"
        raise DefinitionError(
            [Problem(path, line, column, f"not valid YAML: {reason}; mend the syntax here")]
        ) from error
    except yaml.YAMLError as error:
        raise DefinitionError([Problem(path, first_line, 1, f"not valid YAML: {error}")]) from error
    if node is None:
        document.data = {}
        return document
    _mark(document, node, (), text.splitlines())
    try:
        document.data = yaml.load(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise DefinitionError([Problem(path, first_line, 1, f"not valid YAML: {error}")]) from error
    return document


def _mark(document: Document, node: yaml.Node, loc: Loc, lines: list[str]) -> None:
    mark = node.start_mark
    document._marks[loc] = (mark.line + document.first_line, mark.column + 1)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, yaml.Node] = {}
        for key, value in node.value:
            name = str(key.value)
            if name in seen:
                raise DefinitionError(
                    [
                        Problem(
                            document.path,
                            key.start_mark.line + document.first_line,
                            key.start_mark.column + 1,
                            "stands twice in this file; keep one of them",
                            ".".join(map(str, (*loc, name))),
                        )
                    ]
                )
            seen[name] = key
            _mark(document, value, (*loc, name), lines)
            # A key is where a person looks for a field.
            document._marks[(*loc, name)] = (
                key.start_mark.line + document.first_line,
                key.start_mark.column + 1,
            )
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _mark(document, value, (*loc, index), lines)
    elif isinstance(node, yaml.ScalarNode):
        document._text_marks[loc] = _text_start(document, node, lines)


def _text_start(document: Document, node: yaml.ScalarNode, lines: list[str]) -> tuple[int, int]:
    mark = node.start_mark
    if node.style in ("|", ">"):
        first = mark.line + 1
        while first < len(lines) and not lines[first].strip():
            first += 1
        body = lines[first] if first < len(lines) else ""
        indent = len(body) - len(body.lstrip())
        return first + document.first_line, indent + 1
    quoted = node.style in ("'", '"')
    return mark.line + document.first_line, mark.column + (2 if quoted else 1)
