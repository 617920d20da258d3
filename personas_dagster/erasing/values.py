"""Values, memberships, histories and deliveries of a person's profiles, out of the lake."""

from __future__ import annotations

import pyarrow as pa

from personas_dagster.erasing.person import Person
from personas_dagster.interfaces import Engine, Lake
from personas_dagster.lake.tables import IDENTITY_TABLES, TABLES

LEDGER = "ledger"
_DERIVED = {"events", *IDENTITY_TABLES, *(f"candidate_{name}" for name in IDENTITY_TABLES)}
OF_PROFILES = tuple(
    name
    for name, table in TABLES.items()
    if "profile_id" in table.schema.names and name not in _DERIVED and name != LEDGER
)
_ARE = "profile_id IN (SELECT profile_id FROM gone)"
_OR_NAMED = f"({_ARE} OR coalesce(regexp_matches(recipient, $1), false))"


def remove(lake: Lake, engine: Engine, person: Person) -> dict[str, int]:
    """Remove the rows of the person's profiles; how many, by table."""
    return {name: n for name in OF_PROFILES if (n := _remove(lake, engine, person, name))}


def remove_deliveries(lake: Lake, engine: Engine, person: Person) -> int:
    """Remove what the ledger holds of the person: also under ids that were sent elsewhere."""
    return _remove(lake, engine, person, LEDGER)


def _remove(lake: Lake, engine: Engine, person: Person, name: str) -> int:
    if not lake.files(name):
        return 0
    are, parameters = (_OR_NAMED, [person.pattern]) if name == LEDGER else (_ARE, [])
    with engine.session(lake) as session:
        session.view(name)
        session.register("gone", pa.table({"profile_id": list(person.profile_ids)}))
        found = session.fetch(f"SELECT count(*) FROM {name} WHERE {are}", parameters)
        rows = int(found.column(0)[0].as_py())
        if rows:
            kept = session.stream(f"SELECT * FROM {name} WHERE NOT {are}", parameters)
            lake.replace(name, kept)
    return rows
