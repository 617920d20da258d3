"""Random worlds and random queries, from a seed: small, and full of ties, edges and odd values."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from personas_dagster.query import Definition
from tests.query.oracle import Message, Profile, World

START = datetime(2024, 3, 1, tzinfo=UTC)
EVENTS = ("Added", "Ordered", "Left")
_ODD = (
    *(1, 2, 2.0, 15, 15.0, 1.5, -3, 0, 0.1, 0.2, 2.5e-7, 123456789.25, 2**53 + 1, 1e21),
    *("1", "2.0", "15", "-3", "1e5", "1e21", "1000000000000000000000", "2.5e-7", "-0", " 5"),
    *("+2", "", "a", "ab", "abc", "A", "true", "null", "é😀"),
    *('say "hi"', "back\\slash", "line\nbreak", "it's", "[1,2]", "{}"),
    *(True, False, None, [], [1, 2.0, None], ["a", "1.0,"], {"k": 1.0}, {"k": "a", "z": [2.50]}),
    *("2024-03-03", "2024-03-02T10:30:00Z", "2024-03-03T00:30:00+02:00", "2024-03-04 05:00"),
    *("2024-02-30", "2024-03-02T10:30", "2024-03-02T10:30:00.25", "2024-3-2"),
)
_PLAIN = ("a", "ab", "b", 1, 2, 3, "2", 2.5)
_PATHS = ("n", "s", "o.k", "l.$", "l", "items.$.sku", "items.$.tags.$", "items.$", "o", r"x\\\\.y")
_TRAITS = ("n", "s", "o.k", "l.$", "missing", "member")
AUDIENCES = frozenset({"member"})  # stored, without a definition
_LITERALS = (
    *("1", "2", "15", "1.5", "-3", "0", "true", "false", "2024-03-03", "2024-03-02T10:30:00Z"),
    *("'a'", "'ab'", "'b'", "'1'", "'2.0'", "''", "'true'", "'[1,2]'", r"'it\'s'", r"'\\'"),
    *("'2024-03-03'", "'2024-03-02T10:30'", "'é'"),
)


def world(random: Random) -> World:
    made = World()
    users = [f"u{index}" for index in range(random.randint(1, 5))]
    accounts = [f"a{index}" for index in range(random.randint(0, 3))]
    for name in users:
        flags = random.choice([(True, False), (True, True), (False, True), (False, False)])
        made.profiles.append(Profile("users", name, *flags))
        made.traits["users", name] = _traits(random)
    for name in accounts:
        made.profiles.append(Profile("accounts", name, False, False))
        made.traits["accounts", name] = _traits(random)
        made.links |= {(user, name) for user in users if random.random() < 0.4}
    for index in range(random.choice([0, 10, 60, 60])):
        made.messages.append(_message(random, users, index))
    return made


def _traits(random: Random) -> dict[str, Any]:
    found: dict[str, Any] = _document(random, ("n", "s", "o", "l"))
    if random.random() < 0.5:
        found["member"] = random.choice([True, False])
    return found


def _message(random: Random, users: list[str], index: int) -> Message:
    stamp = START + timedelta(minutes=30 * random.randint(0, 240))
    if random.random() < 0.1:
        stamp += timedelta(microseconds=random.choice([-1, 1]))
    return Message(
        event=random.choice(EVENTS),
        profile=random.choice(users),
        timestamp=stamp,
        message_id=f"m{index * 7 % 61}",
        properties=_document(random, ("n", "s", "o", "l", "items", "x.y")),
        context=random.choice([None, {"n": random.choice(_ODD), "o": {"k": "a"}}]),
        received_at=START + timedelta(minutes=30 * random.randint(0, 3)),
        source_id=random.choice(["web", "app", None]),
    )


def _document(random: Random, keys: Sequence[str]) -> Any:
    return {key: _under(random, key) for key in keys if random.random() < 0.7}


def _under(random: Random, key: str) -> Any:
    if random.random() < 0.15:
        return random.choice(_ODD)
    if key == "o":
        return {"k": _scalar(random)}
    if key == "l":
        return [_scalar(random) for _ in range(random.randint(0, 3))]
    if key == "items":
        return [_document(random, ("sku", "tags")) for _ in range(random.randint(0, 3))]
    if key == "tags":
        return [_scalar(random) for _ in range(random.randint(0, 2))]
    return _scalar(random)


def _scalar(random: Random) -> Any:
    return random.choice(_PLAIN if random.random() < 0.6 else _ODD)


def moment(random: Random) -> datetime:
    """An `as_of` that often lies exactly on an event or a day's edge."""
    return START + timedelta(minutes=30 * random.randint(-2, 260))


def definitions(random: Random, count: int) -> list[Definition]:
    """Definitions that read each other: later ones may read earlier ones."""
    made: list[Definition] = []
    for index in range(count):
        collection = "accounts" if random.random() < 0.25 else "users"
        kind = "audience" if random.random() < 0.6 else "trait"
        writer = Writer(random, collection, [one.key for one in made[-12:]])
        made.append(
            Definition(
                f"k{index}",
                kind,
                collection,
                writer.condition(2) if kind == "audience" else writer.top_value(),
                include_anonymous=random.choice([True, False, None]),
                lookback=random.choice([None, None, None, timedelta(hours=36)]),
                received_after=random.choice([None] * 9 + [START]),
            )
        )
    return random.sample(made, len(made))


class Writer:
    """Writes queries as text."""

    def __init__(self, random: Random, collection: str, keys: Sequence[str]) -> None:
        self.random, self.collection, self.keys = random, collection, keys

    def condition(self, depth: int, place: str = "query") -> str:
        roll = self.random.random()
        if depth and roll < 0.35:
            items = [self.condition(depth - 1, place) for _ in range(self.random.randint(2, 3))]
            return "(" + self.random.choice([" AND ", " or "]).join(items) + ")"
        if depth and roll < 0.45:
            return f"NOT {self.condition(depth - 1, place)}"
        if depth and roll < 0.7 and place == "query" and self.collection == "accounts":
            quantifier = self.random.choice(["ANY", "all"])
            return f"{quantifier} ({self.condition(depth - 1, 'users')})"
        return self.comparison(place)

    def comparison(self, place: str) -> str:
        left = self.value(place)
        roll = self.random.random()
        if roll < 0.5:
            symbol = self.random.choice(["=", "!=", ">", ">=", "<", "<="])
            return f"{left} {symbol} {self.right(place)}"
        name = self.random.choice(
            ["absent", "exists", "contains", "omits", "starts_with", "ends_with", "one_of"]
            + ["none_of", "before_date", "after_date"]
            + ["within_last", "within_next", "before_last", "after_next"]
        )
        if name in ("absent", "exists"):
            return f"{left}.{name}()"
        if name in ("within_last", "within_next", "before_last", "after_next"):
            return f"{left}.{name}({self.duration()})"
        many = name in ("contains", "omits", "one_of", "none_of")
        values = [self.right(place) for _ in range(self.random.randint(1, 3) if many else 1)]
        return f"{left}.{name}({', '.join(values)})"

    def right(self, place: str) -> str:
        if self.random.random() < 0.8:
            return self.random.choice(_LITERALS)
        return self.value(place)

    def value(self, place: str) -> str:
        """A value; `place` is where: the query itself, a user's, or a parent's or child's where."""
        roll = self.random.random()
        if place in ("query", "users"):
            return self.trait() if roll < 0.3 else self.reduction(self.stream())
        if place == "parent" and roll < 0.15:
            return self.reduction(self.stream(child=True), child=True)
        if roll < 0.3:
            return self.trait()
        path = self.random.choice(_PATHS)
        of_parent = "parent: " if place == "child" and self.random.random() < 0.4 else ""
        kind = "context" if self.random.random() < 0.1 else "property"
        return f"{kind}({of_parent}'{path}')"

    def trait(self) -> str:
        names = _TRAITS
        if self.keys and self.random.random() < 0.6:
            names = tuple(self.keys)
        return f"trait('{self.random.choice(names)}')"

    def top_value(self) -> str:
        if self.random.random() < 0.1:
            return self.trait().replace(".$", "")
        return self.reduction(self.stream())

    def stream(self, child: bool = False) -> str:
        filters = []
        where = "child" if child else "parent"
        if self.random.random() < 0.5:
            filters.append(f"where({self.condition(1, where)})")
        if child and self.random.random() < 0.3:
            filters.append(f"where({self.same()})")
        if self.random.random() < 0.4:
            filters.append(f"within({self.parent(child)}{self.duration()})")
        if self.random.random() < 0.15:
            filters.append(f"between({self.parent(child)}{self.between()})")
        if self.random.random() < 0.15:
            filters.append("sources({exclude: ['web', 'x']})")
        if self.random.random() < 0.07:
            filters.append(f"expires_after({self.parent(child)}{self.duration()})")
        self.random.shuffle(filters)
        return ".".join([f"event('{self.random.choice(EVENTS)}')", *filters])

    def same(self) -> str:
        """The child's property equals the parent's, mostly the same one."""
        path = self.random.choice(_PATHS)
        other = path if self.random.random() < 0.7 else self.random.choice(_PATHS)
        pair = [f"property('{path}')", f"property(parent: '{other}')"]
        self.random.shuffle(pair)
        return " = ".join(pair)

    def parent(self, child: bool) -> str:
        return "parent: " if child and self.random.random() < 0.7 else ""

    def reduction(self, stream: str, child: bool = False) -> str:
        path = self.random.choice(_PATHS)
        kind = "context" if self.random.random() < 0.1 else "property"
        field = f"{kind}('{path}')"
        return f"{stream}." + self.random.choice(
            [
                *("count()", "count()", "count()") * 2,
                *(f"{name}({field})" for name in ("sum", "avg", "min", "max", "first", "last")),
                *(f"{name}({field} as string)" for name in ("min", "max")),
                *(f"mode({field}, {least})" for least in (1, 2)),
                *(f"mode({field} as {name}, 1)" for name in ("number", "string", "array")),
                *(f"unique({field})", f"unique({field}).count()"),
            ]
        )

    def duration(self) -> str:
        amount, unit = self.random.choice(
            [(0, "hours"), (1, "hour"), (90, "minutes"), (12, "hours"), (1, "day"), (2, "days")]
        )
        return f"{amount} {unit}"

    def between(self) -> str:
        return self.random.choice(["1 hour, 1 day", "0 seconds, 12 hours", "1 day, 3 days"])
