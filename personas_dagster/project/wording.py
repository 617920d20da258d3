"""How what pydantic finds is told: `file:line:column: field: found ..., expected ...`.

What belongs here: words. No value of a secret, and no password of a URL, ever stands in them.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from personas_dagster.errors import Problem
from personas_dagster.project.lines import Document, Loc

_PASSWORD = re.compile(r"(://[^/@\s:]*:)[^@\s]+@")
_PREFIXES = ("input should be ", "input should have ", "string should ", "value should have ")
_TEXT = "text, or {env: NAME} or {file: PATH}"
_MOST = 60


def problems(
    error: ValidationError,
    document: Document,
    model: type[BaseModel],
    *,
    under: Loc = (),
    with_values: bool = True,
) -> list[Problem]:
    """Each thing that pydantic found, at its place. `under`: where in the document the model is.

    Without values, only the kind of what was found is said: any of it may be a secret.
    """
    found: dict[tuple[Loc, str], Problem] = {}
    for detail in error.errors(include_url=False):
        loc = tuple(part for part in detail["loc"] if _branch(part) is None)
        tried = [index for index, part in enumerate(detail["loc"]) if _branch(part)]
        branch = _branch(detail["loc"][tried[0]]) if tried else None
        if branch:
            value = _at(document, (*under, *detail["loc"][: tried[0]]))
            if (branch == "Secret") != isinstance(value, dict):
                continue  # not the branch of the union that was meant
        message = _message(detail, model, loc, is_text=branch is not None, shown=with_values)
        found.setdefault((loc, message), document.problem((*under, *loc), message))
    return list(found.values())


def _branch(part: str | int) -> str | None:
    """Which kind of a text that may be a secret pydantic tried, where a location says so."""
    if part == "str":
        return "str"
    return "Secret" if part == "Secret" or str(part).endswith(", Secret]") else None


def _at(document: Document, loc: Loc) -> object:
    value = document.data
    for part in loc:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
    return value


def _message(
    detail: ErrorDetails, model: type[BaseModel], loc: Loc, *, is_text: bool, shown: bool
) -> str:
    value = detail.get("input")
    here = quoted(value) if shown else _kind(value)
    kind = detail["type"]
    if kind == "extra_forbidden":
        return unknown("an unknown field", str(loc[-1]), fields(model, loc[:-1]))
    if kind == "missing":
        return "found nothing, expected a value; add this field"
    if kind == "value_error":
        told = str(detail.get("ctx", {}).get("error", detail["msg"]))
        if told.startswith("found "):
            return told
        return f"found {here}, {told if told.startswith('expected ') else f'but {told}'}"
    if is_text and kind in ("string_type", "model_type", "dict_type", "model_attributes_type"):
        return f"found {here}, expected {_TEXT}"
    text = detail["msg"][0].lower() + detail["msg"][1:]
    for prefix in _PREFIXES:
        text = text.removeprefix(prefix)
    return f"found {here}, expected {text}"


def unknown(what: str, name: str, known: Mapping[str, Any] | list[str]) -> str:
    """What was found, what is known instead, and which of it was probably meant."""
    there = sorted(known)
    if not there:
        return f"found {what}, expected none"
    near = difflib.get_close_matches(name, there, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    return f"found {what}, expected one of: {', '.join(there)}{hint}"


def fields(model: type[BaseModel], loc: Loc) -> list[str]:
    """The fields of a model, or of the model that lies at `loc` inside it."""
    inner: Any = model
    for part in loc:
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            named = {field.alias or name: field for name, field in inner.model_fields.items()}
            inner = _model_in(named[part].annotation) if part in named else None
    if isinstance(inner, type) and issubclass(inner, BaseModel):
        return [field.alias or name for name, field in inner.model_fields.items()]
    return []


def _model_in(annotation: Any) -> Any:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)


def quoted(value: object) -> str:
    """A value as the file has it, shortened, without passwords."""
    if isinstance(value, dict | list):
        text = _kind(value)
    else:
        text = _PASSWORD.sub(r"\1***@", "nothing" if value is None else str(value))
    text = text if len(text) <= _MOST else text[: _MOST - 3] + "..."
    return f"`{text}`" if isinstance(value, str) else text.lower() if value is True else text


def _kind(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    for kind, name in ((dict, "fields"), (list, "a list"), (str, "a text")):
        if isinstance(value, kind):
            return name
    return type(value).__name__
