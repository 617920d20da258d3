"""What a client shows to say who it is: the parts of an `Authorization` header."""

from __future__ import annotations

import base64
import binascii


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
