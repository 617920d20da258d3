"""The Definitions API: audiences and computed traits, in the files that people keep.

What belongs here: bodies, statuses, and what is told after a change. What a change does is
`defining`'s.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

from personas_dagster import defining, unset
from personas_dagster.answers import planning
from personas_dagster.answers import preview as previewing
from personas_dagster.defining import AUDIENCES, COMPUTED_TRAITS, Kind
from personas_dagster.errors import Busy, DefinitionError, QueryError
from personas_dagster.freshness import freshness, of_draft
from personas_dagster.query import Definition, check
from personas_dagster.serving import errors, reloading
from personas_dagster.serving.authority import Authority, Caller
from personas_dagster.serving.errors import ApiError

_RESERVED = {"key", "query", "collection", "name", "enabled"}
_REFUSED = errors.responses(400, 401, 403, 404, 409, 429, 503)
KeyPath = Annotated[str, Path(description="The key of the definition.")]


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class QueryBody(Model):
    """A query, and of whom."""

    query: str = Field(min_length=1, max_length=100_000)
    type: Literal["USERS", "ACCOUNTS"] = "USERS"


class _WithOptions(Model):
    options: dict[str, Any] = Field(default={}, description="Other fields of the file.")

    @model_validator(mode="after")
    def _plain(self) -> _WithOptions:
        for name in self.options:
            if name in _RESERVED:
                raise ValueError(f"options.{name}: has a place of its own")
        try:
            json.dumps(self.options, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            raise ValueError("options: found half a surrogate pair") from error
        return self


class NewDefinition(_WithOptions):
    """A definition that is to be made."""

    name: str = Field(min_length=1, max_length=200)
    key: str | None = Field(default=None, description="By default the name in snake_case.")
    definition: QueryBody
    enabled: bool = True


class ChangedDefinition(_WithOptions):
    """What is to be changed; what is left out stays. An option of null is taken out."""

    name: str | None = Field(default=None, min_length=1, max_length=200)
    key: str | None = None
    definition: QueryBody | None = None
    enabled: bool | None = None


class PreviewBody(Model):
    """A definition to be tried."""

    definition: QueryBody
    options: dict[Literal["include_anonymous"], bool] = {}
    compare_with: str | None = Field(default=None, description="The key of an audience.")


class Status(BaseModel):
    """Where the computation stands; `size` is how many profiles are in or have a value, `stale`
    why that is not to be taken as current."""

    state: Literal["computed", "waiting", "disabled"]
    as_of: str | None
    size: int | None
    is_stale: bool = False
    stale: list[str] = []


class Reload(BaseModel):
    """Whether Dagster has loaded the change, and if not, why."""

    done: bool
    why: str


class DefinitionAnswer(BaseModel):
    """A definition as its file has it. `reload` follows a change, `plan` one of the query: who
    enters and leaves, and how long each connected destination needs at its rate."""

    key: str
    name: str
    definition: dict[str, str]
    enabled: bool
    options: dict[str, Any]
    file: str
    status: Status
    reload: Reload | None = None
    plan: dict[str, Any] | None = None


class DefinitionList(BaseModel):
    data: list[DefinitionAnswer]


class Deleted(BaseModel):
    key: str
    deleted: bool
    reload: Reload


class PreviewAnswer(BaseModel):
    """What a definition gives on stored data."""

    model_config = ConfigDict(extra="allow")

    size: int
    as_of: str
    is_stale: bool
    stale: list[str]


def router(authority: Authority, *, now: Callable[[], dt.datetime]) -> APIRouter:
    """The routes of both kinds of definitions."""
    routes = APIRouter(tags=["definitions"])
    _preview_route(routes, authority, now)
    _routes(routes, authority, AUDIENCES, "audiences", now)
    _routes(routes, authority, COMPUTED_TRAITS, "computed-traits", now)
    return routes


def _routes(
    routes: APIRouter, authority: Authority, kind: Kind, path: str, now: Callable[[], dt.datetime]
) -> None:
    reader, writer = Depends(authority.needs("read", "define")), Depends(authority.needs("define"))
    root, name = f"/v1/spaces/{{space}}/{path}", path.replace("-", "_")

    @routes.get(root, summary=f"All {path}", operation_id=f"list_{name}",
                response_model=DefinitionList, responses=_REFUSED)  # fmt: skip
    def listed(caller: Caller = reader) -> Any:
        with translated():
            here = defining.fresh(caller.space)
            fresh = freshness(here, now=now())
            keys = sorted(kind.all(here))
            return {"data": [defining.described(here, kind, key, fresh) for key in keys]}

    @routes.get(f"{root}/{{key}}", summary=f"One of the {path}", operation_id=f"read_{name}",
                response_model=DefinitionAnswer, responses=_REFUSED)  # fmt: skip
    def read(key: KeyPath, caller: Caller = reader) -> Any:
        with translated():
            return _described(caller, kind, key, now())

    @routes.post(root, summary="A new definition", operation_id=f"create_{name}", status_code=201,
                 response_model=DefinitionAnswer, responses=_REFUSED)  # fmt: skip
    def create(body: NewDefinition, caller: Caller = writer) -> Any:
        fields = {**body.options, **_fields(body)}
        with translated():
            key = defining.create(caller.space, kind, fields, by=caller.token.name, now=now())
            return _told(caller, kind, key, now())

    @routes.patch(f"{root}/{{key}}", summary="Change a definition", operation_id=f"change_{name}",
                  response_model=DefinitionAnswer, responses=_REFUSED)  # fmt: skip
    def change(key: KeyPath, body: ChangedDefinition, caller: Caller = writer) -> Any:
        if body.key not in (None, key):
            raise ApiError(400, "key: a key cannot be changed", code="validation_error")
        fields = {**body.options, **_fields(body)}
        fields.pop("key", None)
        with translated():
            defining.change(caller.space, kind, key, fields, by=caller.token.name, now=now())
            planned = _planned(caller, key) if "query" in fields else None
            return {**_told(caller, kind, key, now()), "plan": planned}

    @routes.delete(f"{root}/{{key}}", summary="Delete a definition", operation_id=f"delete_{name}",
                   response_model=Deleted, responses=_REFUSED)  # fmt: skip
    def delete(key: KeyPath, caller: Caller = writer) -> Any:
        with translated():
            defining.delete(caller.space, kind, key, by=caller.token.name, now=now())
        return {"key": key, "deleted": True, "reload": reloading.reload(caller.space.name)}


def _preview_route(routes: APIRouter, authority: Authority, now: Callable[[], dt.datetime]) -> None:
    reader = Depends(authority.needs("define"))

    @routes.post("/v1/spaces/{space}/audiences/preview", summary="Who would be in",
                 operation_id="preview_audiences", response_model=PreviewAnswer,
                 responses=_REFUSED)  # fmt: skip
    def preview(body: PreviewBody, caller: Caller = reader) -> Response:
        collection: Any = body.definition.type.lower()
        definition = Definition(
            key="preview",
            kind="audience",
            collection=collection,
            query=body.definition.query,
            include_anonymous=body.options.get("include_anonymous", False),
        )
        with translated():
            check(definition)
            here = defining.fresh(caller.space)
            found = previewing.preview(
                here, definition, compare_with=body.compare_with, has_pii=caller.has_pii
            )
            fresh = of_draft(here, definition, as_of=found.as_of, now=now())
            unread = unset.warnings(here, [definition]).get(definition.key, [])
            found = replace(found, warnings=(*found.warnings, *unread))
        shown = {**found.as_json(), **fresh.as_json()}
        text = json.dumps(shown, ensure_ascii=False, default=str)
        return Response(text, media_type="application/json")


def _fields(body: NewDefinition | ChangedDefinition) -> dict[str, Any]:
    """The file's fields of a body; what was left out is not among them."""
    found: dict[str, Any] = {"name": body.name, "key": body.key, "enabled": body.enabled}
    found = {name: value for name, value in found.items() if value is not None}
    if body.enabled is True and isinstance(body, NewDefinition):
        found.pop("enabled")
    if body.definition is not None:
        found["query"] = body.definition.query
        if isinstance(body, ChangedDefinition) or body.definition.type != "USERS":
            found["collection"] = body.definition.type.lower()
    return found


def _described(caller: Caller, kind: Kind, key: str, now: dt.datetime) -> dict[str, Any]:
    here = defining.fresh(caller.space)
    return defining.described(here, kind, key, freshness(here, now=now))


def _planned(caller: Caller, key: str) -> dict[str, Any] | None:
    """What the edited query does to members and destinations; None before the first refresh."""
    here = defining.fresh(caller.space)
    last = here.last_refresh()
    if last is None or key not in {one.key for one in here.definitions}:
        return None
    (found,) = planning.plan(here, only=[key])
    shown = planning.as_json(found, last["as_of"])
    names = ("as_of", "before", "after", "entering", "leaving", "changed", "destinations")
    return {name: shown[name] for name in names}


def _told(caller: Caller, kind: Kind, key: str, now: dt.datetime) -> dict[str, Any]:
    """The definition as it is now, and whether Dagster knows it."""
    found = _described(caller, kind, key, now)
    return {**found, "reload": reloading.reload(caller.space.name)}


@contextmanager
def translated() -> Iterator[None]:
    """What `defining` refuses, as the API answers it."""
    try:
        yield
    except defining.Missing as error:
        raise ApiError(404, str(error)) from error
    except (defining.Conflict, Busy) as error:
        raise ApiError(409, str(error)) from error
    except QueryError as error:
        raise ApiError(400, f"query:{error}", code="validation_error") from error
    except DefinitionError as error:
        problems = [
            {
                "field": one.field,
                "file": str(one.path),
                "line": one.line,
                "column": one.column,
                "message": one.message,
            }
            for one in error.problems
        ]
        details = {"problems": problems}
        raise ApiError(400, str(error), code="validation_error", details=details) from error
