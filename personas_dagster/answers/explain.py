"""Why a profile is in an audience, or not, at an instant: the tree of its conditions.

Every condition, value and stream of the query is compiled like the query itself, over the messages
of that profile alone (with its accounts, and their users), so an explanation cannot say anything
else than the evaluation does. What a stream kept is read by listing the message ids in it: each
message carries its own id under a key that no sender uses.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from personas_dagster import masking
from personas_dagster.answers.around import OWN_ID, prepare_around
from personas_dagster.answers.preview import last_instant
from personas_dagster.answers.questions import Questions, Scope
from personas_dagster.asking import find
from personas_dagster.errors import PersonasError
from personas_dagster.query import Definition, check
from personas_dagster.query import printer as printed
from personas_dagster.query.tree import (
    And,
    Comparison,
    Condition,
    Duration,
    Field,
    Filter,
    Not,
    Or,
    Quantified,
    Reduction,
    Stream,
    Trait,
    Where,
    segments,
)
from personas_dagster.query.tree import Literal as Constant
from personas_dagster.refresh import dated_definitions
from personas_dagster.spaces import Space

MOST_MESSAGES = 5
_DEPTH = 6  # of definitions that reference definitions

_SHOWN = f"""
SELECT message_id, event, timestamp, received_at, source_id,
       shown_text(json_merge_patch(properties, '{{"{OWN_ID}": null}}')::VARCHAR) AS properties
FROM messages WHERE message_id IN (SELECT unnest($1))
"""
_OF_EVENT = """
SELECT message_id FROM messages
WHERE event = $1 AND timestamp <= $2 AND (profile_id = $3 OR profile_id IN (
    SELECT user_profile_id FROM graph_links WHERE account_profile_id = $3))
ORDER BY timestamp DESC, message_id LIMIT $4
"""
_TRAIT = """
SELECT class, updated_at, source_id FROM trait_values
WHERE profile_id = $1 AND key = $2 ORDER BY class DESC LIMIT 1
"""
_MEMBER = "SELECT entered_at FROM members WHERE audience = $1 AND profile_id = $2"
_USERS = """
SELECT DISTINCT l.user_profile_id AS profile_id, coalesce(
    min(i.value) FILTER (WHERE i.type = 'user_id'), l.user_profile_id) AS name
FROM graph_links l LEFT JOIN graph_identifiers i ON i.profile_id = l.user_profile_id
WHERE l.account_profile_id = $1 GROUP BY l.user_profile_id ORDER BY name
"""


@dataclass(frozen=True)
class Explanation:
    """`outcome` is the audience's at `as_of`; `member_since` is what the last refresh stored."""

    audience: str
    profile_id: str
    as_of: dt.datetime
    outcome: bool
    member_since: dt.datetime | None
    tree: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        return {
            "audience": self.audience,
            "profile_id": self.profile_id,
            "as_of": self.as_of,
            "outcome": self.outcome,
            "member_since": self.member_since,
            "tree": self.tree,
        }


def explain(
    space: Space, key: str, identifier: str, *, as_of: dt.datetime | None = None
) -> Explanation:
    """Why the profile that holds `identifier` is in audience `key`, or not, at an instant.

    By default the last refresh's. PersonasError when there is no such audience or profile.
    """
    own = {one.key: one for one in dated_definitions(space)}
    if key not in own or own[key].kind != "audience":
        there = ", ".join(space.audience_keys) or "none is declared"
        raise PersonasError(f"no audience `{key}` in space {space.name}; expected one of: {there}")
    as_of = as_of or last_instant(space)
    with space.bare_session() as session:
        profile_id, collection = find(session, identifier)
        if collection != own[key].collection:
            raise PersonasError(
                f"{identifier} is of {collection}, and audience `{key}` is of "
                f"{own[key].collection}; name one of those"
            )
        prepare_around(space, session, profile_id, as_of)
        questions = Questions(session, own, space.audience_keys, as_of)
        tree = _Tree(questions, own, space.operator_has_pii)
        draft = tree.definition(own[key], profile_id, 0)
        questions.answer()
        found = draft.build()
        since = session.fetch(_MEMBER, [key, profile_id]).column(0).to_pylist()
    return Explanation(
        key, profile_id, as_of, bool(found["outcome"]), since[0] if since else None, found
    )


@dataclass
class _Draft:
    """A node whose parts are known once the questions are answered."""

    make: Any

    def build(self) -> dict[str, Any]:
        found: dict[str, Any] = self.make()
        return found


@dataclass
class _Tree:
    """From the tree of a query to the tree of its explanation."""

    questions: Questions
    own: Mapping[str, Definition]
    sees_all: bool

    def definition(self, one: Definition, profile_id: str, depth: int) -> _Draft:
        """An audience: its condition, and whether the profile is one that it looks at."""
        body = check(one).query.body
        assert isinstance(body, Condition)
        name = self.questions.ask(printed.condition(body), one.collection, one, condition=True)
        inner = self.condition(body, one.collection, one, profile_id, depth)

        def make() -> dict[str, Any]:
            tree = inner.build()
            holds = self.questions.holds(name, profile_id)
            member = self.questions.holds(one.key, profile_id)
            if member == holds:
                return tree
            needs = "a user_id, an email, an android.idfa or an ios.idfa"
            needs += " or an anonymous_id" if one.include_anonymous else ""
            looked_at = {"kind": "looked_at", "text": f"holds {needs}", "outcome": member}
            return {"kind": "and", "text": "AND", "outcome": member, "of": [looked_at, tree]}

        return _Draft(make)

    def condition(
        self, node: Condition, scope: Scope, like: Definition, profile_id: str, depth: int
    ) -> _Draft:
        text = printed.condition(node)
        name = self.questions.ask(text, scope, like, condition=True)

        def outcome() -> bool:
            return self.questions.holds(name, profile_id)

        match node:
            case And(items) | Or(items):
                kind = "and" if isinstance(node, And) else "or"
                parts = [self.condition(one, scope, like, profile_id, depth) for one in items]
            case Not(item):
                kind, parts = "not", [self.condition(item, scope, like, profile_id, depth)]
            case Quantified():
                return self._quantified(node, text, like, profile_id, outcome, depth)
            case Comparison():
                return self._comparison(node, text, scope, like, profile_id, outcome, depth)
        word = kind.upper()
        return _Draft(
            lambda: {
                "kind": kind,
                "text": word,
                "outcome": outcome(),
                "of": [part.build() for part in parts],
            }
        )

    def _quantified(
        self,
        node: Quantified,
        text: str,
        like: Definition,
        profile_id: str,
        outcome: Any,
        depth: int,
    ) -> _Draft:
        users = self.questions.session.fetch(_USERS, [profile_id]).to_pylist()
        inner = self.questions.ask(printed.condition(node.item), "users", like, condition=True)
        parts = [
            (user, self.condition(node.item, "users", like, user["profile_id"], depth))
            for user in users
        ]

        def make() -> dict[str, Any]:
            hits = [user for user in users if self.questions.holds(inner, user["profile_id"])]
            wanted = {user["profile_id"] for user in hits}
            # those first that decide: one who satisfies ANY, one who does not satisfy ALL
            parts.sort(
                key=lambda part: (part[0]["profile_id"] in wanted) != (node.quantifier == "ANY")
            )
            return {
                "kind": node.quantifier.lower(),
                "text": text,
                "outcome": outcome(),
                "value": f"{len(hits)} of {len(users)} users",
                "of": [
                    {**part.build(), "user": user["name"]} for user, part in parts[:MOST_MESSAGES]
                ],
            }

        return _Draft(make)

    def _comparison(
        self,
        node: Comparison,
        text: str,
        scope: Scope,
        like: Definition,
        profile_id: str,
        outcome: Any,
        depth: int,
    ) -> _Draft:
        sides = [node.left, *(one for one in node.arguments if not isinstance(one, Duration))]
        parts = [
            self._value(one, scope, like, profile_id, depth)
            for one in sides
            if not isinstance(one, Constant)
        ]

        def make() -> dict[str, Any]:
            values = [part.build() for part in parts]
            found: dict[str, Any] = {"kind": "comparison", "text": text, "outcome": outcome()}
            if values:
                found["value"] = values[0]["value"]
            if len(values) == 1:
                return {**found, **{k: v for k, v in values[0].items() if k not in found}}
            return {**found, "values": values}

        return _Draft(make)

    def _value(
        self, node: object, scope: Scope, like: Definition, profile_id: str, depth: int
    ) -> _Draft:
        if isinstance(node, Reduction):
            return self._reduction(node, scope, like, profile_id)
        assert isinstance(node, Trait)
        return self._trait(node, scope, like, profile_id, depth)

    def _reduction(
        self, node: Reduction, scope: Scope, like: Definition, profile_id: str
    ) -> _Draft:
        questions = self.questions
        value = questions.ask(printed.scalar(node), scope, like, condition=False)
        kept = questions.ask(_ids(node.stream), scope, like, condition=False)
        alone = {
            printed.filter_text(one): questions.ask(
                _ids(Stream(node.stream.event, (one,))), scope, like, condition=False
            )
            for one in _single_filters(node.stream)
        }
        counts = node.name in ("count", "unique_count")

        def make() -> dict[str, Any]:
            found = questions.value(value, profile_id)
            ids = questions.value(kept, profile_id) or []
            shown = {"value": 0 if found is None and counts else found, "matched": len(ids)}
            if ids:
                return {**shown, "messages": self._messages(ids, node)}
            near = questions.session.fetch(
                _OF_EVENT, [node.stream.event, questions.as_of, profile_id, MOST_MESSAGES]
            )
            names = near.column(0).to_pylist()
            passed = {text: questions.value(name, profile_id) or [] for text, name in alone.items()}
            messages = self._messages(names, node)
            for message in messages:
                message["left_out_by"] = [
                    text for text, those in passed.items() if message["message_id"] not in those
                ]
            return {**shown, "messages": [], "left_out": messages}

        return _Draft(make)

    def _messages(self, ids: Sequence[str], node: Reduction) -> list[dict[str, Any]]:
        """Those that decided: the first for `first`, the extreme for `min` and `max`, else the
        latest."""
        rows = self.questions.session.fetch(_SHOWN, [list(ids)]).to_pylist()
        rows.sort(key=lambda row: (row["timestamp"], row["received_at"], row["message_id"]))
        if node.name != "first":
            rows.reverse()
        for row in rows:
            row["properties"] = json.loads(row["properties"])
            del row["received_at"]
        if node.name in ("first", "last", "min", "max") and node.field is not None:
            there = [row for row in rows if _at(row["properties"], node.field) is not None]
            rows = there or rows
            if node.name in ("min", "max"):
                rows = _extreme(rows, node.field, largest=node.name == "max") or rows
        found: list[dict[str, Any]] = rows[:MOST_MESSAGES]
        return found

    def _trait(
        self, node: Trait, scope: Scope, like: Definition, profile_id: str, depth: int
    ) -> _Draft:
        questions, session = self.questions, self.questions.session
        parts = segments(node.path)
        path = node.path if "$" not in parts else ".".join(parts[: parts.index("$")])
        value = questions.ask(printed.scalar(Trait(path)), scope, like, condition=False)
        target = self.own.get(node.key)
        inner: _Draft | None = None
        if target is not None and depth < _DEPTH and target.collection == scope:
            body = check(target).query.body
            if target.kind == "audience":
                inner = self.definition(target, profile_id, depth + 1)
            elif isinstance(body, Reduction):
                inner = self._reduction(body, scope, target, profile_id)

        def make() -> dict[str, Any]:
            shown: dict[str, Any] = {"value": questions.value(value, profile_id)}
            if not self.sees_all and shown["value"] is not None:
                text = json.dumps(shown["value"], ensure_ascii=False)
                shown["value"] = json.loads(masking.mask_value(node.key, text))
            if inner is not None:
                return {**shown, "because": {"definition": node.key, **inner.build()}}
            stored = session.fetch(_TRAIT, [profile_id, node.key]).to_pylist()
            return {**shown, **(stored[0] if stored and target is None else {})}

        return _Draft(make)


def _ids(stream: Stream) -> str:
    return f"{printed.stream(stream)}.unique(property('{OWN_ID}'))"


def _single_filters(stream: Stream) -> Iterator[Filter]:
    """The stream's filters, a conjunction in `where` as one for each part."""
    for one in stream.filters:
        if isinstance(one, Where) and isinstance(one.condition, And):
            yield from (Where(item) for item in one.condition.items)
        else:
            yield one


def _at(properties: Any, where: Field) -> Any:
    if where.kind != "property":
        return None
    for part in segments(where.path):
        properties = properties.get(part) if isinstance(properties, dict) else None
    return properties


def _extreme(rows: list[dict[str, Any]], where: Field, *, largest: bool) -> list[dict[str, Any]]:
    """Rows with a number, the smallest (or largest) first."""
    numbers = [(number, row) for row in rows if (number := _number(row, where)) is not None]
    return [row for _, row in sorted(numbers, key=lambda pair: pair[0], reverse=largest)]


def _number(row: Mapping[str, Any], where: Field) -> float | None:
    found = _at(row["properties"], where)
    try:
        return None if isinstance(found, bool | list | dict | None) else float(found)
    except ValueError:
        return None
