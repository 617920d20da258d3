"""The Tracking API: what the event libraries of Segment and RudderStack send, taken in.

A 200 says that the messages are on disk. What belongs here: routes. What a body means is in
`messages`, how it gets to disk in `journal`, whose key it is in `write_keys`.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response, Security
from fastapi.responses import JSONResponse
from pydantic import BaseModel
from starlette.requests import ClientDisconnect

from personas_dagster.events.reasons import MESSAGE_TOO_LARGE
from personas_dagster.serving import errors, messages, metrics
from personas_dagster.serving.credentials import BasicUser
from personas_dagster.serving.errors import ApiError
from personas_dagster.serving.journal import Journal
from personas_dagster.serving.write_keys import Intake, WriteKeys

KINDS = {"identify": "i", "track": "t", "page": "p", "screen": "s", "group": "g", "alias": "a"}
BATCH_PATHS = ("/v1/batch", "/v1/import", "/v1/b", "/b")
SINGLE_PATHS = {
    path: kind
    for kind, short in KINDS.items()
    for path in (f"/v1/{kind}", f"/v1/{short}", f"/{short}")
}
SETTINGS_PATH = "/v1/projects/{write_key}/settings"
CONFIG_PATHS = ("/sourceConfig", "/sourceConfig/")
_PREFIXES = ("/v1/projects/",)
_EXACT = frozenset({*BATCH_PATHS, *SINGLE_PATHS, *CONFIG_PATHS})
_SCHEME = BasicUser("writeKey", "a source's write key as user name; or in the body: `writeKey`")
User = Annotated[str | None, Security(_SCHEME)]
_DONE = b'{"success": true}'
_BODY_SECONDS = 30.0


class Success(BaseModel):
    """The messages are on disk."""

    success: bool


def is_public(path: str) -> bool:
    """Whether a path is for browsers of any origin."""
    return path in _EXACT or path.startswith(_PREFIXES)


def router(keys: WriteKeys, journal: Journal, *, now: Callable[[], dt.datetime]) -> APIRouter:
    """The routes. `now` gives the instant at which a request was received."""
    routes = APIRouter(tags=["tracking"])

    async def take(request: Request, user: str | None, kind: str | None) -> Response:
        intake = _known(keys, user) if user is not None else None
        with journal.room() as take_room:
            packed = await _body(request, take_room)
            body = messages.unpack(packed)
            take_room(len(body))  # the lines that it becomes
            incoming = messages.read_single(body, kind) if kind else messages.read_batch(body)
            if intake is None:
                intake = _known(keys, incoming.write_key)
            lines = incoming.lines(now())
            if lines.text:
                await journal.append(intake.incoming, lines.text)
        _note(request, intake, lines)
        return Response(_DONE, media_type="application/json")

    def single(kind: str) -> Callable[[Request, str | None], Any]:
        async def endpoint(request: Request, user: User) -> Response:
            return await take(request, user, kind)

        return endpoint

    async def batch(request: Request, user: User) -> Response:
        return await take(request, user, None)

    for path in BATCH_PATHS:
        _post(routes, path, batch, "Messages of any types", _BATCH_SCHEMA)
    for path, kind in SINGLE_PATHS.items():
        _post(routes, path, single(kind), f"One {kind} message", _MESSAGE_SCHEMA)

    @routes.get(
        SETTINGS_PATH,
        summary="What Segment's browser library asks first",
        responses=errors.responses(401),
    )
    async def settings(write_key: str, request: Request) -> dict[str, Any]:
        _known(keys, write_key)
        return _segment_settings(write_key, request)

    async def config(request: Request, user: User) -> JSONResponse:
        key = user or request.query_params.get("writeKey") or ""
        return JSONResponse(_rudder_config(key, _known(keys, key)))

    for path in CONFIG_PATHS:
        routes.add_api_route(
            path,
            config,
            methods=["GET"],
            summary="What RudderStack's browser library asks first",
            responses=errors.responses(401),
            response_model=dict[str, Any],
            openapi_extra={"parameters": [_KEY_PARAMETER]},
        )
    return routes


def _post(
    routes: APIRouter, path: str, endpoint: Any, summary: str, schema: dict[str, Any]
) -> None:
    routes.add_api_route(
        path,
        endpoint,
        methods=["POST"],
        summary=summary,
        description="JSON, whatever its content type says, plain or gzip. At most "
        f"{messages.MAX_BODY // 1024} KiB, and {messages.MAX_MESSAGE // 1024} KiB a message.",
        response_model=Success,
        responses=errors.responses(400, 401, 408, 429, 503),
        openapi_extra={
            "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        },
    )


_KEY = {"type": "string", "description": "the write key, where no Basic user name is"}
_KEY_PARAMETER = {"name": "writeKey", "in": "query", "required": False, "schema": _KEY}
_MESSAGE_SCHEMA: dict[str, Any] = {
    "type": "object",
    "description": "a message in the Segment spec; a bad one is kept as rejected when it is loaded",
    "properties": {"writeKey": {"description": _KEY["description"]}},
}
_BATCH_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["batch"],
    "properties": {
        "batch": {"type": "array", "items": {"description": "a message with its `type`"}},
        "sentAt": {"description": "the sender's clock, for all messages"},
        "context": {"description": "for all messages; their own goes first"},
        "integrations": {"description": "for all messages; their own goes first"},
        "writeKey": {"description": _KEY["description"]},
    },
}


def _known(keys: WriteKeys, key: str | None) -> Intake:
    intake = keys.find(key)
    if intake is None:
        raise ApiError(401, "the write key is unknown" if key else "there is no write key")
    return intake


async def _body(request: Request, take_room: Callable[[int], None]) -> bytes:
    parts, size = list[bytes](), 0
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for part in request.stream():
                size += len(part)
                messages.check_size(size)
                take_room(len(part))
                parts.append(part)
    except TimeoutError as error:
        raise ApiError(408, "the body did not arrive in time; send it again") from error
    except ClientDisconnect as error:
        raise ApiError(400, "the connection ended before the body did") from error
    return b"".join(parts)


def _note(request: Request, intake: Intake, lines: messages.Lines) -> None:
    metrics.MESSAGES.labels(intake.space, intake.source).inc(lines.messages)
    facts = {"space": intake.space, "source": intake.source, "messages": lines.messages}
    if lines.refused:
        metrics.REFUSED.labels(intake.space, intake.source, MESSAGE_TOO_LARGE).inc(lines.refused)
        facts["refused"] = lines.refused
    request.state.facts.update(facts)


def _segment_settings(write_key: str, request: Request) -> dict[str, Any]:
    """Settings without other integrations; messages go to where the settings came from."""
    own = {
        "apiKey": write_key,
        "apiHost": f"{request.url.netloc}/v1",
        "protocol": request.url.scheme,
    }
    return {
        "integrations": {"Segment.io": own},
        "plan": {"track": {"__default": {"enabled": True, "integrations": {}}}},
        "metrics": {"sampleRate": 0},
    }


def _rudder_config(write_key: str, intake: Intake) -> dict[str, Any]:
    off = {"enabled": False}
    return {
        "source": {
            "id": f"{intake.space}.{intake.source}",
            "name": intake.name,
            "writeKey": write_key,
            "enabled": True,
            "workspaceId": intake.space,
            "config": {"statsCollection": {"errors": off, "metrics": off}},
            "destinations": [],
            "connections": [],
        },
        "updatedAt": "1970-01-01T00:00:00.000Z",
    }
