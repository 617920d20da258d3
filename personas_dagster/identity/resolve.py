"""Resolution of messages to profiles: the sequential reading of the rules.

Identifiers and profiles are small integers here; names and instants stay outside. A message
that repeats a combination which was accepted whole changes nothing and is skipped, so the cost
lies in the distinct combinations. What each message's profile is needs no output: it is that of
its highest-priority identifier (demotion removes from the other end).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

_MICROSECOND = 1_000_000


@dataclass(frozen=True)
class Limit:
    """How many values of a type a profile may hold; `window` in microseconds, None is ever."""

    count: int
    window: int | None
    text: str


@dataclass
class Profile:
    """A root profile while it is being resolved."""

    number: int
    merges: int = 0
    by_type: dict[int, list[int]] = field(default_factory=dict)
    size: int = 0


@dataclass(frozen=True)
class Merge:
    parent: int
    child: int
    message: int
    joined: tuple[int, ...]


@dataclass(frozen=True)
class Drop:
    message: int
    identifier: int
    broken: str
    apart: tuple[int, ...]


class Resolver:
    """The graph of one collection, as far as a load touches it.

    `kinds[i]` is identifier i's type and `limits[k]` a type's limit. `first_seen[i]` is when
    identifier i was first attached, in microseconds. Profiles are numbered in the order of their
    creation: the smallest number of a merge becomes the parent.
    """

    def __init__(
        self,
        kinds: Sequence[int],
        limits: Sequence[Limit],
        *,
        max_merges: int,
        max_identifiers: int,
    ) -> None:
        self._kinds, self._limits = kinds, limits
        self._max_merges, self._max_identifiers = max_merges, max_identifiers
        self.attached: list[int] = [-1] * len(kinds)  # the profile first attached to
        self.first_seen: list[int] = [0] * len(kinds)
        self.first_message: list[int] = [-1] * len(kinds)
        self._parent: list[int] = []
        self._roots: dict[int, Profile] = {}
        self.created: list[tuple[int, int]] = []  # (message, identifier it was made from)
        self.existing = 0
        self.merges: list[Merge] = []
        self.drops: list[Drop] = []

    def add_existing(self, merges: int, identifiers: Iterable[tuple[int, int]]) -> int:
        """Bring in a root profile of the graph with its (identifier, first_seen) pairs.

        To be called in the order of creation, before any message.
        """
        number = len(self._parent)
        self._parent.append(number)
        profile = self._roots[number] = Profile(number, merges)
        for identifier, seen in identifiers:
            self._attach(profile, identifier)
            self.attached[identifier], self.first_seen[identifier] = number, seen
        self.existing = len(self._parent)
        return number

    def _attach(self, profile: Profile, identifier: int) -> None:
        profile.by_type.setdefault(self._kinds[identifier], []).append(identifier)
        profile.size += 1

    def root(self, number: int) -> int:
        """The root a profile's number leads to."""
        parent = self._parent
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    def resolve(self, message: int, at: int, ids: Sequence[int]) -> bool:
        """One message, its identifiers ordered by priority. True if none had to be removed."""
        kept = list(ids)
        while True:
            found = sorted({self.root(self.attached[i]) for i in kept if self.attached[i] >= 0})
            new = [i for i in kept if self.attached[i] < 0]
            if len(kept) == 1 or (len(found) == 1 and not new):
                break
            broken = self._broken(at, found, new)
            if broken is None:
                break
            self.drops.append(Drop(message, kept.pop(), broken, tuple(found)))
        self._accept(message, at, found, new, kept)
        return len(kept) == len(ids)

    def _accept(
        self, message: int, at: int, found: list[int], new: list[int], kept: list[int]
    ) -> None:
        if found:
            profile = self._roots[found[0]]
        else:
            number = len(self._parent)
            self._parent.append(number)
            profile = self._roots[number] = Profile(number)
            self.created.append((message, kept[0]))
        for child in found[1:]:
            self._merge(profile, self._roots.pop(child))
            self.merges.append(Merge(profile.number, child, message, tuple(kept)))
        for identifier in new:
            self._attach(profile, identifier)
            self.attached[identifier] = profile.number
            self.first_seen[identifier] = at
            self.first_message[identifier] = message

    def _merge(self, parent: Profile, child: Profile) -> None:
        self._parent[child.number] = parent.number
        parent.merges += child.merges + 1
        parent.size += child.size
        for kind, identifiers in child.by_type.items():
            parent.by_type.setdefault(kind, []).extend(identifiers)

    def _broken(self, at: int, found: list[int], new: list[int]) -> str | None:
        """The text of the first limit that the union would break, None if it keeps them all."""
        profiles = [self._roots[number] for number in found]
        growing: dict[int, list[int]] = {}
        for identifier in new:
            growing.setdefault(self._kinds[identifier], []).append(identifier)
        kinds = set(growing)
        if len(profiles) > 1:
            kinds.update(kind for profile in profiles for kind in profile.by_type)
        for kind in sorted(kinds):
            held = [profile.by_type.get(kind, ()) for profile in profiles]
            fresh = growing.get(kind, ())
            total = sum(map(len, held)) + len(fresh)
            limit = self._limits[kind]
            if total <= limit.count or total <= max(map(len, held), default=0):
                continue
            if limit.window is not None:
                start = at - limit.window
                seen = self.first_seen
                total = len(fresh) + sum(start < seen[i] <= at for ids in held for i in ids)
            if total > limit.count:
                return limit.text
        size = sum(profile.size for profile in profiles) + len(new)
        largest = max((profile.size for profile in profiles), default=0)
        if size > self._max_identifiers and size > largest:
            return f"profile: at most {self._max_identifiers} identifiers"
        merges = sum(profile.merges for profile in profiles) + max(len(profiles) - 1, 0)
        if len(profiles) > 1 and merges > self._max_merges:
            return f"profile: at most {self._max_merges} merges"
        return None


def microseconds(seconds: float) -> int:
    """Seconds as the integer microseconds that this module counts in."""
    return round(seconds * _MICROSECOND)
