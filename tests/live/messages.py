"""Messages for the live project, made by arithmetic."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def message(user: str, number: int, at: str, **more: Any) -> dict[str, Any]:
    return {
        "type": "track",
        "event": "Order Completed",
        "messageId": f"{user}-{number}-{at}",
        "userId": user,
        "timestamp": at,
        "receivedAt": at,
        "properties": {"revenue": 10 + number % 90},
        **more,
    }


def batch(number: int, *, people: int = 400, messages: int = 4_000) -> list[dict[str, Any]]:
    """One of several loads: orders, views and e-mails of people, over 20 days of February 2026."""
    found = []
    for n in range(messages):
        person = (n * 7 + number) % people
        at = f"2026-02-{1 + n % 20:02d}T{n % 24:02d}:{n % 60:02d}:{number:02d}Z"
        more: dict[str, Any] = {"anonymousId": f"device-{person}"}
        if n % 5 == 0:
            more |= {"type": "identify", "traits": {"email": f"p{person}@example.com"}}
            more |= {"event": None}
        found.append(message(f"person-{person}", n + number * messages, at, **more))
    return found


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A file that is there as a whole at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parents[1] / f"{path.name}.part"
    part.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return part.rename(path)
