"""What surrounds every request: its id, its log line, its numbers, and a last answer to errors."""

from __future__ import annotations

import hashlib
import hmac
import logging
import time
from typing import Any
from uuid import uuid4

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from personas_dagster.serving import errors, logs, metrics
from personas_dagster.serving.credentials import presented

UNKNOWN_ROUTE = "other"
_METHODS = frozenset("GET HEAD POST PUT PATCH DELETE OPTIONS".split())


class Operations:
    """The outermost layer. `request.state.request_id` is the id; `request.state.facts` (a dict)
    is logged with the request: put numbers and names of declarations there, nothing personal.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id, facts, status = uuid4().hex, dict[str, Any](), 0
        scope.setdefault("state", {}).update(request_id=request_id, facts=facts)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"request-id", request_id.encode()),
                ]
            await send(message)

        began = time.perf_counter()
        try:
            await self.app(scope, receive, sending)
        except Exception as error:
            facts_of = logs.exception(error)
            logs.tell("failed", level=logging.ERROR, request_id=request_id, **facts_of)
            if not status:
                await errors.answer(errors.translate(error))(scope, receive, sending)
        finally:
            self._note(scope, status, time.perf_counter() - began, request_id, facts)

    def _note(
        self, scope: Scope, status: int, seconds: float, request_id: str, facts: dict[str, Any]
    ) -> None:
        route = getattr(scope.get("route"), "path", UNKNOWN_ROUTE)
        method = scope["method"] if scope["method"] in _METHODS else "other"
        metrics.REQUESTS.labels(method, route, str(status)).inc()
        metrics.SECONDS.labels(route).observe(seconds)
        if logs.LOGGER.isEnabledFor(logging.INFO):
            logs.tell(
                "request",
                request_id=request_id,
                method=method,
                route=route,
                status=status,
                milliseconds=round(seconds * 1000, 2),
                **facts,
            )


def router(metrics_token: str | None) -> APIRouter:
    """Health, readiness (both open) and metrics (with a token of their own)."""
    routes = APIRouter(tags=["operations"])
    expected = hashlib.sha256(metrics_token.encode()).digest() if metrics_token else None

    @routes.get("/healthz", summary="The process lives")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @routes.get("/readyz", summary="It can take requests", responses=errors.responses(503))
    def readyz(request: Request) -> Response:
        wrong = [why for check in request.app.state.readiness if (why := check())]
        if wrong:
            raise errors.ApiError(503, "; ".join(wrong))
        return JSONResponse({"status": "ok"})

    @routes.get(
        "/metrics",
        summary="Numbers for Prometheus",
        responses=errors.responses(401) | {200: {"content": {"text/plain": {}}}},
        response_class=Response,
    )
    def numbers(request: Request) -> Response:
        given = presented(request.headers.get("authorization"))
        found = hashlib.sha256((given or "").encode()).digest()
        if expected is None or not hmac.compare_digest(found, expected):
            raise errors.ApiError(
                401, "metrics need the token that the server has in PERSONAS_METRICS_TOKEN"
            )
        text, kind = metrics.exposition()
        return Response(text, headers={"Content-Type": kind})

    return routes
