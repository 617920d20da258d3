"""Questions that come up while an answer is explained: asked first, evaluated in one plan."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from personas_dagster.interfaces import Session
from personas_dagster.query import Definition, evaluate, plan

Scope = Literal["users", "accounts"]


@dataclass
class Questions:
    """What is to be evaluated, all in one plan, and the answers by profile."""

    session: Session
    own: Mapping[str, Definition]
    audiences: Sequence[str]
    as_of: dt.datetime
    asked: dict[str, Definition] = field(default_factory=dict)
    known: dict[tuple[Scope, str, Definition], str] = field(default_factory=dict)
    found: dict[tuple[str, str], Any] = field(default_factory=dict)

    def ask(self, text: str, scope: Scope, like: Definition, *, condition: bool) -> str:
        """A name for the answer to a query, with the windows and bounds of a definition."""
        question = replace(
            like,
            kind="audience" if condition else "trait",
            collection=scope,
            query=text,
            include_anonymous=None if condition else like.include_anonymous,
        )
        mark = (scope, text, replace(question, key=""))
        if mark not in self.known:
            name = f"explained_{len(self.asked) + 1}"
            self.known[mark] = name
            self.asked[name] = replace(question, key=name)
        return self.known[mark]

    def answer(self) -> None:
        definitions = [*self.asked.values(), *self.own.values()]
        evaluate(self.session, plan(definitions, as_of=self.as_of, audiences=self.audiences))
        for row in self.session.fetch("SELECT key, profile_id, value FROM results").to_pylist():
            self.found[row["key"], row["profile_id"]] = json.loads(row["value"])

    def value(self, name: str, profile_id: str) -> Any:
        return self.found.get((name, profile_id))

    def holds(self, name: str, profile_id: str) -> bool:
        return (name, profile_id) in self.found
