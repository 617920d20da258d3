"""What the state database says of a person: facts, intents, and words in records of work done.

Records stay, with the person's identifiers replaced by `(deleted)`.
"""

from __future__ import annotations

import json
import re
from typing import Any

import sqlalchemy as sa

from personas_dagster.erasing.person import Person
from personas_dagster.state import State
from personas_dagster.state.schema import (
    deletions,
    identity_facts,
    intents,
    metadata,
    suppression_salt,
    suppressions,
)

GONE = "(deleted)"
_OWN = (deletions, suppressions, suppression_salt)


def redact(state: State, person: Person) -> int:
    """Remove or redact every row that names the person; how many."""
    with state.begin() as connection:
        changed = _facts(connection, person) + _intents(connection, person)
        for table in metadata.sorted_tables:
            if table not in _OWN:
                changed += _words(connection, table, re.compile(person.pattern))
    return changed


def _facts(connection: sa.Connection, person: Person) -> int:
    """What was decided about the person's identifiers; they are suppressed from now on."""
    changed, mine = 0, {_pair(one) for one in person.identifiers}
    for row in connection.execute(sa.select(identity_facts)).mappings().all():
        key = identity_facts.c.fact_id == row["fact_id"]
        if row["collection"] == "users" and (row["type"], row["value"]) in mine:
            connection.execute(sa.delete(identity_facts).where(key))
            changed += 1
        elif kept := [one for one in row["details"]["company"] if _pair(one) not in mine]:
            if len(kept) < len(row["details"]["company"]):
                details = {**row["details"], "company": kept}
                connection.execute(sa.update(identity_facts).where(key).values(details=details))
                changed += 1
    return changed


def _pair(one: Any) -> tuple[str, str]:
    kind, value = one
    return kind, value


def _intents(connection: sa.Connection, person: Person) -> int:
    """Deliveries that were under way when a process died."""
    changed, profiles = 0, set(person.profile_ids)
    for row in connection.execute(sa.select(intents)).mappings().all():
        rows, outcomes = row["rows"], row["outcomes"]
        kept = [i for i, one in enumerate(rows["rows"]) if one[0] not in profiles]
        if len(kept) == len(rows["rows"]):
            continue
        changed += len(rows["rows"]) - len(kept)
        rows = {**rows, "rows": [rows["rows"][i] for i in kept]}
        if outcomes:
            outcomes = {**outcomes, "rows": [outcomes["rows"][i] for i in kept]}
        of = intents.c.intent_id == row["intent_id"]
        connection.execute(sa.update(intents).where(of).values(rows=rows, outcomes=outcomes))
    return changed


def _words(connection: sa.Connection, table: sa.Table, pattern: re.Pattern[str]) -> int:
    changed = 0
    keys = list(table.primary_key)
    columns = [c for c in table.columns if isinstance(c.type, sa.String | sa.JSON)]
    if not columns:
        return 0
    for row in connection.execute(sa.select(*{*keys, *columns})).mappings().all():
        values = {c: row[c.name] for c in columns if not c.primary_key}
        new = {c.name: clean(value, pattern) for c, value in values.items()}
        if any(new[c.name] != value for c, value in values.items()):
            of = [key == row[key.name] for key in keys]
            connection.execute(sa.update(table).where(*of).values(new))
            changed += 1
    return changed


def clean(value: Any, pattern: re.Pattern[str]) -> Any:
    """The same JSON value without texts that hold an identifier."""
    if isinstance(value, str):
        if pattern.search(json.dumps(value, ensure_ascii=False)):  # a short value, by itself
            return pattern.sub(GONE, value) if pattern.search(value) else GONE
        return value
    if isinstance(value, dict):
        return {clean(key, pattern): clean(part, pattern) for key, part in value.items()}
    if isinstance(value, list):
        return [clean(part, pattern) for part in value]
    return value
