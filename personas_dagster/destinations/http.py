"""The one border where HTTP's errors become the platform's, and where secrets are masked.

What belongs here: what every tool spoken to over HTTP shares. What does not: any tool's own
signals, which its `client.py` reads before it asks here.
"""

from __future__ import annotations

import datetime as dt
import logging
import re
import ssl
from collections.abc import Iterable
from email.utils import parsedate_to_datetime
from functools import cache
from urllib.parse import urlsplit

import httpx
from pydantic import SecretStr

from personas_dagster.errors import (
    DeliveryError,
    Rejected,
    Throttled,
    Unauthorized,
    Unavailable,
)

MASK = "***"
_READ, _EXCERPT = 20_000, 200
_SHORTEST_PART = 6
# 2xx is success. Statuses that speak of the address rather than of the rows leave them due.
_UNAUTHORIZED = frozenset({401, 403, 407})
_ADDRESS = frozenset({404, 405, 410, 421})
_LATER = frozenset({408, 409, 423, 425})

FOREIGN: tuple[type[Exception], ...] = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    httpx.CookieConflict,
)


class Masks:
    """Replaces the values of secrets in text that people will read."""

    def __init__(self, secrets: Iterable[SecretStr]) -> None:
        values = {part for secret in secrets for part in _parts(secret.get_secret_value())}
        self._values = sorted(values, key=len, reverse=True)

    def __call__(self, text: str) -> str:
        for value in self._values:
            text = text.replace(value, MASK)
        return text


def _parts(secret: str) -> set[str]:
    """A secret, and what of it may be repeated alone: a token after `Bearer`, an address' path."""
    parts = urlsplit(secret)
    found = {secret, f"{parts.path}?{parts.query}", *re.split(r"[/?&=\s:@]+", secret)}
    if parts.scheme and parts.hostname:
        found -= {parts.scheme, parts.hostname}
    return {part for part in found if len(part) >= _SHORTEST_PART or part == secret} - {""}


def open_client(*, timeout: float, connections: int) -> httpx.AsyncClient:
    """A client that keeps its connections, and does not log where it goes."""
    for name in ("httpx", "httpcore"):  # both log URLs, which may be secret
        logging.getLogger(name).setLevel(logging.WARNING)
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(
        timeout=httpx.Timeout(timeout), limits=limits, follow_redirects=False, verify=_trusted()
    )


@cache
def _trusted() -> ssl.SSLContext:
    """The authorities that are trusted; reading them takes longer than opening a client."""
    return httpx.create_ssl_context()


def from_exception(error: Exception, masks: Masks) -> DeliveryError:
    """What an exception of httpx means: the tool did not answer, and may later."""
    name = type(error).__name__
    said = masks(str(error)).strip()
    return Unavailable(f"no answer ({name}{': ' + said if said else ''})")


def from_response(response: httpx.Response, masks: Masks) -> DeliveryError | None:
    """What an answer means by its status alone; None when it is a success."""
    status = response.status_code
    if 200 <= status < 300:
        return None
    said = masks(response.text[:_READ]).strip()[:_EXCERPT]
    text = f"HTTP {status}{': ' + said if said else ''}"
    asked = retry_after(response.headers)
    if status == 429 or (status == 503 and asked is not None):
        return Throttled(text, asked)
    if status in _UNAUTHORIZED:
        return Unauthorized(text)
    if status in _ADDRESS or status < 400:
        return Unavailable(f"{text}; is the address right?")
    if status in _LATER or status >= 500:
        return Unavailable(text)
    return Rejected(text)


def retry_after(headers: httpx.Headers, name: str = "retry-after") -> float | None:
    """Seconds that a header asks for: a number, or a date (measured from the answer's own date)."""
    text = headers.get(name)
    if text is None:
        return None
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        until = parsedate_to_datetime(text)
        since = parsedate_to_datetime(headers["date"])
    except (KeyError, ValueError):
        return None
    return max(0.0, (_utc(until) - _utc(since)).total_seconds())


def until_reset(headers: httpx.Headers, name: str) -> float | None:
    """Seconds until an instant (Unix seconds) in a header, measured from the answer's own date."""
    try:
        until = float(headers[name])
        since = _utc(parsedate_to_datetime(headers["date"])).timestamp()
    except (KeyError, ValueError):
        return None
    return max(0.0, until - since)


def _utc(instant: dt.datetime) -> dt.datetime:
    return instant if instant.tzinfo else instant.replace(tzinfo=dt.UTC)
