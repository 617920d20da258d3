"""Running the application: uvicorn, one process or several, until it is told to end.

Worker processes are started anew, so what they need to know is handed over in the environment.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import msgspec
import uvicorn

from personas_dagster.errors import PersonasError
from personas_dagster.project.loader import load_project
from personas_dagster.serving import logs, write_keys
from personas_dagster.spaces import Space, open_space

if TYPE_CHECKING:
    from fastapi import FastAPI

_HANDED = "PERSONAS_SERVE"
_PARENT = "PERSONAS_SERVER_PARENT"
_GRACE_SECONDS = 30
_START_SECONDS = 120  # a worker that does not answer for so long is replaced
_KEEP_ALIVE_SECONDS = 75  # longer than the minute that load balancers keep a connection


@dataclass(frozen=True)
class Settings:
    """What is served, and where."""

    root: str
    spaces: tuple[str, ...] = ()  # none: all of the project
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    allow_missing_keys: bool = False
    quiet: bool = False


def open_spaces(root: Path, names: Sequence[str] = ()) -> dict[str, Space]:
    """The spaces that are served, by name: the given ones, else all."""
    project = load_project(root)
    return {name: open_space(project, name) for name in names or sorted(project.spaces)}


def application() -> FastAPI:
    """The application as `run` described it in the environment: what each worker starts with."""
    from personas_dagster.serving.app import build

    settings = msgspec.json.decode(os.environ[_HANDED], type=Settings)
    if settings.workers > 1:
        parent = int(os.environ[_PARENT])  # it may have been killed while this worker started
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    logs.configure(logging.WARNING if settings.quiet else logging.INFO)
    spaces = open_spaces(Path(settings.root), settings.spaces)
    keys, _ = write_keys.read(spaces, allow_missing=settings.allow_missing_keys)
    return build(spaces, keys=keys)


def prepare(settings: Settings) -> list[str]:
    """Look at everything that must be there, so that one error is told and not one per worker.

    Returns the write keys that are missing, if that is allowed.
    """
    spaces = open_spaces(Path(settings.root), settings.spaces)
    keys, missing = write_keys.read(spaces, allow_missing=settings.allow_missing_keys)
    for intake in keys.intakes:
        try:
            intake.incoming.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise PersonasError(f"{intake.incoming}: cannot be made: {error.strerror}") from error
    return missing


def run(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then finish what was accepted.

    With several workers, SIGHUP replaces them one after the other: they read the declarations
    and secrets anew.
    """
    logs.configure(logging.WARNING if settings.quiet else logging.INFO)
    signal.signal(signal.SIGTERM, _end)  # uvicorn raises it again when it is done
    os.environ[_HANDED] = msgspec.json.encode(settings).decode()
    with tempfile.TemporaryDirectory(prefix="personas-metrics-") as folder:
        if settings.workers > 1:
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = folder
            os.environ[_PARENT] = str(os.getpid())
        uvicorn.run(
            f"{application.__module__}:{application.__name__}",
            factory=True,
            host=settings.host,
            port=settings.port,
            workers=settings.workers,
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            timeout_worker_healthcheck=_START_SECONDS,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )


def _end_with(parent: int) -> None:
    """A worker whose parent was killed ends as if it had been told to: nobody else would."""
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
