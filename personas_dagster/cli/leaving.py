"""How a command's process ends: at once, when all that others asked for at its end is done.

Python takes down modules and objects one by one before it ends, which after a refresh takes a
second and a half. Nothing here needs that: files and connections are closed before. What a tool
that starts with Python itself (such as coverage) asks for at the end is not called.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress

_codes: list[int] = []


def at_once(code: int) -> None:
    """Let the process end with `code` as soon as the functions of `atexit` were called."""
    _codes.append(code)


@atexit.register  # before our libraries ask for anything, so called after what they ask for
def _leave() -> None:
    if not _codes:
        return
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # closed, by us or by whoever read it
            stream.flush()
    os._exit(_codes[-1])
