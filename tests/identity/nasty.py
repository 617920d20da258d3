"""Streams that bring out what identity graphs get wrong, from a seed."""

from __future__ import annotations

import datetime as dt
import random
import re
from typing import Any

from personas_dagster.identity.rules import DEFAULT_BLOCKED, WINDOWS, IdentityRules, TypeRule
from tests.identity.graph import START, Message

RULES = {
    "defaults": IdentityRules(),
    "windows": IdentityRules(
        types={
            "anonymous_id": TypeRule(None, 2, "day"),
            "email": TypeRule(2, 2, "week"),
            "phone": TypeRule(None, 1, "month"),
        },
        keys={"phone": ("phone_number",)},
    ),
    "one of each": IdentityRules(
        types={
            kind: TypeRule(None, 1)
            for kind in ("anonymous_id", "email", "ios.id", "android.id", "group_id", "phone")
        },
        keys={"phone": ("phoneNumber",)},
        cross_domain_id=True,
    ),
    "caps": IdentityRules(max_merges=1, max_identifiers=4),
    "upside down": IdentityRules(
        types={
            "anonymous_id": TypeRule(1, 1, "week"),
            "user_id": TypeRule(9, 2, "day"),
            "group_id": TypeRule(2, 3),
        },
        keys={"user_id": ("member_id",), "group_id": ("company",)},
    ),
    "aliases merge": IdentityRules(
        alias="merge",
        types={"user_id": TypeRule(1, 2, "week"), "anonymous_id": TypeRule(None, 3)},
        blocked={"*": (*DEFAULT_BLOCKED, re.compile(r"\bguest\b")), "email": ("team@x.com",)},
        keys={"phone": ("phone", "tel-nr")},
        cross_domain_id=True,
    ),
}
_GAPS = (0, 0, 0, 1, 60, 3600, 43_200, 86_400, 3 * 86_400, 8 * 86_400, 31 * 86_400)
_BLOCKED = ("null", "-1", "000-000", "anonymous", " ", "guest 1", "team@x.com")


_KINDS = (
    *("user_id", "anonymous_id", "email", "group_id", "phone", "loyalty"),
    *("ios.id", "android.id", "cross_domain_id", "ga_client_id"),
)
_KEYS = {
    "phone": ("phone_number", "phoneNumber", "phone", "tel-nr"),
    "user_id": ("member_id",),
    "group_id": ("company",),
}


def chance_rules(rng: random.Random) -> IdentityRules:
    """Rules that nobody thought of."""
    types = {
        kind: TypeRule(
            rng.choice([None, None, 1, 2, 3, 9]), rng.randint(1, 4), rng.choice([*WINDOWS])
        )
        for kind in _KINDS
        if rng.random() < 0.6
    }
    blocked = {"*": DEFAULT_BLOCKED, "email": ("team@x.com",), "phone": (re.compile("2$"),)}
    return IdentityRules(
        types=types,
        blocked={kind: entries for kind, entries in blocked.items() if rng.random() < 0.7},
        keys={
            kind: tuple(rng.sample(names, rng.randint(1, len(names))))
            for kind, names in _KEYS.items()
            if rng.random() < 0.5
        },
        cross_domain_id=rng.random() < 0.5,
        alias=rng.choice(["ignore", "merge"]),
        max_merges=rng.choice([1, 2, 5, 100]),
        max_identifiers=rng.choice([2, 4, 8, 1_000]),
    )


def world(seed: int, rng: random.Random, length: int) -> list[Message]:
    """The messages of a few people who share too much, in order of receivedAt."""
    return _World(seed, rng).messages(length)


class _World:
    def __init__(self, seed: int, rng: random.Random) -> None:
        self._seed, self._rng = seed, rng

    def _value(self, kind: str, pool: int) -> Any:
        """One of a few values; now and then in an odd spelling, blocked, or of no use."""
        rng, number = self._rng, self._rng.randrange(pool)
        odd = rng.random()
        if odd < 0.03:
            return rng.choice(_BLOCKED)
        if odd < 0.05:
            return rng.choice([True, None, [], {"id": 1}, "", "\u2003"])
        if kind == "number":
            value = self._seed * 100 + number
            return rng.choice([value, float(value), str(value), f" {value}", value + 0.5])
        text = f"{kind}{number}-{self._seed}"
        if kind == "e":
            text = f"{'ÄİẞE'[number]}{number}@W{self._seed}.com"
            text = rng.choice([text, text.upper(), text.lower()])
        elif number == 0 and kind in "bdnt":
            text = rng.choice(['q"', "b\\", "ü\x07", "'"]) + text
        return rng.choice(["", "", "", " ", "\u00a0\t", "\u3000", "\x1f"]) + text

    def messages(self, length: int) -> list[Message]:
        rng, at = self._rng, START
        made = []
        # In half of the worlds two groups of people live apart, and are bridged late.
        apart = rng.random() < 0.5
        for number in range(length):
            at += dt.timedelta(seconds=rng.choice(_GAPS))
            sides = "-" if not apart else "xy" if number > length * 0.7 else rng.choice("xy")
            kind = rng.choices(
                ["track", "identify", "group", "alias", "page"], [5, 4, 1, 1, 1]
            )[0]  # fmt: skip
            made.append(self._message(number, kind, at, sides))
        return made

    def _message(self, number: int, kind: str, at: dt.datetime, sides: str) -> Message:
        rng = self._rng
        message: Message = {
            "messageId": f"{rng.randrange(16**4):04x}-{self._seed}-{number}",
            "type": kind,
            "receivedAt": at,
            "source": rng.choice(["web", "ios"]),
        }
        context: dict[str, Any] = {}
        traits: dict[str, Any] = {}
        properties: dict[str, Any] = {}
        if rng.random() < 0.4 or kind == "alias":
            message["userId"] = self._plain("u" + rng.choice(sides), 2)
        if rng.random() < 0.6:
            message["anonymousId"] = self._plain("a" + rng.choice(sides), 4)
        if kind == "alias":
            message["previousId"] = self._plain(rng.choice("ua") + rng.choice(sides), 3)
        if kind == "group":
            message["groupId"] = f"g{rng.randrange(3)}-{self._seed}"
        elif rng.random() < 0.2:
            context["groupId"] = f" g{rng.randrange(3)}-{self._seed}"
        for place, share in ((traits, 0.4), (properties, 0.1)):
            if rng.random() < share:
                place["email"] = self._value("e", 3)
            if rng.random() < 0.2:
                key = rng.choice(["phone_number", "phoneNumber", "phone", "tel-nr", "telNr"])
                place[key] = self._value("number", 3)
            if rng.random() < 0.1:
                place[rng.choice(["memberId", "member_id", "company"])] = self._value("u", 3)
            if rng.random() < 0.1:
                place["crossDomainId"] = self._value("x", 3)
        if rng.random() < 0.2:
            context["traits"] = rng.choice(
                [{"email": self._value("e", 3)}, {"crossDomainId": self._value("x", 3)},
                 {"phone_number": self._value("number", 3)}, "none", []]
            )  # fmt: skip
        if rng.random() < 0.2:
            context["device"] = {
                "type": rng.choice(["ios", "iOS", "Android", "tv", 5]),
                "id": self._value("d", 2),
                "advertisingId": self._value("ad", 2),
                "adTrackingEnabled": rng.choice([True, True, False, "true"]),
                "token": self._value("t", 3),
            }
        if rng.random() < 0.1:
            context["integrations"] = {"Google Analytics": {"clientId": self._value("ga", 2)}}
        if rng.random() < 0.1:
            context["Braze"] = {"braze_id": self._value("b", 2)}
        if rng.random() < 0.2:
            context["externalIds"] = [self._external() for _ in range(rng.randrange(4))]
        for name, found in (("context", context), ("traits", traits), ("properties", properties)):
            if found:
                message[name] = found
        return message

    def _plain(self, kind: str, pool: int) -> Any:
        """`userId` and the like are strings or numbers: `events` refuses the rest."""
        value = self._value(kind, pool)
        return value if isinstance(value, str) and value else f"{kind}-{self._seed}"

    def _external(self) -> Any:
        rng = self._rng
        kind = rng.choice(["phone", "loyalty", "user_id", "email", "group_id", "zz"])
        entry: dict[str, Any] = {"id": self._value("number" if kind == "phone" else "n", 3),
                                 "type": kind}  # fmt: skip
        if rng.random() < 0.8:
            entry["collection"] = rng.choice(["users", "users", "accounts"])
        if rng.random() < 0.8:
            entry["encoding"] = rng.choice(["none", "none", "none", "hash"])
        return rng.choice([entry, entry, entry, entry, {"id": "no type"}, "text", None])
