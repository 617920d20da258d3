"""What one profile shows: one indexed read of the store for each question.

What belongs here: queries that SQLite and PostgreSQL read alike, and what their rows mean. How
it is put into an answer is `serving.profile_api`'s.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from personas_dagster.profiles.rows import CLASSES
from personas_dagster.profiles.store import ProfileStore
from personas_dagster.profiles.tables import OF_ANY_LANE, OF_ANY_PART

_BY_IDENTIFIER = (
    "SELECT coalesce(c.profile_id, i.profile_id) AS profile_id "
    "FROM identifiers i LEFT JOIN parents c ON c.child_id = i.profile_id "
    "WHERE i.type = :type AND i.value = :value AND i.collection = :collection"
)
_BY_ID = (
    "SELECT profile_id FROM profiles WHERE profile_id = :value AND collection = :collection "
    "UNION ALL SELECT p.profile_id FROM parents c JOIN profiles p ON p.profile_id = c.profile_id "
    "WHERE c.child_id = :value AND p.collection = :collection"
)
_AS_OF = "(SELECT facts FROM held) AS facts"
_SHOWN = (
    "WHERE t.refresh_id > coalesce((SELECT f.through FROM traits f "
    "WHERE f.profile_id = t.profile_id), 0)"
)
_TRAITS = (
    f"SELECT w.profile_id, {_AS_OF}, t.body, 0 AS refresh_id "
    "FROM ({who}) w LEFT JOIN traits t ON t.profile_id = w.profile_id "
    f"UNION ALL SELECT w.profile_id, {_AS_OF}, t.body, t.refresh_id "
    f"FROM ({{who}}) w JOIN trait_changes t ON t.profile_id = w.profile_id AND t.{OF_ANY_LANE} "
    f"{_SHOWN} ORDER BY refresh_id"
)
_TRAITS_OF = (
    "SELECT profile_id, body, 0 AS refresh_id FROM traits WHERE profile_id IN ({listed}) "
    "UNION ALL SELECT t.profile_id, t.body, t.refresh_id FROM trait_changes t "
    f"{_SHOWN} AND t.profile_id IN ({{listed}}) AND t.{OF_ANY_LANE} ORDER BY refresh_id"
)
_EXTERNAL_IDS = (
    f"SELECT w.profile_id, {_AS_OF}, p.external_ids "
    "FROM ({who}) w JOIN profiles p ON p.profile_id = w.profile_id"
)
_METADATA = (
    f"SELECT w.profile_id, {_AS_OF}, p.created_at, p.updated_at, p.first_message_id, "
    "p.first_source_id, p.last_message_id, p.last_source_id "
    "FROM ({who}) w JOIN profiles p ON p.profile_id = w.profile_id"
)
_LINKS = (
    f"SELECT w.profile_id, {_AS_OF}, l.to_profile_id, l.to_collection, t.external_ids "
    "FROM ({who}) w "
    "LEFT JOIN links l ON l.profile_id = w.profile_id AND l.to_profile_id > :after "
    "LEFT JOIN profiles t ON t.profile_id = l.to_profile_id "
    "ORDER BY l.to_profile_id LIMIT :limit"
)
_EVENTS = (
    f"SELECT w.profile_id, {_AS_OF}, e.at, e.message_id, e.event, e.body FROM ({{who}}) w "
    f"LEFT JOIN events e ON e.profile_id = w.profile_id AND e.{OF_ANY_PART} "
    "AND e.at >= (SELECT events_since FROM held) "
    "AND e.at >= :start AND e.at < :end {more} "
    "ORDER BY e.at {sort}, e.message_id {sort} "
    "LIMIT :limit"
)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_ASKED = 500  # profiles in one query: databases limit its parameters
_END = 9_000_000_000_000_000_000


class Trait(msgspec.Struct, array_like=True):
    """A value as the store has it; `value` is JSON."""

    key: str
    rank: int
    value: msgspec.Raw
    source_id: str | None
    updated: int

    @property
    def trait_class(self) -> str:
        return CLASSES[self.rank]

    @property
    def updated_at(self) -> str:
        return instant(self.updated)


class ExternalId(msgspec.Struct, array_like=True):
    """An identifier as the store has it."""

    type: str
    id: str
    source_id: str | None
    created: int
    first_message_id: str | None

    @property
    def created_at(self) -> str:
        return instant(self.created)


class EventBody(msgspec.Struct, array_like=True):
    """What of a message is not in columns of its own."""

    type: str
    source_id: str | None
    external_ids: list[tuple[str, str, str]]  # collection, type, id
    properties: msgspec.Raw
    context: msgspec.Raw


@dataclass(frozen=True)
class Event:
    """A message of a profile; `at` is its time in microseconds since 1970."""

    at: int
    message_id: str
    name: str | None
    body: EventBody

    @property
    def timestamp(self) -> str:
        return instant(self.at)


_EVENT = msgspec.json.Decoder(EventBody)
_TRAIT_LIST = msgspec.json.Decoder(list[Trait])
_ID_LIST = msgspec.json.Decoder(list[ExternalId])
_FACTS = msgspec.json.Decoder(dict[str, Any])


@dataclass(frozen=True)
class Wanted:
    """Which profile: by an identifier, its id, or the id of one that was merged into it."""

    collection: str
    text: str  # `type:value`, or an id

    def bound(self) -> tuple[str, dict[str, str]]:
        """The query that finds it, and its parameters."""
        kind, colon, value = self.text.partition(":")
        if not colon:
            return _BY_ID, {"collection": self.collection, "value": self.text}
        value = value.strip().lower() if kind == "email" else value.strip()
        return _BY_IDENTIFIER, {"collection": self.collection, "type": kind, "value": value}


@dataclass(frozen=True)
class Found:
    """The profile's id, the instant of the refresh that the store holds, and the rest of rows."""

    profile_id: str
    as_of: dt.datetime
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class EventsWanted:
    """Which events: times are inclusive, exclusive; `after` is the last one of the page before."""

    limit: int
    ascending: bool = False
    start: dt.datetime | None = None
    end: dt.datetime | None = None
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()
    after: tuple[int, str] | None = None


def traits(store: ProfileStore, wanted: Wanted) -> tuple[Found, list[Trait]] | None:
    """Every trait, by key and class; None when there is no such profile."""
    found = _find(store, wanted, _TRAITS)
    return None if found is None else (found, added_up(body for body, _ in found.rows))


def added_up(bodies: Iterable[str | None]) -> list[Trait]:
    """What a profile's rows of traits say together, the oldest first: later values hold."""
    values = {
        (one.key, one.rank): one for body in bodies for one in _TRAIT_LIST.decode(body or "[]")
    }
    return [one for _, one in sorted(values.items()) if bytes(one.value) != b"null"]


def folded(bodies: Iterable[str]) -> str:
    """The body that says what these say together."""
    return msgspec.json.encode(added_up(bodies)).decode()


def trait_bodies(store: ProfileStore, profile_ids: Sequence[str]) -> dict[str, list[str]]:
    """The rows of traits of each of these profiles, the oldest first."""
    found: dict[str, list[str]] = {one: [] for one in profile_ids}
    for start in range(0, len(profile_ids), _ASKED):
        some = profile_ids[start : start + _ASKED]
        marks = {f"id{number}": one for number, one in enumerate(some)}
        listed = ", ".join(f":{mark}" for mark in marks)
        for profile_id, body, _ in store.rows(_TRAITS_OF.format(listed=listed), marks):
            found[profile_id].append(body)
    return found


def external_ids(store: ProfileStore, wanted: Wanted) -> tuple[Found, list[ExternalId]] | None:
    """Every identifier, the oldest first."""
    found = _find(store, wanted, _EXTERNAL_IDS)
    return None if found is None else (found, _oldest_first(found.rows[0][0]))


def _oldest_first(body: str | None) -> list[ExternalId]:
    found: list[ExternalId] = _ID_LIST.decode(body or "[]")
    return sorted(found, key=lambda one: (one.created, one.type, one.id))


def metadata(store: ProfileStore, wanted: Wanted) -> tuple[Found, dict[str, Any]] | None:
    """First and last message, and when."""
    found = _find(store, wanted, _METADATA)
    if found is None:
        return None
    created, updated, first, first_source, last, last_source = found.rows[0]
    return found, {
        "created_at": created and instant(created),
        "updated_at": updated and instant(updated),
        "expires_at": None,
        "first_message_id": first,
        "first_source_id": first_source,
        "last_message_id": last,
        "last_source_id": last_source,
    }


def links(
    store: ProfileStore, wanted: Wanted, *, limit: int, after: str = ""
) -> tuple[Found, list[tuple[str, str, list[ExternalId]]]] | None:
    """Linked profiles after one, by id: id, collection, identifiers."""
    found = _find(store, wanted, _LINKS, limit=limit, after=after)
    if found is None:
        return None
    return found, [(to, kind, _oldest_first(body)) for to, kind, body in found.rows if to]


def events(
    store: ProfileStore, wanted: Wanted, asked: EventsWanted
) -> tuple[Found, list[Event]] | None:
    """Events, of which the store keeps 14 days.

    A message that came once more after `dedupe_days` may lie in another part: it is shown once.
    """
    found: Found | None = None
    shown: dict[tuple[int, str], Event] = {}
    while True:
        left = asked.limit - len(shown)
        page = _page(
            store, wanted, replace(asked, limit=left, after=next(reversed(shown), asked.after))
        )
        if page is None:
            return None
        found = found or page[0]
        for one in page[1]:
            shown.setdefault((one.at, one.message_id), one)
        if len(page[1]) < left or len(shown) == asked.limit:
            return found, list(shown.values())


def _page(
    store: ProfileStore, wanted: Wanted, asked: EventsWanted
) -> tuple[Found, list[Event]] | None:
    """Up to `limit` rows of events, twice where the same message lies in two parts."""
    more, parameters = [], dict[str, Any](limit=asked.limit)
    if asked.after:
        more.append(f"AND (e.at, e.message_id) {'>' if asked.ascending else '<'} (:at, :message)")
        parameters |= {"at": asked.after[0], "message": asked.after[1]}
    for names, some in ((asked.include, ""), (asked.exclude, "NOT ")):
        if names:
            marks = {f"{some[:1]}name{n}": name for n, name in enumerate(names)}
            listed = ", ".join(f":{mark}" for mark in marks)
            more.append(f"AND e.event {some}IN ({listed})")
            parameters |= marks
    found = _find(
        store,
        wanted,
        _EVENTS,
        more=" ".join(more),
        sort="ASC" if asked.ascending else "DESC",
        start=_micros(asked.start) if asked.start else 0,
        end=_micros(asked.end) if asked.end else _END,
        **parameters,
    )
    if found is None:
        return None
    return found, [
        Event(at, message, name, _EVENT.decode(body))
        for at, message, name, body in found.rows
        if body
    ]


def _find(
    store: ProfileStore,
    wanted: Wanted,
    query: str,
    *,
    more: str = "",
    sort: str = "",
    **parameters: Any,
) -> Found | None:
    who, bound = wanted.bound()
    if "\0" in wanted.text:  # no identifier has one, and PostgreSQL takes none
        return None
    text = query.format(who=who, more=more, sort=sort)
    rows = store.rows(text, {**bound, **parameters})
    if not rows:
        return None
    facts: Mapping[str, Any] = _FACTS.decode(rows[0][1])
    as_of = dt.datetime.fromisoformat(facts["as_of"])
    return Found(rows[0][0], as_of, [row[2:] for row in rows])


def _micros(instant: dt.datetime) -> int:
    return int(instant.timestamp() * 1_000_000)


def instant(micros: int) -> str:
    """ISO 8601, UTC."""
    found = _EPOCH + dt.timedelta(microseconds=micros)
    return found.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
