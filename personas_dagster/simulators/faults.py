"""The switchboard: which requests to a simulator go wrong, and how.

What belongs here: deciding. What does not: how a tool words its refusals, which is each
simulator's own.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

# throttle      refused for its rate, in the vendor's way; nothing is kept
# error         one of the 5xx; nothing is kept
# unauthorized  the key is refused; nothing is kept
# reset         the connection is cut before anything is kept
# lost          everything is kept, then the connection is cut: the answer never comes
# timeout       everything is kept, and the answer comes after `delay` seconds
# rows          the tool cannot take some rows now, and says which (as far as it has words for it)
Fault = Literal["throttle", "error", "unauthorized", "reset", "lost", "timeout", "rows"]


@dataclass(frozen=True)
class Seen:
    """One request as it came; header names are in lower case."""

    at: float  # time.monotonic
    method: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def target(self) -> str:
        return f"{self.path}?{self.query}" if self.query else self.path


@dataclass(frozen=True)
class Answer:
    """What a simulator answers."""

    status: int = 200
    body: bytes = b"{}"
    headers: Mapping[str, str] = field(default_factory=dict)


# An answer instead of the tool's, or None for the tool's own.
Scripted = Fault | Answer | Callable[[Seen], Answer] | None


class Switchboard:
    """`chances` hold for each request, or for `rows` for each row; `next` is for the next ones.

    >>> faults = Switchboard(seed=1, chances={"throttle": 0.2, "lost": 0.2})
    >>> faults.next("error", None, "reset")
    >>> faults.draw(), faults.draw(), faults.draw()
    ('error', None, 'reset')
    """

    def __init__(self, *, seed: int = 0, chances: Mapping[Fault, float] | None = None) -> None:
        self.chances: dict[Fault, float] = dict(chances or {})
        self.delay = 30.0
        self.statuses = (500, 502, 503, 504)
        self._random = random.Random(seed)
        self._script: deque[Scripted] = deque()
        self._rows: deque[bool] = deque()

    def next(self, *faults: Scripted) -> None:
        """What happens to the next requests, one by one, before chance decides again."""
        self._script.extend(faults)

    def next_rows(self, *is_at_fault: bool) -> None:
        """Which of the next rows the tool cannot take now."""
        self._rows.extend(is_at_fault)

    def clear(self) -> None:
        """Nothing goes wrong from now on."""
        self.chances.clear()
        self._script.clear()
        self._rows.clear()

    def draw(self) -> Scripted:
        """The fate of one request."""
        if self._script:
            return self._script.popleft()
        left = self._random.random()
        for fault, chance in self.chances.items():
            if fault == "rows":
                continue
            left -= chance
            if left < 0:
                return fault
        return None

    def row(self) -> bool:
        """Whether one row cannot be taken now."""
        if self._rows:
            return self._rows.popleft()
        chance = self.chances.get("rows", 0.0)
        return bool(chance) and self._random.random() < chance

    def status(self) -> int:
        """One of the statuses of `error`."""
        return self._random.choice(self.statuses)
