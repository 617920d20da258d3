"""The ASGI application of a project's spaces, put together from its parts.

What belongs here: which routers there are, and what surrounds them all. `server` runs it.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial

from fastapi import FastAPI

from personas_dagster import __version__
from personas_dagster.serving import (
    definitions_api,
    deletion_api,
    errors,
    openapi,
    operations,
    profile_api,
    tracking,
    write_keys,
)
from personas_dagster.serving.authority import Authority
from personas_dagster.serving.cross_origin import CrossOrigin
from personas_dagster.serving.journal import Journal
from personas_dagster.serving.staleness import Staleness
from personas_dagster.serving.write_keys import WriteKeys
from personas_dagster.spaces import Space

METRICS_TOKEN = "PERSONAS_METRICS_TOKEN"


def build(
    spaces: Mapping[str, Space],
    *,
    keys: WriteKeys | None = None,
    journal: Journal | None = None,
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC),
    metrics_token: str | None = None,
) -> FastAPI:
    """The application for these spaces, by name. `keys` are by default read from their sources.

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
    journal = journal or Journal()
    app.state.parts.append(journal)
    app.state.readiness.append(journal.unready)
    keys = write_keys.read(spaces)[0] if keys is None else keys
    app.include_router(tracking.router(keys, journal, now=now))
    authority = Authority(spaces)
    app.include_router(profile_api.router(authority, Staleness(now)))
    app.include_router(definitions_api.router(authority, now=now))
    app.include_router(deletion_api.router(authority, now=now))
    app.openapi = partial(openapi.describe, app)  # type: ignore[method-assign]
    app.add_middleware(CrossOrigin)
    app.add_middleware(operations.Operations)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open while the server runs; at its end every part finishes what it accepted."""
    async with AsyncExitStack() as stack:
        for part in app.state.parts:
            await stack.enter_async_context(part)
        yield
