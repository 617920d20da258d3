"""The query language, read slowly: a naive evaluator to hold the compiler against.

Plain Python over the messages of one profile at a time; it shares the parser's tree with the
compiler and nothing else. Read it beside the spec. Absent is None.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from personas_dagster.query import Definition, parse
from personas_dagster.query.tree import (
    And,
    Between,
    Comparison,
    Condition,
    Duration,
    ExpiresAfter,
    Field,
    Literal,
    Not,
    Or,
    Quantified,
    Reduction,
    Sources,
    Stream,
    Trait,
    Where,
    Within,
    segments,
)


@dataclass(frozen=True)
class Message:
    event: str
    profile: str
    timestamp: datetime
    message_id: str
    properties: Any = None
    context: Any = None
    received_at: datetime = datetime(2024, 1, 1, tzinfo=UTC)
    source_id: str | None = "web"


@dataclass(frozen=True)
class Profile:
    collection: str
    id: str
    is_known: bool = True
    has_anonymous_id: bool = False


@dataclass
class World:
    profiles: list[Profile] = field(default_factory=list)
    messages: list[Message] = field(default_factory=list)
    traits: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    former: set[tuple[str, str]] = field(default_factory=set)
    links: set[tuple[str, str]] = field(default_factory=set)

    def users(self, account: str) -> list[str]:
        return sorted(user for user, one in self.links if one == account)

    def accounts(self, user: str) -> list[str]:
        return sorted(account for one, account in self.links if one == user)


class Many(list):  # type: ignore[type-arg]
    """What a path with `$` gives: a value per element."""


# What a value is.


def number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return float(value)
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value):
        return float(value)
    return None


def text(value: Any) -> str:
    return value if isinstance(value, str) else dump(value)


def dump(value: Any) -> str:
    """Compact JSON, numbers in their shortest form."""
    if isinstance(value, float):
        return shortest(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{dump(key)}:{dump(one)}" for key, one in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(dump(one) for one in value) + "]"
    return json.dumps(value, ensure_ascii=False)


def shortest(value: float) -> str:
    """15 for 15.0; decimals from 1e-6 up to 1e21, exponents beyond."""
    if value == 0:
        return "0"  # -0 too
    if 1e-6 <= abs(value) < 1e21:
        plain = format(Decimal(repr(value)), "f")
        return re.sub(r"\.?0+$", "", plain) if "." in plain else plain
    mantissa, exponent = repr(value).split("e")
    return f"{mantissa}e{int(exponent)}"


def instant(value: Any) -> tuple[datetime, bool] | None:
    """The instant that a string names, and whether it is a date without time of day."""
    if not isinstance(value, str):
        return None
    shape = r"\d{4}-\d\d-\d\d([Tt ]\d\d:\d\d(:\d\d([.,]\d+)?)?([Zz]|[+-]\d\d(:?\d\d)?)?)?"
    if not re.fullmatch(shape, value, re.ASCII):
        return None
    try:
        moment = datetime.fromisoformat(value.upper().replace(",", "."))
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC), len(value) == 10


def walk(value: Any, keys: Iterable[str]) -> Any:
    """Down nested objects; at `$` over the elements of an array."""
    keys = list(keys)
    for index, key in enumerate(keys):
        if key == "$":
            found = Many()
            for element in value if isinstance(value, list) else []:
                below = walk(element, keys[index + 1 :])
                found.extend(below if isinstance(below, Many) else [below])
            return found
        value = value.get(key) if isinstance(value, dict) else None
    return value


# How values are compared.


def equal(a: Any, b: Any) -> bool:
    if a is None or b is None:
        return False
    numbers = number(a), number(b)
    if None not in numbers:
        return numbers[0] == numbers[1]
    return text(a) == text(b)


def ordered(a: Any, b: Any, holds: Callable[[float, float], bool]) -> bool:
    x, y = number(a), number(b)
    return x is not None and y is not None and holds(x, y)


def has(a: Any, b: Any, holds: Callable[[str, str], bool]) -> bool:
    return a is not None and b is not None and holds(text(a), text(b))


def dated(a: Any, b: Any, holds: Callable[[datetime, datetime], bool]) -> bool:
    x, y = instant(a), instant(b)
    return x is not None and y is not None and holds(x[0], y[0])


COMPARE: dict[str, Callable[..., bool]] = {
    "equals": equal,
    "one_of": lambda a, *bs: any(equal(a, b) for b in bs),
    "differs": lambda a, b: a is not None and b is not None and not equal(a, b),
    "none_of": lambda a, *bs: a is not None and not any(equal(a, b) for b in bs),
    "greater_than": lambda a, b: ordered(a, b, lambda x, y: x > y),
    "at_least": lambda a, b: ordered(a, b, lambda x, y: x >= y),
    "less_than": lambda a, b: ordered(a, b, lambda x, y: x < y),
    "at_most": lambda a, b: ordered(a, b, lambda x, y: x <= y),
    "absent": lambda a: a is None,
    "exists": lambda a: a is not None,
    "contains": lambda a, *bs: any(has(a, b, lambda x, y: y in x) for b in bs),
    "omits": lambda a, *bs: not any(has(a, b, lambda x, y: y in x) for b in bs),
    "starts_with": lambda a, b: has(a, b, str.startswith),
    "ends_with": lambda a, b: has(a, b, str.endswith),
    "before_date": lambda a, b: dated(a, b, lambda x, y: x < y),
    "after_date": lambda a, b: dated(a, b, lambda x, y: x > y),
}


def around_now(name: str, value: Any, delta: timedelta, as_of: datetime) -> bool:
    found = instant(value)
    if found is None:
        return False
    moment, is_date = found
    now = as_of.replace(hour=0, minute=0, second=0, microsecond=0) if is_date else as_of
    return {
        "within_last": now - delta <= moment <= now,
        "within_next": now <= moment <= now + delta,
        "before_last": moment <= now - delta,
        "after_next": moment >= now + delta,
    }[name]


# How a stream is reduced.


def reduce(node: Reduction, events: list[Message]) -> Any:
    """`events` are in order of timestamp, receivedAt, messageId."""
    if node.name == "count":
        return len(events)
    values = []
    for event in events:
        value = of_event(node.field, event)
        if node.as_type == "array" and isinstance(value, Many):
            value = dump(list(value)) if is_list(node.field, event) else None
        values.extend(value if isinstance(value, Many) else [value])
    values = [value for value in values if value is not None]
    numbers = [n for n in map(number, values) if n is not None]
    match node.name:
        case "sum":
            return digits(math.fsum(numbers)) if numbers else None
        case "avg":
            return digits(digits(math.fsum(numbers)) / len(numbers)) if numbers else None
        case "min" | "max":
            pick = min if node.name == "min" else max
            read = [text(value) for value in values] if node.as_type == "string" else numbers
            return pick(read, default=None)
        case "first":
            return values[0] if values else None
        case "last":
            return values[-1] if values else None
        case "mode":
            return mode(values, node)
        case "unique":
            return unique(values) or None
        case "unique_count":
            return len(unique(values))
    raise AssertionError(node.name)


def digits(value: float) -> float:
    """15 significant digits, so that the order of addition does not show."""
    if value.is_integer() or abs(value) >= 1e15:
        return value
    scale = 10.0 ** (14 - math.floor(math.log10(abs(value))))
    return math.copysign(math.floor(abs(value * scale) + 0.5) / scale, value)


def mode(values: list[Any], node: Reduction) -> Any:
    if node.as_type == "number":
        values = [n for n in map(number, values) if n is not None]
    counts = Counter(text(value) for value in values)
    often = [one for one, count in counts.items() if count >= node.at_least]
    if not often:
        return None
    winner = min(often, key=lambda one: (-counts[one], one))
    if node.as_type in ("string", "array"):
        return winner
    return smallest(value for value in values if text(value) == winner)


def unique(values: list[Any]) -> list[Any]:
    """By text; numbers in order of size, then all else by code point."""
    by_text: dict[str, list[Any]] = {}
    for value in values:
        by_text.setdefault(text(value), []).append(value)
    distinct = [smallest(some) for some in by_text.values()]

    def rank(value: Any) -> tuple[bool, float, str]:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return (not is_number, value if is_number else 0, text(value))

    return sorted(distinct, key=rank)


def smallest(values: Iterable[Any]) -> Any:
    """Of values with the same text, such as 1 and "1", the string."""
    return min(values, key=dump)


def of(field: Field, event: Message) -> Any:
    return event.properties if field.kind == "property" else event.context


def of_event(field: Field, event: Message) -> Any:
    return walk(of(field, event), segments(field.path))


def is_list(field: Field, event: Message) -> bool:
    """Whether there is a list at the first `$`."""
    keys = segments(field.path)
    return isinstance(walk(of(field, event), keys[: keys.index("$")]), list)


# The evaluator.


@dataclass
class Oracle:
    world: World
    definitions: list[Definition]
    as_of: datetime
    audiences: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        self.by_key = {(one.collection, one.key): one for one in self.definitions}
        self.queries = {key: parse(one.query).body for key, one in self.by_key.items()}
        self.computed: dict[tuple[str, str, str], Any] = {}

    def results(self) -> dict[tuple[str, str, str], str]:
        """(collection, key, profile) to JSON text, as the table `results` has it."""
        found = {}
        for definition in self.definitions:
            for profile in self.world.profiles:
                if profile.collection == definition.collection:
                    value = self.compute(definition, profile.id)
                    if value is not None and (definition.kind == "trait" or value):
                        found[definition.collection, definition.key, profile.id] = dump(value)
        return found

    def compute(self, definition: Definition, profile: str) -> Any:
        """A trait's value; for an audience True or False."""
        name = (definition.collection, definition.key, profile)
        if name not in self.computed:
            self.computed[name] = self._compute(definition, profile)
        return self.computed[name]

    def _compute(self, definition: Definition, profile: str) -> Any:
        scope = definition.collection
        body = self.queries[scope, definition.key]
        person = Person(self, scope, profile, definition)
        if isinstance(body, Condition):
            return self._is_eligible(definition, profile) and person.holds(body)
        value = person.value(body)
        if isinstance(body, Reduction) and body.name in ("count", "unique_count"):
            return value if person.events(body.stream, windows=False) else None
        return value

    def _is_eligible(self, definition: Definition, profile: str) -> bool:
        if definition.collection == "accounts" or definition.include_anonymous is None:
            return True
        (one,) = (p for p in self.world.profiles if (p.collection, p.id) == ("users", profile))
        return one.is_known or (definition.include_anonymous and one.has_anonymous_id)

    def trait(self, scope: str, profile: str, path: str) -> Any:
        key, *rest = segments(path)
        return walk(self._trait(scope, profile, key), rest)

    def _trait(self, scope: str, profile: str, key: str) -> Any:
        definition = self.by_key.get((scope, key))
        if definition and definition.kind == "trait":
            return self.compute(definition, profile)
        if definition:
            return self._membership(definition, profile)
        account = self.by_key.get(("accounts", key))
        if scope == "users" and account and account.kind == "audience":
            states = [self._membership(account, one) for one in self.world.accounts(profile)]
            return True if True in states else False if False in states else None
        own = self.world.traits.get((scope, profile), {}).get(key)
        if own is None and scope == "users" and key in self.audiences:
            stored = [
                self.world.traits.get(("accounts", one), {}).get(key)
                for one in self.world.accounts(profile)
            ]
            return True if True in stored else False if False in stored else None
        return own

    def _membership(self, definition: Definition, profile: str) -> bool | None:
        if self.compute(definition, profile):
            return True
        return False if (definition.key, profile) in self.world.former else None


@dataclass
class Person:
    """A user or an account, with what a query may ask of it."""

    oracle: Oracle
    scope: str
    profile: str
    definition: Definition

    def value(self, node: Any, event: Message | None = None, parent: Message | None = None) -> Any:
        match node:
            case Literal(kind, written):
                if kind == "number":
                    return float(written)
                return written == "true" if kind == "boolean" else written
            case Trait(path):
                return self.oracle.trait(self.scope, self.profile, path)
            case Field(_, _, is_parent):
                return of_event(node, parent if is_parent else event)
            case Reduction():
                return reduce(node, self.events(node.stream, parent=event))
        raise AssertionError(node)

    def holds(self, node: Any, event: Message | None = None, parent: Message | None = None) -> bool:
        match node:
            case And(items):
                return all(self.holds(item, event, parent) for item in items)
            case Or(items):
                return any(self.holds(item, event, parent) for item in items)
            case Not(item):
                return not self.holds(item, event, parent)
            case Quantified(quantifier, item):
                users = self.oracle.world.users(self.profile)
                held = [
                    Person(self.oracle, "users", user, self.definition).holds(item)
                    for user in users
                ]
                return any(held) if quantifier == "ANY" else bool(held) and all(held)
            case Comparison(left, name, arguments):
                if arguments and isinstance(arguments[0], Duration):
                    delta = arguments[0].delta
                    as_of = self.oracle.as_of
                    return self._any(
                        [self.value(left, event, parent)],
                        lambda value: around_now(name, value, delta, as_of),
                    )
                operands = [self.value(one, event, parent) for one in (left, *arguments)]
                return self._any(operands, COMPARE[name])
        raise AssertionError(node)

    def _any(self, operands: list[Any], holds: Callable[..., bool]) -> bool:
        """`$`: true for any element; without elements there is one absent value."""
        for index, operand in enumerate(operands):
            if isinstance(operand, Many):
                return any(
                    self._any([*operands[:index], one, *operands[index + 1 :]], holds)
                    for one in operand or [None]
                )
        return holds(*operands)

    def events(
        self, stream: Stream, *, parent: Message | None = None, windows: bool = True
    ) -> list[Message]:
        """The stream's events in order, after all of its filters."""
        world, as_of = self.oracle.world, self.oracle.as_of
        users = [self.profile] if self.scope == "users" else world.users(self.profile)
        kept = [
            one
            for one in world.messages
            if one.profile in users and one.event == stream.event and one.timestamp <= as_of
        ]
        if self.definition.received_after:
            kept = [one for one in kept if one.received_at > self.definition.received_after]
        if parent:
            kept = [one for one in kept if one.timestamp > parent.timestamp]
        kept.sort(key=lambda one: (one.timestamp, one.received_at, one.message_id))
        session = None
        own_window = False
        for filter in stream.filters:
            match filter:
                case Where(condition):
                    kept = [one for one in kept if self.holds(condition, one, parent)]
                case Sources(exclude):
                    kept = [one for one in kept if one.source_id not in exclude]
                case Within(duration, False) if windows:
                    kept = [one for one in kept if one.timestamp > as_of - duration.delta]
                case Within(duration, True):
                    kept = [
                        one for one in kept if one.timestamp <= parent.timestamp + duration.delta
                    ]
                case Between(near, far, False) if windows:
                    start, end = as_of - far.delta, as_of - near.delta
                    kept = [one for one in kept if start < one.timestamp <= end]
                case Between(near, far, True):
                    start, end = parent.timestamp + near.delta, parent.timestamp + far.delta
                    kept = [one for one in kept if start < one.timestamp <= end]
                case ExpiresAfter():
                    session = filter
            own_window = own_window or isinstance(filter, Within | Between | ExpiresAfter)
        if self.definition.lookback and windows and not own_window:
            kept = [one for one in kept if one.timestamp > as_of - self.definition.lookback]
        if session and windows:
            kept = latest_session(kept, session, parent, as_of)
        return kept


def latest_session(
    events: list[Message], session: ExpiresAfter, parent: Message | None, as_of: datetime
) -> list[Message]:
    gap = session.duration.delta
    if session.parent:
        kept: list[Message] = []
        last = parent.timestamp
        for event in events:
            if event.timestamp - last > gap:
                break
            kept.append(event)
            last = event.timestamp
        return kept
    run: list[Message] = []
    for event in events:
        if run and event.timestamp - run[-1].timestamp > gap:
            run = []
        run.append(event)
    return run if run and run[-1].timestamp >= as_of - gap else []
