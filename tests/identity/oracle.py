"""spec/identity.md read plainly: one message after the other, in dicts and sets.

Independent of the production code except for the rules' plain data. A message is a Segment-spec
dict whose `receivedAt` is a datetime.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections import Counter
from typing import Any

from personas_dagster.identity.rules import IdentityRules, TypeRule

DAYS = {"day": 1, "week": 7, "month": 30, "year": 365}
Id = tuple[str, str]


def text_of(value: Any) -> str | None:
    """Strings as they are, numbers in their shortest form, anything else is no identifier."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e38 else repr(value)
    return str(value)


def member(value: Any, *path: str) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def spellings(name: str) -> list[str]:
    snake = re.sub(r"(?<=[a-z0-9])[A-Z]", lambda found: "_" + found[0].lower(), name)
    camel = re.sub(r"(?<=[a-z0-9])_([a-z0-9])", lambda found: found[1].upper(), snake)
    return list(dict.fromkeys([name, snake, camel]))


def external_ids(m: dict[str, Any], rules: IdentityRules, knows: Any) -> dict[str, list[Id]]:
    """A message's external IDs per collection, in order of appearance."""
    found: dict[str, list[Id]] = {"users": [], "accounts": []}

    def read(kind: str, value: Any, collection: str = "users") -> None:
        value = (text_of(value) or "").strip()
        value = value.lower() if kind == "email" else value
        of = found["accounts" if kind == "group_id" else collection]
        if value and (kind, value) not in of:
            of.append((kind, value))

    context, traits, properties = m.get("context"), m.get("traits"), m.get("properties")
    read("group_id", m.get("groupId") or member(context, "groupId"))
    if m["type"] == "alias" and rules.alias != "merge":  # joins nothing
        read("user_id", m.get("userId"))
        if not found["users"]:
            read("anonymous_id", m.get("anonymousId"))
        return found
    read("user_id", m.get("userId"))
    read("anonymous_id", m.get("anonymousId"))
    own = traits if m["type"] != "group" else None  # a group's traits describe the account
    read("email", member(traits, "email") if m["type"] == "identify" else None)
    read("email", member(context, "traits", "email"))
    read("email", member(properties, "email"))
    device = str(member(context, "device", "type")).lower()
    if device in ("android", "ios"):
        read(f"{device}.id", member(context, "device", "id"))
        if member(context, "device", "adTrackingEnabled") is True:
            read(f"{device}.idfa", member(context, "device", "advertisingId"))
        read(f"{device}.push_token", member(context, "device", "token"))
    read("ga_client_id", member(context, "integrations", "Google Analytics", "clientId"))
    read("braze_id", member(context, "Braze", "braze_id"))
    if rules.cross_domain_id:
        read("cross_domain_id", member(context, "traits", "crossDomainId"))
        read("cross_domain_id", member(own, "crossDomainId"))
    if m["type"] == "alias":
        previous = (text_of(m["previousId"]) or "").strip()
        read("user_id" if knows(previous) else "anonymous_id", previous)
    listed = member(context, "externalIds")
    for one in listed if isinstance(listed, list) else []:
        kind = member(one, "type")
        if isinstance(kind, str) and kind and one.get("encoding", "none") == "none":
            accounts = one.get("collection") == "accounts"
            read(kind, one.get("id"), "accounts" if accounts else "users")
    for kind, names in rules.keys.items():
        for name in (spelling for key in names for spelling in spellings(key)):
            read(kind, member(own, name))
            read(kind, member(context, "traits", name))
            read(kind, member(properties, name))
    return found


class Profile:
    def __init__(self, number: int, profile_id: str) -> None:
        self.number, self.profile_id = number, profile_id
        self.seen: dict[Id, dt.datetime] = {}  # its identifiers, and since when
        self.merges = 0


class Oracle:
    """`take` a load's messages; the tables are lists of tuples."""

    def __init__(self, rules: IdentityRules, space: str = "test") -> None:
        self.rules, self.space = rules, space
        self.loads: list[
            tuple[int, int, IdentityRules, list[Any]]
        ] = []  # (after, through] and what
        self.decided: list[dict[str, Any]] = []
        self.forget()

    def forget(self) -> None:
        """The empty graph."""
        self.load = (0, 0)
        self.holders: dict[tuple[str, Id], Profile] = {}
        self.first_of: dict[tuple[str, Id], str] = {}  # the profile it was first attached to
        self.number, self.root_of, self.messages = 0, dict[str, str](), dict[str, Any]()
        self.creators = set[tuple[str, Id]]()
        self.profiles: list[Any] = []
        self.identifiers: list[Any] = []
        self.merges: list[Any] = []
        self.drops: list[Any] = []

    def take(self, messages: list[dict[str, Any]]) -> None:
        after = self.loads[-1][1] if self.loads else 0
        self.loads.append((after, after + 1, self.rules, messages))
        self.resolve_load(*self.loads[-1])

    def rebuild(self, rules: IdentityRules | None = None, *, by_time: bool = False) -> None:
        """Replay the recorded loads, each under its own rules or all under these."""
        if by_time:
            everything = [m for *_, messages in self.loads for m in messages]
            self.loads = [(0, self.loads[-1][1], self.rules, everything)]
        if rules is not None:
            self.loads = [(after, through, rules, m) for after, through, _, m in self.loads]
        now = self.rules
        self.forget()
        for load in self.loads:
            self.resolve_load(*load)
        self.rules = now

    def decide(self, what: str, collection: str, kind: str, value: str, at: dt.datetime) -> None:
        """Block, allow, detach or delete an identifier."""
        name, identifier = (kind, value), (collection, (kind, value))
        fact = {"what": what, "collection": collection, "id": name, "at": at, "company": set(),
                "place": self.loads[-1][1] if self.loads else 0, "taken": False}  # fmt: skip
        self.decided.append(fact)
        if what in ("detach", "delete"):
            fact["company"] = set(self.holders[identifier].seen) - {name}
            fact["taken"] = identifier in self.creators
            self.rebuild()

    def left(self, collection: str, m: dict[str, Any], ids: list[Id]) -> list[Id]:
        """The identifiers that no fact takes away, and a record of those detached."""
        ids = [i for i in ids if not self.is_ignored(collection, m, i)]
        for fact in self.decided:
            name, apart = fact["id"], set[Id]()
            if fact["what"] == "detach" and fact["collection"] == collection and name in ids:
                for other in self.decided:  # a second detachment adds to the first
                    if (other["what"], other["collection"], other["id"]) == (
                        "detach", collection, name
                    ):  # fmt: skip
                        apart |= other["company"]
                if apart & set(ids):
                    ids.remove(name)
                    self.drops.append((m["messageId"], m["receivedAt"], collection, *name,
                                       "detached", ()))  # fmt: skip
        return ids

    def is_ignored(self, collection: str, m: dict[str, Any], i: Id) -> bool:
        after, through = self.load
        blocked = False
        for fact in self.decided:
            if (fact["collection"], fact["id"]) != (collection, i):
                continue
            if fact["what"] == "delete" and m["receivedAt"] <= fact["at"]:
                return True
            holds = fact["place"] <= after or (
                fact["place"] < through and m["receivedAt"] > fact["at"]
            )
            if holds and fact["what"] in ("block", "allow"):
                blocked = fact["what"] == "block"
        return blocked

    def resolve_load(
        self, after: int, through: int, rules: IdentityRules, messages: list[dict[str, Any]]
    ) -> None:
        self.load, self.rules = (after, through), rules
        for m in sorted(messages, key=lambda m: (m["receivedAt"], m["messageId"])):
            found = external_ids(m, self.rules, lambda v: ("users", ("user_id", v)) in self.holders)
            ended = []
            for collection, ids in found.items():
                ids = [i for i in ids if not self.is_blocked(*i)]
                ids.sort(key=lambda i: self.rank(i[0]))
                ids = self.left(collection, m, ids)
                ended.append(self.resolve(collection, m, ids) if ids else None)
            self.messages[m["messageId"]] = (m["receivedAt"], *ended)

    def rule(self, kind: str) -> TypeRule:
        given = {"user_id": TypeRule(1, 1), "email": TypeRule(2), "group_id": TypeRule(1, 1)}
        return self.rules.types.get(kind) or given.get(kind) or TypeRule()

    def rank(self, kind: str) -> tuple[int, str]:
        return (self.rule(kind).priority or 3, kind)

    def is_blocked(self, kind: str, value: str) -> bool:
        entries = [*self.rules.blocked.get("*", ()), *self.rules.blocked.get(kind, ())]
        return any(value == e if isinstance(e, str) else e.search(value) for e in entries)

    def resolve(self, collection: str, m: dict[str, Any], ids: list[Id]) -> str:
        top = ids[0]
        ids = list(ids)
        while True:
            held = {self.holders[collection, i] for i in ids if (collection, i) in self.holders}
            found = sorted(held, key=lambda p: p.number)
            broken = self.broken(found, ids, m["receivedAt"]) if len(ids) > 1 else None
            if broken is None:
                break
            apart = tuple(p.profile_id for p in found)
            self.drops.append((m["messageId"], m["receivedAt"], collection, *ids.pop(), broken,
                               apart))  # fmt: skip
        parent, *children = found or [self.create(collection, m, top)]
        for child in children:
            parent.seen.update(child.seen)
            parent.merges += child.merges + 1
            self.root_of[child.profile_id] = parent.profile_id
            self.merges.append((collection, parent.profile_id, child.profile_id, m["receivedAt"],
                                m["messageId"], tuple(ids)))  # fmt: skip
        for i in [i for i in ids if i not in parent.seen]:
            parent.seen[i] = m["receivedAt"]
            self.first_of[collection, i] = parent.profile_id
            self.identifiers.append((collection, *i, parent.profile_id, m["receivedAt"],
                                     m["messageId"]))  # fmt: skip
        for i in parent.seen:
            self.holders[collection, i] = parent
        return self.first_of[collection, top]

    def create(self, collection: str, m: dict[str, Any], top: Id) -> Profile:
        named = [self.space, collection, str(len(top[0].encode())), *top]
        profile_id = hashlib.md5("\x1f".join(named).encode()).hexdigest()
        self.number += 1
        if any(f["taken"] and (f["collection"], f["id"]) == (collection, top)
               for f in self.decided):  # fmt: skip
            profile_id = hashlib.md5((profile_id + m["messageId"]).encode()).hexdigest()
        self.creators.add((collection, top))
        self.profiles.append((profile_id, collection, m["receivedAt"], m["messageId"]))
        return Profile(self.number, profile_id)

    def broken(self, found: list[Profile], ids: list[Id], at: dt.datetime) -> str | None:
        """The limit that the union of the found profiles and `ids` would break."""
        after = {i: at for i in ids} | {i: s for p in found for i, s in p.seen.items()}
        counts = Counter(kind for kind, _ in after)
        for kind in sorted(counts, key=self.rank):
            rule, most = self.rule(kind), max((count(p, kind) for p in found), default=0)
            days = DAYS.get(rule.per)
            since = dt.datetime.min.replace(tzinfo=dt.UTC)
            if days:
                since = at - dt.timedelta(days=days)
            until = at if days else dt.datetime.max.replace(tzinfo=dt.UTC)
            within = sum(k == kind and since < s <= until for (k, _), s in after.items())
            if within > rule.limit and counts[kind] > most:
                text = "ever" if rule.per == "ever" else f"per {rule.per}"
                return f"{kind}: {rule.limit} {text}"
        size, largest = len(after), max((len(p.seen) for p in found), default=0)
        if size > self.rules.max_identifiers and size > largest:
            return f"profile: at most {self.rules.max_identifiers} identifiers"
        merges = sum(p.merges for p in found) + len(found) - 1
        if len(found) > 1 and merges > self.rules.max_merges:
            return f"profile: at most {self.rules.max_merges} merges"
        return None

    def root(self, profile_id: str) -> str:
        while profile_id in self.root_of:
            profile_id = self.root_of[profile_id]
        return profile_id

    def links(self) -> list[Any]:
        """(user, account, first and last message) of all messages that name both."""
        named: dict[tuple[str, str], list[Any]] = {}
        for message_id, (at, user, account) in self.messages.items():
            if user and account:
                pair = (self.root(user), self.root(account))
                named.setdefault(pair, []).append((at, message_id))
        return [(*pair, *min(seen), *max(seen)) for pair, seen in named.items()]


def count(profile: Profile, kind: str) -> int:
    return sum(k == kind for k, _ in profile.seen)
