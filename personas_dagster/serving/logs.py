"""Logs as JSON, one line an event, on standard error. They hold no secrets and no personal data.

What belongs here: the form. A path is logged as its route's template, an exception as its type
and where it was raised, because both carry values otherwise.
"""

from __future__ import annotations

import datetime as dt
import logging
import traceback
from typing import Any

import msgspec

LOGGER = logging.getLogger("personas.serving")


class _Lines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        facts: dict[str, Any] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(
                timespec="milliseconds"
            ),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            facts |= exception(record.exc_info[1])
        return msgspec.json.encode(facts, enc_hook=str).decode()


def exception(error: BaseException) -> dict[str, Any]:
    """The type and the places of an exception, without its text: that may quote a message."""
    frames = traceback.extract_tb(error.__traceback__)
    return {
        "exception": type(error).__name__,
        "frames": [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames[-12:]],
    }


def configure(level: int = logging.INFO) -> None:
    """Log as JSON lines from now on, the server's own events included."""
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines())
    for name in ("personas", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [handler], False
        logger.setLevel(level)
    for name in ("uvicorn.error", "uvicorn.access"):
        logging.getLogger(name).handlers = []
        logging.getLogger(name).setLevel(logging.NOTSET)


def tell(event: str, *, level: int = logging.INFO, **facts: Any) -> None:
    """Log an event with its facts."""
    LOGGER.log(level, event, extra={"facts": facts})
