"""The order of files and of lines in them changes nothing, from the files to the digests."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from personas_dagster.digests import digests
from tests.place import Place


def said(number: int, rng: random.Random) -> dict[str, Any]:
    at = f"2026-01-{1 + number % 25:02}T00:00:00Z"  # many at one instant
    message: dict[str, Any] = {
        "messageId": f"{rng.randrange(16**4):04x}-{number}",
        "type": "identify",
        "receivedAt": at,
        "timestamp": at,
        "anonymousId": f"a{rng.randrange(40)}",
    }
    if rng.random() < 0.5:
        message["userId"] = f"u{rng.randrange(25)}"
    if rng.random() < 0.4:
        message["traits"] = {"email": f"e{rng.randrange(20)}@x.com"}
    return message


def test_shuffled_files_and_lines(new_place: Callable[[], Place]) -> None:
    rng = random.Random(3)
    messages = [said(number, rng) for number in range(400)]
    found = []
    for files in (1, 7):
        place = new_place()
        place.define({"audiences/known": "trait('email').contains('x')"})
        paths = [
            place.messages(*messages[start::files], name=f"{rng.random()}.jsonl")
            for start in range(files)
        ]
        rng.shuffle(paths)
        space = place.space
        place.take(*paths, space=space)
        place.refresh(space=space)
        found.append(digests(space))
        rng.shuffle(messages)
    assert found[0] == found[1]
