"""Messages to request bodies, and their signature. Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from pydantic import SecretStr

SIGNATURE = "X-Signature"


def body(bodies: Sequence[Mapping[str, Any]], *, batched: bool) -> bytes:
    """One message as an object, several as `{"batch": [...]}`."""
    return msgspec.json.encode({"batch": bodies} if batched else bodies[0])


def signature(content: bytes, secret: SecretStr) -> str:
    """HMAC-SHA256 of the whole body as it is sent, in lower-case hex."""
    return hmac.new(secret.get_secret_value().encode(), content, hashlib.sha256).hexdigest()
