"""Deletion over HTTP: of a person, and of an identifier, as Segment's API does it."""

import datetime as dt
from collections.abc import Callable
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Path
from pydantic import BaseModel, Field
from starlette.concurrency import run_in_threadpool
from starlette.convertors import Convertor, register_url_convertor

from personas_dagster import curating
from personas_dagster.erasing import flow
from personas_dagster.errors import NotFound, PersonasError
from personas_dagster.identity.facts import Identifier
from personas_dagster.serving import errors
from personas_dagster.serving.authority import Authority, Caller
from personas_dagster.serving.errors import ApiError

WhoPath = Annotated[str, Path(description="`type:value` of any external ID of the person.")]
UserPath = Annotated[str, Path(description="`user_id:{id}`: what the profile is looked up by.")]
_REFUSED = errors.responses(400, 401, 403, 404, 409, 429, 503)
T = TypeVar("T")


class _Who(Convertor[str]):
    """An identifier, which may hold slashes; what follows it in other paths is not part of it."""

    regex = ".+(?<!/external_ids/delete)"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("person", _Who())


class ReceiptBody(BaseModel):
    """What was deleted, in counts; it names nobody."""

    deletion_id: int
    at: dt.datetime
    by: str
    profiles: int
    identifiers: dict[str, int] = Field(description="How many of each type.")
    rows: dict[str, int] = Field(description="How many of each table.")
    destinations: dict[str, str] = Field(description="What became of telling each.")


class DeletedId(BaseModel):
    """An external ID of the profile."""

    id: str = Field(min_length=1)
    type: str = Field(min_length=1)


class DeletedIds(BaseModel):
    """External IDs that are not the profile's."""

    delete_external_ids: list[DeletedId] = Field(min_length=1, max_length=20)


class IdsBody(BaseModel):
    """What will be derived anew by the next refresh."""

    data: list[DeletedId]
    status: Literal["next_refresh"] = "next_refresh"


def router(authority: Authority, *, now: Callable[[], dt.datetime]) -> APIRouter:
    """Routes that need the role `admin`."""
    routes = APIRouter(tags=["deletion"])
    admin = Annotated[Caller, Depends(authority.needs("admin"))]

    async def delete_person(caller: admin, who: WhoPath) -> dict[str, Any]:
        """Delete a person: everything stored of all merged profiles.

        Messages that name one of the person's identifiers later are not stored. It takes as long
        as the graph takes to be derived anew; ask again if the connection ends before.
        """
        name = _identifier(who)
        receipt, _ = await _told(
            lambda: flow.erase(caller.space, name, now=now(), by=f"token {caller.token.name}")
        )
        return receipt.as_json()

    async def delete_external_ids(caller: admin, who: UserPath, body: DeletedIds) -> IdsBody:
        """Delete external IDs: messages received until now do not name them any more."""
        looked_up = _identifier(who)
        if looked_up[1] != "user_id":
            raise ApiError(400, "look the profile up by its user_id: user_id:{id}")
        for one in body.delete_external_ids:
            name = _identifier(f"{one.type}:{one.id}")
            await _told(
                lambda name=name: curating.delete_external_id(  # type: ignore[misc]
                    caller.space, looked_up[2], name, now=now(), by=f"token {caller.token.name}"
                )
            )
        return IdsBody(data=body.delete_external_ids)

    for root in ("spaces", "namespaces"):
        path = f"/v1/{root}/{{space}}/collections/users/profiles/{{who:person}}"
        routes.add_api_route(
            path,
            delete_person,
            methods=["DELETE"],
            summary="Delete a person",
            operation_id=f"delete_person_of_{root}",
            response_model=ReceiptBody,
            responses=_REFUSED,
        )
        routes.add_api_route(
            f"{path}/external_ids/delete",
            delete_external_ids,
            methods=["POST"],
            summary="Delete external IDs of a person",
            operation_id=f"delete_external_ids_of_{root}",
            response_model=IdsBody,
            responses=_REFUSED,
        )
    return routes


def _identifier(text: str) -> Identifier:
    try:
        name = curating.identifier(text)
    except PersonasError as error:
        raise ApiError(400, str(error)) from error
    if name[0] != "users":
        raise ApiError(400, f"{name[1]} names an account, not a person")
    return name


async def _told(work: Callable[[], T]) -> T:
    """Done in a thread: it takes long."""
    try:
        return await run_in_threadpool(work)
    except NotFound as error:
        raise ApiError(404, "Profile was not found.") from error
