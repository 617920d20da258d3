"""Runs definitions over a small world with the compiler, as the oracle does without."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from random import Random
from typing import Any, cast

import pyarrow as pa

from personas_dagster.engines.duckdb import DuckDBEngine, DuckDBSession
from personas_dagster.interfaces import Lake
from personas_dagster.query import Definition, Layer, Plan, evaluate, parse, plan, typed_columns
from personas_dagster.query.compile_events import MESSAGES
from personas_dagster.query.sliced import can_be_sliced, evaluate_sliced
from personas_dagster.query.typed import filled
from tests.query.oracle import World

_INSTANT = pa.timestamp("us", tz="UTC")
_SCHEMAS = {
    "messages": {
        "event": pa.string(),
        "profile_id": pa.string(),
        "timestamp": _INSTANT,
        "received_at": _INSTANT,
        "message_id": pa.string(),
        "source_id": pa.string(),
        "properties": pa.string(),
        "context": pa.string(),
    },
    "profiles": {
        "collection": pa.string(),
        "profile_id": pa.string(),
        "is_known": pa.bool_(),
        "has_anonymous_id": pa.bool_(),
    },
    "traits": {name: pa.string() for name in ("collection", "profile_id", "key", "value")},
    "former_members": {name: pa.string() for name in ("audience", "profile_id")},
    "account_links": {name: pa.string() for name in ("user_profile_id", "account_profile_id")},
}


@contextmanager
def session() -> Iterator[DuckDBSession]:
    with DuckDBEngine(threads=1).session(cast(Lake, None)) as one:
        yield one


def results(
    session: DuckDBSession,
    world: World,
    definitions: Sequence[Definition],
    as_of: datetime,
    audiences: Collection[str] = (),
    chance: Random | None = None,
    slices: int = 1,
) -> dict[tuple[str, str, str], str]:
    """(collection, key, profile) to JSON text.

    With `chance`, messages lie in several layers, each with typed columns of its own; with
    `slices`, as many profiles' worth at a time are computed, where nobody's values hang on others'.
    """
    for name, rows in _relations(world).items():
        schema = pa.schema(list(_SCHEMAS[name].items()))
        session.register(name, pa.Table.from_pylist(rows, schema=schema))
    layers = _layers(session, definitions, chance) if chance else MESSAGES
    made = plan(definitions, as_of=as_of, audiences=audiences, layers=layers)
    if slices > 1 and can_be_sliced(made):
        _evaluate_sliced(session, made, [one.relation for one in layers], slices)
    else:
        evaluate(session, made)
    table = session.fetch("SELECT * FROM results")
    found = {}
    for row in table.to_pylist():
        name = row["collection"], row["key"], row["profile_id"]
        assert name not in found, f"two rows for {name}"
        found[name] = row["value"]
    return found


def _evaluate_sliced(session: DuckDBSession, made: Plan, layers: list[str], slices: int) -> None:
    limited = ["profiles", *layers]
    whole = {name: session.fetch(f"FROM {name}") for name in limited}
    for name in set(layers) - {MESSAGES[0].relation}:
        session.run(f"DROP TABLE {name}")

    def limit(number: int) -> None:
        for name, rows in whole.items():
            session.register("rows_of_all", rows)
            some = f"FROM rows_of_all WHERE hash(profile_id) % {slices} = {number}"
            session.register(name, session.fetch(some))

    evaluate_sliced(session, made, range(slices), limited=limited, limit=limit)
    for name in limited:
        session.connection.unregister(name)


def _layers(
    session: DuckDBSession, definitions: Sequence[Definition], chance: Random
) -> list[Layer]:
    """`messages` dealt out to three relations, whose typed columns the product fills."""
    columns = typed_columns(tuple(definitions))
    layers = []
    for number in range(3):
        some = chance.choice([columns, [], [one for one in columns if chance.random() < 0.5]])
        dealt = f"SELECT * FROM messages WHERE hash(message_id) % 3 = {number}"
        session.run(f"CREATE OR REPLACE TEMP VIEW dealt_{number} AS {dealt}")
        query = filled(some, f"dealt_{number}").sql("duckdb")
        session.run(f"CREATE OR REPLACE TEMP TABLE layer_{number} AS {query}")
        layers.append(Layer(f"layer_{number}", frozenset(one.name for one in some)))
    return layers


def _relations(world: World) -> dict[str, list[dict[str, Any]]]:
    return {
        "messages": [
            {
                "event": one.event,
                "profile_id": one.profile,
                "timestamp": one.timestamp,
                "received_at": one.received_at,
                "message_id": one.message_id,
                "source_id": one.source_id,
                "properties": None if one.properties is None else json.dumps(one.properties),
                "context": None if one.context is None else json.dumps(one.context),
            }
            for one in world.messages
        ],
        "profiles": [
            {
                "collection": one.collection,
                "profile_id": one.id,
                "is_known": one.is_known,
                "has_anonymous_id": one.has_anonymous_id,
            }
            for one in world.profiles
        ],
        "traits": [
            {
                "collection": collection,
                "profile_id": profile,
                "key": key,
                "value": json.dumps(value),
            }
            for (collection, profile), traits in world.traits.items()
            for key, value in traits.items()
        ],
        "former_members": [
            {"audience": audience, "profile_id": profile} for audience, profile in world.former
        ],
        "account_links": [
            {"user_profile_id": user, "account_profile_id": account}
            for user, account in sorted(world.links)
        ],
    }


def answer(
    query: str,
    world: World,
    as_of: datetime,
    *,
    collection: str = "users",
    others: Sequence[Definition] = (),
    audiences: Collection[str] = (),
    **options: Any,
) -> dict[str, Any]:
    """Evaluate one query: profile to value, True for the members of a condition."""
    kind = "audience" if parse(query).type == "boolean" else "trait"
    options = {"include_anonymous": None} | options
    definition = Definition("asked", kind, collection, query, **options)
    with session() as one:
        found = results(one, world, [*others, definition], as_of, audiences)
    return {
        profile: json.loads(value) for (_, key, profile), value in found.items() if key == "asked"
    }
