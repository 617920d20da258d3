"""The registry of keys: each key that ever existed in a space, and what it was used for."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from personas_dagster.errors import PersonasError
from personas_dagster.state.schema import registry
from personas_dagster.state.store import State


def register(
    state: State, definitions: Mapping[str, tuple[str, Mapping[str, Any]]], *, now: dt.datetime
) -> None:
    """Bring the registry in step with the space's definitions: key -> (kind, definition).

    A key is never used again for another definition after its own is gone, nor for another
    kind: that is a PersonasError which says when and by what it was used.
    """
    with state.begin() as connection:
        known = {row["key"]: row for row in connection.execute(sa.select(registry)).mappings()}
        for key, (kind, definition) in definitions.items():
            row = known.get(key)
            if row is None:
                connection.execute(
                    sa.insert(registry).values(
                        key=key, kind=kind, definition=dict(definition), created_at=now
                    )
                )
                continue
            gone = row["deleted_at"]
            if row["kind"] != kind or (gone and row["definition"] != dict(definition)):
                until = f" until {gone:%Y-%m-%d}" if gone else ""
                query = " ".join(str(row["definition"]["query"]).split())  # in one line
                raise PersonasError(
                    f"key `{key}` was used by the {row['kind']} «{query}» "
                    f"from {row['created_at']:%Y-%m-%d}{until}, and a key is never used again; "
                    "choose another key, or put the same definition back"
                )
            if gone or row["definition"] != dict(definition):
                connection.execute(
                    sa.update(registry)
                    .where(registry.c.key == key)
                    .values(definition=dict(definition), deleted_at=None)
                )
        gone_keys = [
            k for k, row in known.items() if k not in definitions and not row["deleted_at"]
        ]
        for key in gone_keys:
            connection.execute(
                sa.update(registry).where(registry.c.key == key).values(deleted_at=now)
            )


def created(state: State) -> dict[str, dt.datetime]:
    """When each key that is in use was first registered."""
    query = sa.select(registry.c.key, registry.c.created_at).where(registry.c.deleted_at.is_(None))
    return {row["key"]: row["created_at"] for row in state.rows(query)}
