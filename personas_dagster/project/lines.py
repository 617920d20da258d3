"""YAML with positions: the data, and where in the file each part of it stands.

Positions inside a text value come from laying the value beside its source: what is not white
space stands in the same order in both, whatever the style (plain, quoted, `|` or `>`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from personas_dagster.errors import DefinitionError, Problem

Loc = tuple[str | int, ...]
Place = tuple[int, int]

_HEADER = re.compile(r"[|>][^\n]*\n?")
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_SPACES = "tnvfr NLP_\n\t"  # escapes that stand for white space, or for nothing


class _Loader(yaml.CSafeLoader):
    """Values that look like a date or a number and are none become errors with a position."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError) as error:
            raise yaml.constructor.ConstructorError(
                problem=f"{error}; put it in quotes if it is text", problem_mark=node.start_mark
            ) from error


@dataclass
class Document:
    """One YAML document. Positions count from 1 in the file that holds it."""

    path: Path
    data: Any
    first_line: int = 1
    first_column: int = 1
    _marks: dict[Loc, Place] = field(default_factory=dict)
    _texts: dict[Loc, tuple[str, Sequence[Place]]] = field(default_factory=dict)

    def at(self, loc: Sequence[str | int]) -> Place:
        """Line and column of a part, or of the nearest part around it."""
        loc = tuple(loc)
        while loc and loc not in self._marks:
            loc = loc[:-1]
        return self._marks.get(loc, (self.first_line, self.first_column))

    def inside(self, loc: Sequence[str | int], line: int, column: int) -> Place:
        """Line and column in the file of a position inside a text value."""
        loc = tuple(loc)
        if loc not in self._texts:
            return self.at(loc)
        value, places = self._texts[loc]
        lines = value.split("\n")
        offset = sum(len(text) + 1 for text in lines[: line - 1]) + column - 1
        for index in range(min(offset, len(value)), -1, -1):
            if index < len(value) and not value[index].isspace():
                row, start = places[len("".join(value[:index].split()))]
                return row, start + offset - index
        return places[0] if places else self.at(loc)

    def problem(self, loc: Sequence[str | int], message: str) -> Problem:
        line, column = self.at(loc)
        return Problem(self.path, line, column, message, ".".join(map(str, loc)))


def parse(path: Path, text: str, *, first_line: int = 1, first_column: int = 1) -> Document:
    """The one document of a YAML text; DefinitionError where it is not YAML.

    The text begins at `first_line` and `first_column` of the file.
    """
    document = Document(path, None, first_line, first_column)
    try:
        node = yaml.compose(text, Loader=_Loader)
        if node is None:
            document.data = {}
            return document
        twice: list[Problem] = []
        _mark(document, node, (), text, twice)
        if twice:
            raise DefinitionError(twice)
        document.data = yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = _place(document, mark) if mark else (first_line, first_column)
        reason = error.problem or error.context or "something else"
        raise DefinitionError([Problem(path, line, column, _syntax(reason))]) from error
    except yaml.reader.ReaderError as error:
        line = first_line + text.count("\n", 0, error.position)
        column = error.position - text.rfind("\n", 0, error.position)
        reason = f"character {error.character:#04x}, which YAML does not allow"
        raise DefinitionError([Problem(path, line, column, _syntax(reason))]) from error
    except (yaml.YAMLError, RecursionError) as error:
        reason = "more levels than can be read" if isinstance(error, RecursionError) else str(error)
        raise DefinitionError([Problem(path, first_line, 1, _syntax(reason))]) from error
    return document


def _syntax(reason: str) -> str:
    return f"found {reason.removeprefix('found ')}, expected YAML; mend the syntax here"


def _place(document: Document, mark: Any) -> Place:
    column = mark.column + (document.first_column if mark.line == 0 else 1)
    return mark.line + document.first_line, column


def _mark(document: Document, node: yaml.Node, loc: Loc, text: str, twice: list[Problem]) -> None:
    document._marks[loc] = _place(document, node.start_mark)
    if isinstance(node, yaml.MappingNode):
        seen: dict[str, int] = {}
        for key, value in node.value:
            name = str(key.value)
            line, column = _place(document, key.start_mark)
            if name in seen:
                shown = ".".join(map(str, (*loc, name)))
                reason = f"found twice (first in line {seen[name]}), expected once; keep one"
                twice.append(Problem(document.path, line, column, reason, shown))
                continue
            seen[name] = line
            _mark(document, value, (*loc, name), text, twice)
            document._marks[(*loc, name)] = (line, column)  # a key is where a person looks
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            _mark(document, value, (*loc, index), text, twice)
    elif isinstance(node, yaml.ScalarNode):
        places = tuple(_places(document, node, text))
        value = str(node.value)
        if len(places) == len("".join(value.split())):
            document._texts[loc] = (value, places)


def _places(document: Document, node: yaml.ScalarNode, text: str) -> Iterator[Place]:
    """Where each character of a scalar stands that is not white space."""
    raw = text[node.start_mark.index : node.end_mark.index]
    line, start = node.start_mark.line, node.start_mark.column
    skip = 0
    if node.style in ("|", ">"):
        header = _HEADER.match(raw)
        skip = header.end() if header else 0
    elif node.style in ("'", '"'):
        skip, raw = 1, raw[:-1]
    position = 0
    while position < len(raw):
        length = 1
        is_text = position >= skip and not raw[position].isspace()
        if is_text and node.style == "'" and raw[position] == "'":
            length = 2
        elif is_text and node.style == '"' and raw[position] == "\\":
            escape = _ESCAPE.match(raw, position)
            length = len(escape[0]) if escape else 1
            is_text = not (escape and (escape[1] in _SPACES or _is_space(escape[1])))
        if is_text:
            column = document.first_column if line == 0 else 1
            yield line + document.first_line, start + column
        for character in raw[position : position + length]:
            line, start = (line + 1, 0) if character == "\n" else (line, start + 1)
        position += length


def _is_space(escape: str) -> bool:
    return escape[0] in "xuU" and len(escape) > 1 and chr(int(escape[1:], 16)).isspace()
