"""Preview of a definition: who would be in, as far as a person needs to see; nothing written."""

from __future__ import annotations

import datetime as dt
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from personas_dagster import masking
from personas_dagster.answers import lean
from personas_dagster.errors import PersonasError
from personas_dagster.interfaces import Session
from personas_dagster.project.declared import definition_of
from personas_dagster.project.loader import read_definition
from personas_dagster.query import Definition, check, parse
from personas_dagster.refresh import dated_definitions
from personas_dagster.spaces import Space

SAMPLE = 20
_KEY = "preview"

# All identifiers of the profiles that were found, read once.
_IDENTIFIERS = """
CREATE OR REPLACE TEMP TABLE found_identifiers AS
SELECT profile_id, type, value, first_seen_at FROM graph_identifiers
WHERE profile_id IN (SELECT profile_id FROM results WHERE key = $1)
"""
# Those with the smallest hash: the same sample each time, of any part of the audience.
_SAMPLE = """
WITH s AS (
    SELECT profile_id, value FROM results WHERE key = $1
    ORDER BY hash(profile_id), profile_id LIMIT {sample}
)
SELECT s.profile_id, s.value, coalesce(i.ids, '{{}}') AS ids
FROM s LEFT JOIN (
    SELECT profile_id, json_group_object(type, vs) AS ids FROM (
        SELECT profile_id, type, list(value ORDER BY first_seen_at, value) AS vs
        FROM found_identifiers WHERE profile_id IN (SELECT profile_id FROM s)
        GROUP BY ALL ORDER BY profile_id, type)
    GROUP BY profile_id
) i USING (profile_id)
ORDER BY s.profile_id
"""
_TYPES = """
SELECT type, count(DISTINCT profile_id) AS n
FROM found_identifiers GROUP BY type ORDER BY n DESC, type
"""
_OVERLAP = """
SELECT count(*) AS other, count(r.profile_id) AS together
FROM (SELECT DISTINCT profile_id FROM members WHERE audience = $2) m
LEFT JOIN (SELECT profile_id FROM results WHERE key = $1) r USING (profile_id)
"""


@dataclass(frozen=True)
class Overlap:
    """With another audience, as the last refresh stored it."""

    audience: str
    size: int
    both: int


@dataclass(frozen=True)
class Preview:
    """What a definition gives on stored data. Shares are of `size`; `seconds` is what it took."""

    key: str
    kind: str
    collection: str
    as_of: dt.datetime
    size: int
    sample: tuple[Mapping[str, Any], ...]
    identifiers: Mapping[str, float]
    overlap: Overlap | None
    warnings: tuple[str, ...]
    seconds: float

    def as_json(self) -> dict[str, Any]:
        """For one line of JSON."""
        overlap = self.overlap and {
            "audience": self.overlap.audience,
            "size": self.overlap.size,
            "both": self.overlap.both,
        }
        return {
            "key": self.key,
            "kind": self.kind,
            "collection": self.collection,
            "as_of": self.as_of,
            "size": self.size,
            "identifiers": dict(self.identifiers),
            "overlap": overlap,
            "sample": list(self.sample),
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 3),
        }


def of_text(space: Space, text: str, *, collection: Any = "users") -> Definition:
    """A query, as the definition that it would be with the defaults."""
    boolean = parse(text).type == "boolean"
    return Definition(
        key=_KEY,
        kind="audience" if boolean else "trait",
        collection=collection,
        query=text,
        include_anonymous=False if boolean else None,
    )


def of_file_or_key(space: Space, what: str) -> Definition:
    """The definition of a key of the space, or of a definition file (also one outside of it).

    Raises PersonasError when it is neither, DefinitionError when the file does not hold.
    """
    own = {one.key: one for one in dated_definitions(space)}
    if what in own:
        return own[what]
    path = Path(what)
    if not path.is_file():
        there = ", ".join(sorted(own)) or "none is declared"
        raise PersonasError(
            f"`{what}` is neither a file nor a key of space {space.name}; its keys: {there}"
        )
    return definition_of(read_definition(path).model)


def sql(space: Space, definition: Definition, *, as_of: dt.datetime) -> str:
    """The statements that a preview would run, in the engine's dialect."""
    return lean.plan_of(space, [definition], as_of=as_of).sql(space.engine.dialect)


def preview(
    space: Space,
    definition: Definition,
    *,
    as_of: dt.datetime | None = None,
    compare_with: str | None = None,
    has_pii: bool | None = None,
) -> Preview:
    """Evaluate a definition on what the last refresh published, writing nothing.

    `as_of`: by default the last refresh's. Without the permission `pii` (by default the
    operator's), personal identifiers and values of the sample are masked.
    """
    has_pii = space.operator_has_pii if has_pii is None else has_pii
    started = time.perf_counter()
    as_of = as_of or last_instant(space)
    if compare_with is not None and compare_with not in space.audience_keys:
        there = ", ".join(space.audience_keys) or "none is declared"
        raise PersonasError(
            f"no audience `{compare_with}` in space {space.name}; expected one of: {there}"
        )
    definition = replace(definition, key=definition.key or _KEY)
    with lean.evaluated(space, [definition], as_of=as_of) as session:
        size = _count(session, definition.key)
        session.run(_IDENTIFIERS, [definition.key])
        types = session.fetch(_TYPES).to_pylist()
        return Preview(
            key=definition.key,
            kind=definition.kind,
            collection=definition.collection,
            as_of=as_of,
            size=size,
            sample=_sample(session, definition, has_pii) if size else (),
            identifiers={row["type"]: round(row["n"] / size, 4) for row in types},
            overlap=_overlap(session, definition.key, compare_with) if compare_with else None,
            warnings=tuple(check(definition).warnings),
            seconds=time.perf_counter() - started,
        )


def last_instant(space: Space) -> dt.datetime:
    """The last refresh's `as_of`; PersonasError when there was none."""
    last = space.last_refresh()
    if last is None:
        raise PersonasError(f"space {space.name} has no finished refresh; run `personas refresh`")
    found: dt.datetime = last["as_of"]
    return found


def _count(session: Session, key: str) -> int:
    found: int = session.fetch("SELECT count(*) FROM results WHERE key = $1", [key])[0][0].as_py()
    return found


def _sample(
    session: Session, definition: Definition, has_pii: bool
) -> tuple[Mapping[str, Any], ...]:
    rows = session.fetch(_SAMPLE.format(sample=SAMPLE), [definition.key]).to_pylist()
    return tuple(
        {
            "profile_id": row["profile_id"],
            "external_ids": shown_ids(json.loads(row["ids"]), has_pii),
            "value": json.loads(
                row["value"] if has_pii else masking.mask_value(definition.query, row["value"])
            ),
        }
        for row in rows
    )


def shown_ids(identifiers: Mapping[str, list[str]], has_pii: bool) -> dict[str, list[str]]:
    """Identifiers by type, as one with or without `pii` may see them."""
    if has_pii:
        return dict(identifiers)
    return {
        kind: [masking.mask_id(kind, value) for value in values]
        for kind, values in identifiers.items()
    }


def _overlap(session: Session, key: str, other: str) -> Overlap:
    session.view("audience_memberships")
    row = session.fetch(_OVERLAP, [key, other]).to_pylist()[0]
    return Overlap(other, row["other"], row["together"])
