"""Browsers of any origin may use the Tracking API, and nothing else."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from personas_dagster.serving.tracking import is_public

_DAY = 86_400


class CrossOrigin:
    """Preflights and headers for the paths that browsers send messages to."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._open = CORSMiddleware(
            app,
            allow_origins=["*"],
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # answered with what the browser asks for
            expose_headers=["Request-Id", "Retry-After"],
            max_age=_DAY,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_open = scope["type"] == "http" and is_public(scope["path"])
        await (self._open if is_open else self._app)(scope, receive, send)
