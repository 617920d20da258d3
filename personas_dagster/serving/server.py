"""Running the application: uvicorn, one process or several, until it is told to end.

Worker processes are started anew, so what they need to know is handed over in the environment.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import msgspec
import uvicorn

from personas_dagster.project.loader import load_project
from personas_dagster.serving import logs
from personas_dagster.spaces import Space, open_space

if TYPE_CHECKING:
    from fastapi import FastAPI

_HANDED = "PERSONAS_SERVE"
_GRACE_SECONDS = 30


@dataclass(frozen=True)
class Settings:
    """What is served, and where."""

    root: str
    spaces: tuple[str, ...] = ()  # none: all of the project
    host: str = "127.0.0.1"
    port: int = 8080
    workers: int = 1
    quiet: bool = False


def open_spaces(root: Path, names: Sequence[str] = ()) -> dict[str, Space]:
    """The spaces that are served, by name: the given ones, else all."""
    project = load_project(root)
    return {name: open_space(project, name) for name in names or sorted(project.spaces)}


def application() -> FastAPI:
    """The application as `run` described it in the environment: what each worker starts with."""
    from personas_dagster.serving.app import build

    settings = msgspec.json.decode(os.environ[_HANDED], type=Settings)
    logs.configure(logging.WARNING if settings.quiet else logging.INFO)
    return build(open_spaces(Path(settings.root), settings.spaces))


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
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
