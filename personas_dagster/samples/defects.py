"""What goes wrong between the sample shop and its files: retries, sentinels, broken messages.

A defect is a damaged copy of a real message; the real one stays, so that the damage shows in
what is rejected or counted, and not in the shop's figures.
"""

from collections.abc import Callable
from random import Random

import msgspec

from personas_dagster.samples.people import CLOSE, DAY, START, Json, new_id
from personas_dagster.samples.visits import HOUR, iso

SENTINELS = ("anonymous", "-1", "null", "0000")

Sent = list[tuple[int, Json]]
Lines = list[tuple[int, bytes]]


def _without_ids(message: Json, random: Random) -> Json:
    return {k: v for k, v in message.items() if k not in ("userId", "anonymousId")}


def _without_event(message: Json, random: Random) -> Json:
    damaged: Json = {k: v for k, v in message.items() if k not in ("event", "name", "traits")}
    return damaged | {"type": "track"}


def _with_properties(count: int) -> Callable[[Json, Random], Json]:
    def widen(message: Json, random: Random) -> Json:
        properties = {f"column_{number:03}": number for number in range(count)}
        return _without_event(message, random) | {"event": "Import Row", "properties": properties}

    return widen


def _before_1970(message: Json, random: Random) -> Json:
    stamp = random.choice(["1969-12-31T23:59:59.000Z", "1904-01-01T00:00:00.000Z"])
    return _on_own_clock(message) | {"timestamp": stamp}


def _in_future(message: Json, random: Random) -> Json:
    ahead = CLOSE + int(random.uniform(2, 700) * DAY)
    return _on_own_clock(message) | {"timestamp": iso(ahead)}


def _on_own_clock(message: Json) -> Json:
    return {k: v for k, v in message.items() if k not in ("originalTimestamp", "sentAt")}


def _of_nobody(message: Json, random: Random) -> Json:
    """A tag that sends its placeholder for users who are not logged in."""
    damaged: Json = message | {"userId": random.choice(SENTINELS)}
    if random.random() < 0.3:
        damaged.pop("anonymousId", None)
    return damaged


def _unknown_type(message: Json, random: Random) -> Json:
    return message | {"type": random.choice(["pageview", "Track", "delete"])}


def _nameless_group(message: Json, random: Random) -> Json:
    damaged = _without_event(message, random)
    damaged.pop("properties", None)
    return damaged | {"type": "group", "groupId": "", "traits": {"name": "No Company"}}


def _empty_account(message: Json, random: Random) -> Json:
    return message | {"context": {**message["context"], "groupId": ""}}


def _alias(message: Json, random: Random) -> Json:
    """Of somebody who is logged in; from an anonymous message it comes without its user."""
    kept = ("messageId", "userId", "context", "timestamp", "receivedAt")
    alias: Json = {k: v for k, v in message.items() if k in kept} | {"type": "alias"}
    if "anonymousId" in message:
        alias["previousId"] = message["anonymousId"]
    return alias


def _heavy(message: Json, random: Random) -> Json:
    """Over 32 KiB: accepted from a file, refused over HTTP."""
    properties = {"trace": "at shop.render (app.js:1:1)\n" * 1500}
    return _without_event(message, random) | {"event": "Error Seen", "properties": properties}


# Damaged copies per 100,000 messages; at least one of each.
_SHARES: tuple[tuple[int, Callable[[Json, Random], Json]], ...] = (
    (30, _without_ids),
    (15, _without_event),
    (2, _with_properties(301)),
    (1, _with_properties(300)),
    (8, _before_1970),
    (12, _in_future),
    (150, _of_nobody),
    (6, _unknown_type),
    (4, _nameless_group),
    (8, _empty_account),
    (15, _alias),
    (1, _heavy),
)
_LIGHT = (None, "Product Viewed")
_RETRIES = 500
_UNNUMBERED = 400
_BROKEN_LINES = 25


def with_defects(sent: Sent, seed: int) -> Lines:
    """The messages as lines of text with their instants of arrival, damaged ones among them."""
    random = Random(f"defects {seed}")
    # Copies of these change no figure of the shop when they are accepted.
    light = [(at, message) for at, message in sent if message.get("event") in _LIGHT]
    retries = _some(sent, _RETRIES, random)
    for _, message in _some(sent, _UNNUMBERED, random):  # a script of one's own sends no ids
        message.pop("messageId", None)
    for at, message in retries:
        if random.random() < 0.8:
            _arrive(sent, at + random.randrange(1_000, HOUR), message)
        else:
            _arrive(sent, at + random.randrange(3 * DAY), message)
    for share, damage in _SHARES:
        for at, message in _some(light, share, random):
            damaged = damage(message, random) | {"messageId": new_id(random)}
            sent.append((at, damaged))

    encode = msgspec.json.encode
    lines = [(at, encode(message)) for at, message in sent]
    lines += [(at, _broken(encode(m), random)) for at, m in _some(light, _BROKEN_LINES, random)]
    return lines


def _arrive(sent: Sent, at: int, message: Json) -> None:
    if START <= at < CLOSE:
        sent.append((at, message | {"receivedAt": iso(at)}))


def _some(sent: Sent, share: int, random: Random) -> Sent:
    return random.choices(sent, k=max(1, len(sent) * share // 100_000)) if sent else []


def _broken(line: bytes, random: Random) -> bytes:
    return random.choice(
        [
            line[: random.randrange(1, len(line) - 1)],
            b"<html><body>502 Bad Gateway</body></html>",
            line.replace(b'"', b"'"),
            line.replace(b'"type"', b'"typ\xe9"', 1),  # Latin-1 in a file of UTF-8
            b"[]",
        ]
    )
