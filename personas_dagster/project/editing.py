"""Definition files written by the platform: what is not touched keeps its order and comments.

What belongs here: changes of fields of one YAML file. Whether the result holds is checked by
reading the project again.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.scalarstring import LiteralScalarString
from ruamel.yaml.util import load_yaml_guess_indent

_NEVER_FOLDED = 1_000_000


def changed(text: str, fields: Mapping[str, Any]) -> str:
    """A YAML mapping's text with these top-level fields set; None takes a field out.

    The text has to be a YAML mapping, as every definition file that was read is.
    """
    _, indent, offset = load_yaml_guess_indent(text) if text.strip() else (None, None, None)
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = _NEVER_FOLDED
    if offset is not None:
        yaml.indent(mapping=2, sequence=offset + 2, offset=offset)
    elif indent:
        yaml.indent(mapping=indent)
    data = yaml.load(text) if text.strip() else None
    if data is None:
        data = CommentedMap()
    for name, value in fields.items():
        if value is None:
            data.pop(name, None)
        elif name not in data or data[name] != value:
            data[name] = _plain(name, value)
    out = io.StringIO()
    yaml.dump(data, out)
    return out.getvalue()


def write(path: Path, text: str) -> None:
    """A file that appears whole or not at all, on disk when this returns."""
    partial = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _plain(name: str, value: Any) -> Any:
    """Queries and lists as people write them."""
    if name == "query" and _is_block(value):
        return LiteralScalarString(value if value.endswith("\n") else value + "\n")
    if isinstance(value, list | tuple):
        found = CommentedSeq(value)
        found.fa.set_flow_style()
        return found
    return value


def _is_block(value: Any) -> bool:
    """Whether a text of several lines stays as it is in YAML's block style."""
    if not isinstance(value, str) or "\n" not in value.strip():
        return False
    lines = value.rstrip("\n").split("\n")
    return value[:1] not in " \n" and all(
        line.isprintable() and line == line.rstrip() for line in lines
    )
