"""The identity rules of a space: which identifiers count, how many, and which come first.

What belongs here: the rules as plain data and the order they imply. How a definition file
becomes rules is `project/`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from personas_dagster.identity.facts import Facts

WINDOWS: Mapping[str, dt.timedelta | None] = {
    "ever": None,
    "day": dt.timedelta(days=1),
    "week": dt.timedelta(days=7),
    "month": dt.timedelta(days=30),
    "year": dt.timedelta(days=365),
}
DEFAULT_BLOCKED = (re.compile(r"^[0-]*$"), "-1", "null", "anonymous")
_DEFAULT_LIMIT = 5
_FIRST_FREE_PRIORITY = 3


@dataclass(frozen=True)
class TypeRule:
    """What holds for one external ID type; `per` is a key of `WINDOWS`."""

    priority: int | None = None
    limit: int = _DEFAULT_LIMIT
    per: str = "ever"

    @property
    def window(self) -> dt.timedelta | None:
        return WINDOWS[self.per]

    @property
    def text(self) -> str:
        return f"{self.limit} {'ever' if self.per == 'ever' else f'per {self.per}'}"


_DEFAULT_TYPES: Mapping[str, TypeRule] = {
    "user_id": TypeRule(priority=1, limit=1),
    "email": TypeRule(priority=2),
    "group_id": TypeRule(priority=1, limit=1),
}


@dataclass(frozen=True)
class IdentityRules:
    """The rules of a space. `blocked` holds exact strings and regular expressions per type,
    "*" for every type; `keys` names traits and properties that carry identifiers of a type;
    `facts` is what people decided about single identifiers, as far as it holds for a load.
    """

    types: Mapping[str, TypeRule] = field(default_factory=dict)
    blocked: Mapping[str, tuple[str | re.Pattern[str], ...]] = field(
        default_factory=lambda: {"*": DEFAULT_BLOCKED}
    )
    keys: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    cross_domain_id: bool = False
    alias: str = "ignore"
    max_merges: int = 100
    max_identifiers: int = 1_000
    hub_degree: int = 20
    max_profile_identifiers: int = 200
    facts: Facts = Facts()

    def rule(self, kind: str) -> TypeRule:
        """The rule of a type, also of one never seen before."""
        return self.types.get(kind) or _DEFAULT_TYPES.get(kind) or TypeRule()

    def rank(self, kind: str) -> tuple[int, str]:
        """Sorts types by priority, 1 first.

        Types without a priority of their own stand at 3 and share that place in alphabetical
        order, so a type seen for the first time changes nothing between the others.
        """
        priority = self.rule(kind).priority
        return (_FIRST_FREE_PRIORITY if priority is None else priority, kind)

    def recorded(self) -> dict[str, Any]:
        """The rules as JSON, to be kept with what was done under them.

        Facts have a record of their own: only the thresholds stay, which tell messages apart.
        """
        facts = asdict(replace(self, facts=Facts()))
        facts["facts"] = {"thresholds": list(self.facts.thresholds)}
        facts["blocked"] = {
            kind: [e if isinstance(e, str) else {"regex": e.pattern, "flags": e.flags} for e in of]
            for kind, of in self.blocked.items()
        }
        return facts

    @classmethod
    def from_record(cls, facts: Mapping[str, Any]) -> IdentityRules:
        """The rules that were recorded."""
        blocked = {
            kind: tuple(e if isinstance(e, str) else re.compile(e["regex"], e["flags"]) for e in of)
            for kind, of in facts["blocked"].items()
        }
        types = {kind: TypeRule(**rule) for kind, rule in facts["types"].items()}
        keys = {kind: tuple(names) for kind, names in facts["keys"].items()}
        thresholds = Facts(thresholds=tuple(facts.get("facts", {}).get("thresholds", ())))
        given = {"types": types, "blocked": blocked, "keys": keys, "facts": thresholds}
        return cls(**{**facts, **given})

    def is_blocked(self, kind: str, value: str) -> bool:
        """Whether a value must never be used as an identifier of the type."""
        for blocked in (*self.blocked.get("*", ()), *self.blocked.get(kind, ())):
            if isinstance(blocked, str):
                if value == blocked:
                    return True
            elif blocked.search(value):
                return True
        return False
