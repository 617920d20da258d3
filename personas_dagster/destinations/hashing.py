"""Identifiers as advertising platforms want them: normalised, then SHA-256 in hex. Pure.

What is a hash already (64 hex digits) is passed on as it is. None stands for what cannot be one.
"""

from __future__ import annotations

import re
from hashlib import sha256

_HASH = re.compile(r"[0-9a-f]{64}")
_DEVICE = re.compile(r"[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")
_ADDRESS = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s]+")
_FEWEST_DIGITS, _MOST_DIGITS = 7, 15


def is_hash(text: str) -> bool:
    return _HASH.fullmatch(text) is not None


def hashed(text: str) -> str:
    """
    >>> hashed("ann@example.com")[:8]
    'f4d9a2a9'
    """
    return text if is_hash(text) else sha256(text.encode()).hexdigest()


def email(text: str) -> str | None:
    """Without white space, in lower case.

    >>> email(" Ann@Example.com"), email("nobody")
    ('ann@example.com', None)
    """
    plain = re.sub(r"\s", "", text).lower()
    return plain if _ADDRESS.fullmatch(plain) or is_hash(plain) else None


def phone(text: str, country_code: str | None = None) -> str | None:
    """Digits with the country code, which a number has that begins with + or 00; no zeros before.

    >>> phone("+49 (30) 123-456"), phone("030 123456", "49"), phone("4930123456"), phone("none")
    ('4930123456', '4930123456', '4930123456', None)
    """
    plain = text.strip().lower()
    if is_hash(plain):
        return plain
    digits = re.sub(r"\D", "", plain)
    is_whole = plain.startswith("+") or digits.startswith("00") or country_code is None
    found = digits.lstrip("0") if is_whole else f"{country_code}{digits.lstrip('0')}"
    return found if _FEWEST_DIGITS <= len(found) <= _MOST_DIGITS else None


def device(text: str) -> str | None:
    """A mobile advertising id in lower case; not the one of all zeros, which says nothing.

    >>> device("AB12CD34-0000-4000-8000-1234567890AB"), device("AB-12")
    ('ab12cd34-0000-4000-8000-1234567890ab', None)
    """
    plain = text.strip().lower()
    return plain if _DEVICE.fullmatch(plain) and set(plain) - {"0", "-"} else None
