"""What a client shows to say who it is: the parts of an `Authorization` header."""

from __future__ import annotations

import base64
import binascii

from fastapi import Request
from fastapi.openapi.models import HTTPBase
from fastapi.security.base import SecurityBase


class BasicUser(SecurityBase):
    """The user name of Basic as a dependency (None without one), described in OpenAPI."""

    def __init__(self, scheme_name: str, description: str) -> None:
        self.model = HTTPBase(scheme="basic", description=description)
        self.scheme_name = scheme_name

    async def __call__(self, request: Request) -> str | None:
        return basic_user(request.headers.get("authorization"))


def basic_user(header: str | None) -> str | None:
    """The user name of Basic; None when there is none."""
    return presented(header) if (header or "").strip().lower().startswith("basic") else None


def presented(header: str | None) -> str | None:
    """The user name of Basic, or the token of Bearer; None when there is neither."""
    scheme, _, rest = (header or "").strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return rest or None
    if scheme.lower() != "basic":
        return None
    try:
        text = base64.b64decode(rest + "=" * (-len(rest) % 4), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, ValueError):
        return None
    return text.partition(":")[0] or None
