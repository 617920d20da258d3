"""Questions to what the last refresh published; nothing is written.

Ad hoc queries, one profile, the graph as lines.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa

from personas_dagster.errors import PersonasError, QueryError
from personas_dagster.interfaces import Lake, Session
from personas_dagster.query import (
    Definition,
    Layer,
    check,
    evaluate,
    parse,
    plan,
    typed_columns,
    unparse,
)
from personas_dagster.query.compile_events import MESSAGES
from personas_dagster.refresh import dated_definitions
from personas_dagster.spaces import Space
from personas_dagster.traits.custom import custom_values, show_custom_values
from personas_dagster.traits.world import prepare_world

_LAST_EVENTS = 10


@dataclass(frozen=True)
class Asked:
    """One ad hoc query: its line in the file it came from, and its definition."""

    line: int
    definition: Definition


def ask(
    texts: Sequence[str],
    *,
    collection: Literal["users", "accounts"] = "users",
    include_anonymous: bool = True,
) -> list[Asked]:
    """Queries ready to be planned together. QueryError names the line of a file of several."""
    found = []
    for number, text in enumerate(texts, start=1):
        if not text.strip() or text.lstrip().startswith("--"):
            continue
        try:
            boolean = parse(text).type == "boolean"
            definition = Definition(
                key=f"query_{number}",
                kind="audience" if boolean else "trait",
                collection=collection,
                query=text,
                include_anonymous=None if include_anonymous else False,
            )
            check(definition)
        except QueryError as error:
            if len(texts) == 1:
                raise
            raise QueryError(
                error.reason,
                line=number,
                column=error.column,
                found=error.found,
                expected=error.expected,
                suggestion=error.suggestion,
            ) from error
        found.append(Asked(number, definition))
    if not found:
        raise PersonasError("there is no query to answer; write at least one")
    return found


def _plan(
    space: Space, asked: Sequence[Asked], as_of: dt.datetime, layers: Sequence[Layer] = MESSAGES
) -> Any:
    definitions = _definitions(space, asked, as_of)
    return plan(definitions, as_of=as_of, audiences=space.audience_keys, layers=layers)


def _definitions(space: Space, asked: Sequence[Asked], as_of: dt.datetime) -> list[Definition]:
    definitions = [one.definition for one in asked]
    if is_past(space, as_of):
        definitions += referenced(space, definitions)
    return definitions


def is_past(space: Space, as_of: dt.datetime) -> bool:
    """Whether the values that the last refresh stored are not those of this instant."""
    last = space.last_refresh()
    return last is not None and as_of < last["as_of"]


def referenced(space: Space, definitions: Sequence[Definition]) -> list[Definition]:
    """The space's traits and audiences that the queries read, also through others."""
    own = {one.key: one for one in dated_definitions(space)}
    found: dict[str, Definition] = {}
    waiting = list(definitions)
    while waiting:
        for key in check(waiting.pop()).references:
            if key in own and key not in found:
                found[key] = own[key]
                waiting.append(own[key])
    return list(found.values())


def sql(space: Space, asked: Sequence[Asked], *, as_of: dt.datetime) -> str:
    """The statements that would be run, in the engine's dialect."""
    return str(_plan(space, asked, as_of).sql(space.engine.dialect))


def explain(
    space: Space, asked: Sequence[Asked], *, as_of: dt.datetime
) -> Iterator[dict[str, Any]]:
    """How each query is understood, and the steps of the plan that answers all of them."""
    for one in asked:
        checked = check(one.definition)
        yield {
            "query": one.line,
            "understood": unparse(checked.query),
            "type": checked.type,
            "events": sorted(checked.events),
            "references": sorted(checked.references),
            "warnings": list(checked.warnings),
        }
    steps = [name for name, _ in _plan(space, asked, as_of).statements]
    yield {"as_of": as_of, "steps": steps}


@contextmanager
def answers(space: Space, asked: Sequence[Asked], *, as_of: dt.datetime) -> Iterator[Session]:
    """A session that holds `results` for all queries.

    At an instant before the last refresh, what they reference is evaluated at it too.
    """
    with space.session() as session:
        if is_past(space, as_of):
            custom_values(session, as_of=as_of, promote=space.promotions, conflicts=space.conflicts)
            show_custom_values(session)
        typed = typed_columns(tuple(_definitions(space, asked, as_of)))
        layers = prepare_world(session, as_of=as_of, typed=typed)
        evaluate(session, _plan(space, asked, as_of, layers))
        yield session


def counts(session: Session, asked: Sequence[Asked]) -> Iterator[dict[str, Any]]:
    """How many profiles each query gives."""
    table = session.fetch("SELECT key, count(*) AS n FROM results GROUP BY key")
    found = {row["key"]: row["n"] for row in table.to_pylist()}
    for one in asked:
        yield {"query": one.line, "count": found.get(one.definition.key, 0)}


_ROWS = """
SELECT r.key, r.kind, r.profile_id, shown_value(a.query, r.value) AS value,
       coalesce(i.ids, '{}') AS ids
FROM results r JOIN asked a ON a.key = r.key
LEFT JOIN (
    SELECT profile_id, json_group_object(type, vs) AS ids FROM (
        SELECT profile_id, type,
               list(shown_id(type, value) ORDER BY first_seen_at, value) AS vs
        FROM graph_identifiers GROUP BY ALL ORDER BY profile_id, type)
    GROUP BY profile_id
) i USING (profile_id)
ORDER BY r.key, r.profile_id
"""


def rows(session: Session, asked: Sequence[Asked]) -> Iterator[dict[str, Any]]:
    """One row per profile with a value; for boolean queries only the members."""
    lines = {one.definition.key: one.line for one in asked}
    queries = {one.definition.key: one.definition.query for one in asked}
    # A query's own text is the key of its values: it names the traits that they come from.
    session.register("asked", pa.table({"key": list(queries), "query": list(queries.values())}))
    for batch in session.stream(_ROWS):
        for row in batch.to_pylist():
            yield {
                "query": lines[row["key"]],
                "profile_id": row["profile_id"],
                "external_ids": json.loads(row["ids"]),
                "value": json.loads(row["value"]),
            }


def audience_sizes(space: Space, lake: Lake, *, as_of: dt.datetime) -> dict[str, int]:
    """How many members each of the space's audiences has at `as_of`, on what `lake` holds.

    Custom and computed traits are evaluated on it too.
    """
    with space.session(lake) as session:
        custom_values(session, as_of=as_of, promote=space.promotions, conflicts=space.conflicts)
        show_custom_values(session)
        definitions = dated_definitions(space)
        layers = prepare_world(session, as_of=as_of, typed=typed_columns(tuple(definitions)))
        chosen = plan(definitions, as_of=as_of, audiences=space.audience_keys, layers=layers)
        evaluate(session, chosen)
        table = session.fetch("SELECT key, count(*) AS n FROM results GROUP BY key")
    found = {row["key"]: row["n"] for row in table.to_pylist()}
    return {key: found.get(key, 0) for key in space.audience_keys}


_FIND = """
SELECT DISTINCT profile_id, collection FROM graph_identifiers
WHERE type = $1 AND value = CASE WHEN $1 = 'email' THEN lower($2) ELSE $2 END
"""
_FIND_ID = """
SELECT r.root_id AS profile_id, p.collection
FROM graph_roots r JOIN graph_profiles p ON p.profile_id = r.root_id WHERE r.profile_id = $1
"""


def find(session: Session, identifier: str) -> tuple[str, str]:
    """A profile's id and collection, by `type:value`, its id, or a merged child's id.

    PersonasError when nobody holds it.
    """
    kind, _, value = identifier.partition(":")
    found = (
        session.fetch(_FIND, [kind, value.strip()])
        if value
        else session.fetch(_FIND_ID, [identifier])
    ).to_pylist()
    if not found:
        raise PersonasError(
            f"no profile holds {identifier}; give it as TYPE:VALUE, for example user_id:42, "
            "or run `personas refresh` if it came in just now"
        )
    return found[0]["profile_id"], found[0]["collection"]


def profile(session: Session, identifier: str) -> dict[str, Any]:
    """Everything known about one profile, by `type:value`, its id, or a merged child's id."""
    profile_id, collection = find(session, identifier)
    session.view("events")

    def all_of(query: str) -> list[dict[str, Any]]:
        return list(session.fetch(query, [profile_id]).to_pylist())

    created = all_of("SELECT created_at FROM graph_profiles WHERE profile_id = $1")
    return {
        "profile_id": profile_id,
        "collection": collection,
        "created_at": created[0]["created_at"] if created else None,
        "external_ids": all_of(
            "SELECT type, shown_id(type, value) AS id, first_seen_at AS created_at, source_id "
            "FROM graph_identifiers WHERE profile_id = $1 ORDER BY first_seen_at, type, value"
        ),
        "merged": [
            row["profile_id"]
            for row in all_of(
                "SELECT profile_id FROM graph_roots WHERE root_id = $1 AND profile_id <> $1 "
                "ORDER BY profile_id"
            )
        ],
        "traits": {
            row["key"]: {
                "value": json.loads(row["value"]),
                "class": row["class"],
                "updated_at": row["updated_at"],
                "source_id": row["source_id"],
            }
            for row in all_of(
                "SELECT key, shown_value(key, value) AS value, class, updated_at, source_id "
                "FROM trait_values WHERE profile_id = $1 ORDER BY key, class DESC"
            )
        },
        "audiences": {
            row["audience"]: row["entered_at"]
            for row in all_of(
                "SELECT audience, entered_at FROM members WHERE profile_id = $1 ORDER BY ALL"
            )
        },
        "accounts": [
            row["account_profile_id"]
            for row in all_of(
                "SELECT account_profile_id FROM graph_links WHERE user_profile_id = $1 ORDER BY ALL"
            )
        ],
        "events": [
            _event(row)
            for row in all_of(
                "SELECT e.message_id, e.type, e.event, e.timestamp, e.source_id, "
                "shown_text(e.properties) AS properties "
                "FROM events e JOIN graph_roots r ON r.profile_id = e.profile_id "
                "WHERE r.root_id = $1 "
                f"ORDER BY e.timestamp DESC, e.message_id LIMIT {_LAST_EVENTS}"
            )
        ],
    }


def _event(row: Mapping[str, Any]) -> dict[str, Any]:
    return {**row, "properties": json.loads(row["properties"] or "{}")}


_GRAPH = """
SELECT to_json({
    'profile_id': p.profile_id,
    'external_ids': coalesce(i.ids, []),
    'merged': coalesce(m.merged, [])
})::VARCHAR AS line
FROM graph_profiles p
LEFT JOIN (SELECT profile_id,
                  list({'type': type, 'id': shown_id(type, value)} ORDER BY type, value) AS ids
           FROM graph_identifiers GROUP BY profile_id) i USING (profile_id)
LEFT JOIN (SELECT root_id, list(profile_id ORDER BY profile_id) AS merged
           FROM graph_roots WHERE profile_id <> root_id GROUP BY root_id) m
    ON m.root_id = p.profile_id
ORDER BY p.profile_id
"""


def graph(session: Session) -> Iterator[str]:
    """One JSON line per profile, in the order of their ids."""
    for batch in session.stream(_GRAPH):
        yield from batch.column(0).to_pylist()
