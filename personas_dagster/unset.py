"""Keys that definitions read as custom traits and that no profile has: mistyped, or not said yet.

What belongs here: finding them in what the last refresh published, and telling people.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pyarrow as pa

from personas_dagster.interfaces import Session
from personas_dagster.query import Definition, check
from personas_dagster.query.suggestions import nearest
from personas_dagster.spaces import Space

_SAID = "SELECT DISTINCT {column} AS key FROM {log} WHERE {column} IN (FROM wanted) AND {there}"
_LOGS = {
    "custom_traits": ("key", "value <> 'null'"),
    "sql_traits": ("key", "value <> 'null'"),
    "computed_traits": ("key", "value <> 'null'"),  # of definitions that are gone
    "audience_memberships": ("audience", "true"),
}
_KEYS = "SELECT DISTINCT key FROM custom_traits UNION SELECT DISTINCT key FROM sql_traits"


def warnings(space: Space, definitions: Iterable[Definition]) -> dict[str, list[str]]:
    """What to tell about each definition (by its key) that reads a key which no profile has."""
    own = {one.key for one in space.definitions}
    read = {one.key: sorted(check(one).references - own) for one in definitions}
    wanted = {key for keys in read.values() for key in keys}
    if not wanted:
        return {}
    with space.engine.session(space.snapshot()) as session:
        told = _told(session, wanted, own)
    found = {of: [told[key] for key in keys if key in told] for of, keys in read.items()}
    return {of: texts for of, texts in found.items() if texts}


def _told(session: Session, wanted: set[str], own: set[str]) -> Mapping[str, str]:
    missing = wanted
    for log, (column, there) in _LOGS.items():
        session.view(log)
        if missing:
            session.register("wanted", pa.table({"key": pa.array(sorted(missing), pa.string())}))
            said = session.fetch(_SAID.format(log=log, column=column, there=there))
            missing = missing - set(said.column("key").to_pylist())
    if not missing:
        return {}
    known = own | set(session.fetch(_KEYS).column(0).to_pylist())
    return {key: _text(key, nearest(key, known)) for key in sorted(missing)}


def _text(key: str, near: str | None) -> str:
    meant = f"; did you mean `{near}`?" if near else ""
    return f"`{key}` has no definition and is read as a custom trait, which no profile has{meant}"
