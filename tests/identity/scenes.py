"""What goes wrong in real shops, as streams from a seed: each scene is a known way to blur people.

Every stream mixes all scenes, so that they meet: the kiosk's id is also in the late bridge.
"""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Iterator
from typing import Any

from tests.identity.graph import START, Message

Fields = dict[str, Any]
MINUTE, DAY = 60, 86_400


def scene_stream(seed: int, rng: random.Random) -> list[Message]:
    """One stream, in order of receivedAt; many messages have equal instants."""
    parts = [shared_device, team_mailbox, logout_without_reset, late_bridge, twice, expiring]
    told: list[tuple[int, Fields]] = []
    for part in parts:
        start = rng.choice([0, 0, DAY, 9 * DAY])
        told += [(start + at, fields) for at, fields in part(f"{seed}", rng)]
    told.sort(key=lambda one: one[0])  # stable: equal instants stay as the scenes told them
    return [
        {
            "messageId": f"{rng.randrange(16**4):04x}-{seed}-{number}",
            "type": "track",
            "receivedAt": START + dt.timedelta(seconds=at),
            **fields,
        }
        for number, (at, fields) in enumerate(told)
    ]


def shared_device(name: str, rng: random.Random) -> Iterator[tuple[int, Fields]]:
    """A tablet in a shop: many log in on it, some without a trace in between."""
    for visitor in range(rng.randint(3, 6)):
        at = visitor * rng.choice([0, 10 * MINUTE, DAY])
        yield at, {"anonymousId": f"tablet-{name}"}
        yield at, {"anonymousId": f"tablet-{name}", "userId": f"v{visitor % 4}-{name}"}
        device = {"type": "ios", "id": f"dev-{name}", "token": f"t{visitor % 2}-{name}"}
        yield at + 1, {"userId": f"v{visitor % 4}-{name}", "context": {"device": device}}


def team_mailbox(name: str, rng: random.Random) -> Iterator[tuple[int, Fields]]:
    """Colleagues who all give the team's address, some of them their own as well."""
    for person in range(rng.randint(3, 7)):
        listed = [{"id": f"Team-{name}@x.com", "type": "email"}]
        if rng.random() < 0.5:
            listed.insert(rng.randint(0, 1), {"id": f"p{person}-{name}@x.com", "type": "email"})
        yield person * DAY, {"userId": f"p{person}-{name}", "context": {"externalIds": listed}}
        yield person * DAY, {"properties": {"email": f" team-{name}@x.com"}}


def logout_without_reset(name: str, rng: random.Random) -> Iterator[tuple[int, Fields]]:
    """The anonymous id outlives a logout; the next user comes with it."""
    anonymous = f"tab-{name}"
    for turn in range(rng.randint(2, 5)):
        user = f"r{rng.randrange(3)}-{name}"
        yield turn * MINUTE, {"anonymousId": anonymous, "userId": user}
        yield turn * MINUTE, {"anonymousId": anonymous}
        yield turn * MINUTE + 1, {"anonymousId": f"{anonymous}-{turn}", "userId": user}


def late_bridge(name: str, rng: random.Random) -> Iterator[tuple[int, Fields]]:
    """Two profiles grow for long; then one message names an identifier of each."""
    sizes = [rng.randint(2, 9), rng.randint(2, 9)]
    for side, size in zip("lr", sizes, strict=True):
        for number in range(size):
            kind = rng.choice(["phone", "card"])
            listed = [{"id": f"{side}{number}-{name}", "type": kind}]
            yield number * DAY, {"anonymousId": f"{side}{number % 4}-{name}",
                                 "context": {"externalIds": listed}}  # fmt: skip
            yield number * DAY, {"anonymousId": f"{side}{number % 4}-{name}",
                                 "properties": {"email": f"{side}-{name}@x.com"}}  # fmt: skip
    both = [{"id": f"{side}-{name}@x.com", "type": "email"} for side in "lr"]
    yield 10 * DAY, {"context": {"externalIds": both}, "anonymousId": f"tablet-{name}"}
    yield 10 * DAY, {"anonymousId": f"l0-{name}", "context": {"externalIds": both[1:]}}


def twice(name: str, rng: random.Random) -> Iterator[tuple[int, Fields]]:
    """The same value in several places of one message, in other spellings, and as two types."""
    email = f"Twice-{name}@x.com"
    listed = [{"id": email.upper(), "type": "email"}, {"id": email, "type": "phone"},
              {"id": f"w-{name}", "type": "user_id"}]  # fmt: skip
    yield 0, {"userId": f"w-{name}", "properties": {"email": email},
              "context": {"traits": {"email": f" {email}"}, "externalIds": listed}}  # fmt: skip
    yield 0, {"userId": email, "anonymousId": email}
    yield rng.choice([0, DAY]), {"userId": f"w-{name}", "properties": {"email": email.lower()}}


def expiring(name: str, rng: random.Random) -> Iterator[tuple[int, Fields]]:
    """New devices at the edges of windows: a moment before, at, and after they end."""
    at = 0
    for number in range(rng.randint(4, 9)):
        at += rng.choice([0, DAY - 1, DAY, DAY + 1, 7 * DAY - 1, 7 * DAY, 30 * DAY])
        yield at, {"userId": f"x-{name}", "anonymousId": f"x{number % 7}-{name}"}
