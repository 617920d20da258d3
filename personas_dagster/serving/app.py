"""The ASGI application of a project's spaces, put together from its parts.

What belongs here: which routers there are, and what surrounds them all. `server` runs it.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from fastapi import FastAPI

from personas_dagster import __version__
from personas_dagster.serving import errors, operations
from personas_dagster.spaces import Space

METRICS_TOKEN = "PERSONAS_METRICS_TOKEN"


def build(spaces: Mapping[str, Space], *, metrics_token: str | None = None) -> FastAPI:
    """The application for these spaces, by name.

    `app.state.readiness` is a list of functions that say in one line why the application cannot
    take requests now, or None; a part that has something to check adds its own.
    `app.state.parts` is a list of asynchronous context managers, open while the server runs: what
    a part must finish before the process ends, it does when it is left.
    """
    app = FastAPI(
        title="Personas",
        version=__version__,
        description="Messages in over HTTP, profiles out.",
        lifespan=_lifespan,
        redirect_slashes=False,
        docs_url=None,
        redoc_url=None,
    )
    app.state.readiness = list[Callable[[], str | None]]()
    app.state.parts = list[AbstractAsyncContextManager[object]]()
    errors.add_to(app)
    app.include_router(operations.router(metrics_token or os.environ.get(METRICS_TOKEN)))
    # Each surface adds its router here.
    app.add_middleware(operations.Operations)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open while the server runs; at its end every part finishes what it accepted."""
    async with AsyncExitStack() as stack:
        for part in app.state.parts:
            await stack.enter_async_context(part)
        yield
