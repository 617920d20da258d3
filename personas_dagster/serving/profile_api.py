"""The Profile API: what is known about one profile, as Segment's clients ask for it.

What belongs here: parameters, pages and bodies. What a profile shows is read by
`profiles.reading`.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
from collections.abc import Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Response
from pydantic import BaseModel

from personas_dagster import masking
from personas_dagster.freshness import Freshness
from personas_dagster.profiles import reading
from personas_dagster.profiles.reading import Event, EventsWanted, ExternalId, Found, Trait, Wanted
from personas_dagster.serving import errors
from personas_dagster.serving.authority import Authority, Caller
from personas_dagster.serving.errors import ApiError
from personas_dagster.serving.staleness import Staleness, header

Collection = Literal["users", "accounts"]
TraitClass = Literal["audience", "computed_trait", "sql_trait", "custom_trait"]
CollectionPath = Annotated[Collection, Path(description="Of people, or of accounts.")]
IdentifierPath = Annotated[
    str, Path(description="`type:value`, or the id of a profile, also of one that was merged.")
]
NextQuery = Annotated[str, Query(description="`cursor.next` of the page before.")]
NamesQuery = Annotated[str, Query(description="Names, separated by commas.")]
VerboseQuery = Annotated[bool, Query(description="All that is known of each.")]
_REFUSED = errors.responses(400, 401, 403, 404, 429, 503)
_AS_OF = {
    "description": "The instant of the refresh that the answer is of",
    "schema": {"type": "string", "format": "date-time"},
}


_STALE = {
    "description": "Keys among those asked for whose values are not to be taken as current",
    "schema": {"type": "string"},
}


class Cursor(BaseModel):
    """Where the next page is; `url` and `next` are empty on the last one."""

    url: str
    has_more: bool
    next: str
    limit: int


class TraitsBody(BaseModel):
    """Values by key; with `verbose`, `{value, source_id, updated_at}` by key, and `stale`, a list
    of reasons, where there are some."""

    traits: dict[str, Any]
    cursor: Cursor


class DataBody(BaseModel):
    """A page of a list."""

    data: list[dict[str, Any]]
    cursor: Cursor


class LinksBody(BaseModel):
    """Linked profiles by their identifiers."""

    data: list[dict[str, Any]]
    cursor: Cursor


class MetadataBody(BaseModel):
    """When a profile was first and last heard of."""

    metadata: dict[str, str | None]


def router(authority: Authority, staleness: Staleness) -> APIRouter:
    """Every route of the Profile API, under `/v1/spaces` and `/v1/namespaces`."""
    routes = APIRouter(tags=["profiles"])
    reader = Depends(authority.needs("read"))

    async def traits(
        collection: CollectionPath,
        identifier: IdentifierPath,
        caller: Caller = reader,
        include: NamesQuery = "",
        limit: Annotated[int, Query(ge=1, le=200)] = 10,
        trait_class: Annotated[TraitClass | None, Query(alias="class")] = None,
        verbose: VerboseQuery = False,
        next: NextQuery = "",
    ) -> Response:
        """Values of traits, also computed ones, and whether the profile is in each audience."""
        wanted = Wanted(collection, identifier)
        found, held = _there(await caller.ask(reading.traits, caller.space.profiles, wanted))
        after, names = _opened(next) if next else "", set(_names(include))
        stale = await staleness.of(caller.space, collection)
        shown: list[Trait] = []
        for one in held:
            if one.key <= after or (names and one.key not in names):
                continue
            if trait_class is not None and one.trait_class != trait_class:
                continue
            if not shown or shown[-1].key != one.key:  # the first class of a key is shown
                shown.append(one)
        page = shown[:limit]
        last = page[-1].key if len(shown) > limit else ""
        options = {"include": include, "class": trait_class or "", "verbose": verbose}
        return _answer(
            found,
            {
                "traits": {
                    one.key: _trait(one, caller.has_pii, verbose, stale.get(one.key))
                    for one in page
                },
                "cursor": _cursor(caller, collection, found, "traits", limit, last, options),
            },
            header([key for key in sorted(stale) if not names or key in names]),
        )

    async def external_ids(
        collection: CollectionPath,
        identifier: IdentifierPath,
        caller: Caller = reader,
        include: NamesQuery = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 25,
        verbose: VerboseQuery = False,
        next: NextQuery = "",
    ) -> Response:
        """Identifiers of a profile, the oldest first. `include`: only these types."""
        wanted = Wanted(collection, identifier)
        found, held = _there(await caller.ask(reading.external_ids, caller.space.profiles, wanted))
        names, start = set(_names(include)), _number(_opened(next)) if next else 0
        shown = [one for one in held if not names or one.type in names]
        page = shown[start : start + limit]
        last = str(start + limit) if len(shown) > start + limit else ""
        options = {"include": include, "verbose": verbose}
        return _answer(
            found,
            {
                "data": [_external_id(one, collection, caller.has_pii) for one in page],
                "cursor": _cursor(caller, collection, found, "external_ids", limit, last, options),
            },
        )

    async def events(
        collection: CollectionPath,
        identifier: IdentifierPath,
        caller: Caller = reader,
        include: NamesQuery = "",
        exclude: NamesQuery = "",
        start: Annotated[str, Query(description="From this instant on, ISO 8601.")] = "",
        end: Annotated[str, Query(description="Before this instant, ISO 8601.")] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 10,
        sort: Literal["asc", "desc"] = "desc",
        next: NextQuery = "",
    ) -> Response:
        """What a profile did in the last 14 days before the last refresh."""
        asked = EventsWanted(
            limit=limit + 1,
            ascending=sort == "asc",
            start=_instant("start", start),
            end=_instant("end", end),
            include=_names(include),
            exclude=_names(exclude),
            after=_place(_opened(next)) if next else None,
        )
        wanted = Wanted(collection, identifier)
        found, held = _there(await caller.ask(reading.events, caller.space.profiles, wanted, asked))
        page = held[:limit]
        last = f"{page[-1].at}::{page[-1].message_id}" if len(held) > limit else ""
        options = {
            "include": include, "exclude": exclude, "start": start, "end": end, "sort": sort,
        }  # fmt: skip
        return _answer(
            found,
            {
                "data": [_event(one, collection, found.profile_id, caller.has_pii) for one in page],
                "cursor": _cursor(caller, collection, found, "events", limit, last, options),
            },
        )

    async def metadata(
        collection: CollectionPath,
        identifier: IdentifierPath,
        caller: Caller = reader,
        verbose: VerboseQuery = False,
    ) -> Response:
        """When a profile was first and last heard of, and by which message."""
        wanted = Wanted(collection, identifier)
        found, facts = _there(await caller.ask(reading.metadata, caller.space.profiles, wanted))
        return _answer(found, {"metadata": facts})

    async def links(
        collection: CollectionPath,
        identifier: IdentifierPath,
        caller: Caller = reader,
        limit: Annotated[int, Query(ge=1, le=20)] = 20,
        next: NextQuery = "",
    ) -> Response:
        """The accounts of a user, or the users of an account."""
        after = _opened(next) if next else ""
        wanted = Wanted(collection, identifier)
        found, held = _there(
            await caller.ask(
                reading.links, caller.space.profiles, wanted, limit=limit + 1, after=after
            )
        )
        page = held[:limit]
        last = page[-1][0] if len(held) > limit else ""
        return _answer(
            found,
            {
                "data": [
                    {
                        "to_collection": kind,
                        "external_ids": [_external_id(one, kind, caller.has_pii) for one in ids],
                    }
                    for _, kind, ids in page
                ],
                "cursor": _cursor(caller, collection, found, "links", limit, last, {}),
            },
        )

    for endpoint, model in (
        (traits, TraitsBody),
        (external_ids, DataBody),
        (events, DataBody),
        (metadata, MetadataBody),
        (links, LinksBody),
    ):
        for root in ("spaces", "namespaces"):
            path = f"/v1/{root}/{{space}}/collections/{{collection}}/profiles/{{identifier:path}}/"
            name = endpoint.__name__
            routes.add_api_route(
                path + name,
                endpoint,
                methods=["GET"],
                summary=f"A profile's {name.replace('_', ' ')}",
                operation_id=f"{name}_of_{root}",
                responses={
                    200: {
                        "model": model,
                        "headers": {
                            "Personas-As-Of": _AS_OF,
                            **({"Personas-Stale": _STALE} if model is TraitsBody else {}),
                        },
                    },
                    **_REFUSED,
                },
                response_class=Response,
            )
    return routes


def _answer(
    found: Found, body: Mapping[str, Any], more: Mapping[str, str] | None = None
) -> Response:
    as_of = found.as_of.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Response(
        msgspec.json.encode(body),
        media_type="application/json",
        headers={"Personas-As-Of": as_of, **(more or {})},
    )


def _there(found: Any) -> Any:
    if found is None:
        raise ApiError(404, "Profile was not found.")
    return found


def _cursor(
    caller: Caller,
    collection: str,
    found: Found,
    what: str,
    limit: int,
    last: str,
    options: Mapping[str, Any],
) -> dict[str, Any]:
    """`url` is the next page's, by the profile's id: no identifier gets into logs by it."""
    if not last:
        return {"url": "", "has_more": False, "next": "", "limit": limit}
    following = base64.urlsafe_b64encode(last.encode()).decode()
    asked = {k: str(v).lower() if v is True else v for k, v in options.items() if v}
    query = urlencode({**asked, "limit": limit, "next": following})
    path = f"/v1/spaces/{caller.space.name}/collections/{collection}/profiles/{found.profile_id}"
    return {"url": f"{path}/{what}?{query}", "has_more": True, "next": following, "limit": limit}


def _opened(following: str) -> str:
    try:
        found = base64.b64decode(following, altchars=b"-_", validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise _no_cursor() from error
    if "\0" in found:
        raise _no_cursor()
    return found


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise _no_cursor()
    return int(text)


def _place(text: str) -> tuple[int, str]:
    at, _, message = text.partition("::")
    if not (at.removeprefix("-").isascii() and at.removeprefix("-").isdigit() and len(at) < 18):
        raise _no_cursor()
    return int(at), message


def _no_cursor() -> ApiError:
    return ApiError(400, "next: expected `cursor.next` of the page before", code="validation_error")


def _names(text: str) -> list[str]:
    if "\0" in text:
        raise ApiError(400, "expected names without a null character", code="validation_error")
    found = [name.strip() for name in text.split(",") if name.strip()]
    if len(found) > 200:
        raise ApiError(400, "expected at most 200 names", code="validation_error")
    return found


def _instant(field: str, text: str) -> dt.datetime | None:
    if not text:
        return None
    try:
        found = dt.datetime.fromisoformat(text)
        found = found.replace(tzinfo=dt.UTC) if found.tzinfo is None else found.astimezone(dt.UTC)
    except (ValueError, OverflowError) as error:
        message = f"{field}: expected ISO 8601, such as 2026-03-01 or 2026-03-01T12:00:00Z"
        raise ApiError(400, message, code="validation_error") from error
    return found


def _trait(one: Trait, has_pii: bool, verbose: bool, fresh: Freshness | None) -> Any:
    value = one.value
    if not has_pii:
        text = masking.mask_value(one.key, bytes(value).decode())
        value = msgspec.Raw(text.encode())
    if not verbose:
        return value
    shown = {"value": value, "source_id": one.source_id, "updated_at": one.updated_at}
    return {**shown, "stale": list(fresh.stale)} if fresh else shown


def _external_id(one: ExternalId, collection: str, has_pii: bool) -> dict[str, Any]:
    return {
        "source_id": one.source_id,
        "collection": collection,
        "id": one.id if has_pii else masking.mask_id(one.type, one.id),
        "type": one.type,
        "created_at": one.created_at,
        "encoding": "none",
        "first_message_id": one.first_message_id,
    }


def _event(one: Event, collection: str, profile_id: str, has_pii: bool) -> dict[str, Any]:
    """The message, and whose it is."""
    ids = [
        {
            "collection": of,
            "type": kind,
            "id": value if has_pii else masking.mask_id(kind, value),
            "encoding": "none",
        }
        for of, kind, value in one.body.external_ids
    ]
    return {
        "external_ids": ids,
        "context": _raw(one.body.context, has_pii),
        "type": one.body.type,
        "message_id": one.message_id,
        "source_id": one.body.source_id,
        "timestamp": one.timestamp,
        "properties": _raw(one.body.properties, has_pii),
        "event": one.name,
        "related": {collection: profile_id},
    }


def _raw(value: msgspec.Raw, has_pii: bool) -> msgspec.Raw:
    if has_pii:
        return value
    return msgspec.Raw(masking.mask_text(bytes(value).decode()).encode())
