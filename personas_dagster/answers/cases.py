"""Tests inside definition files: given these messages, at this instant, expect that.

A case goes the way of real messages (decoder, identity resolution, custom traits, the compiler),
over tables in memory. Nothing is stored.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from personas_dagster.engines.memory import MemoryLake, memory_session
from personas_dagster.errors import PersonasError, Problem
from personas_dagster.events.decoding import Decoder, FileFacts
from personas_dagster.events.lines import BATCH
from personas_dagster.events.reasons import REASONS
from personas_dagster.events.resolved import append_resolved
from personas_dagster.events.settings import EventSettings
from personas_dagster.identity import views
from personas_dagster.identity.assignment import resolve_messages
from personas_dagster.identity.loads import GRAPH_TABLES
from personas_dagster.identity.propose import propose
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.interfaces import Session
from personas_dagster.project import models
from personas_dagster.project.declared import Declared, query_definitions
from personas_dagster.query import Definition, check, evaluate, plan
from personas_dagster.spaces import Space
from personas_dagster.traits.custom import custom_values, show_custom_values
from personas_dagster.traits.world import prepare_values, prepare_world

_MOST_NAMES = 5
_NAMES = """
SELECT p.profile_id, coalesce(
    min(value) FILTER (WHERE type IN ('user_id', 'group_id')), min(type || ':' || value),
    p.profile_id) AS name
FROM graph_profiles p LEFT JOIN graph_identifiers i USING (profile_id)
WHERE p.collection = $1 GROUP BY p.profile_id
"""
_FIND = """
SELECT DISTINCT profile_id FROM graph_identifiers
WHERE collection = $1
  AND (type = $2 AND value = $3 OR type = split_part($3, ':', 1)
       AND value = substr($3, position(':' IN $3) + 1))
"""


@dataclass(frozen=True)
class Ran:
    """How many cases there were, and what did not come out as expected."""

    cases: int
    problems: list[Problem]


class _Failed(Exception):
    """A case that does not hold: where in it, and why."""

    def __init__(self, place: tuple[str | int, ...], reason: str) -> None:
        self.place = place
        super().__init__(reason)


def run(space: Space) -> Ran:
    """Run every case of every computed trait and audience of the project.

    The identity rules and promotions are those of `space`.
    """
    found = query_definitions(space.project, lambda model: True)
    among = {key: definition for key, _, definition in found}
    cases = 0
    problems: list[Problem] = []
    for key, declared, _ in found:
        for index, case in enumerate(declared.model.tests):
            cases += 1
            problems += _run(space, among, key, declared, index, case)
    return Ran(cases, problems)


def _run(
    space: Space,
    among: Mapping[str, Definition],
    key: str,
    declared: Declared[Any],
    index: int,
    case: models.CaseModel,
) -> Iterator[Problem]:
    try:
        lake = MemoryLake()
        with memory_session(lake) as session:
            _take(session, lake, space.rules, case)
        with memory_session(lake) as session:
            _evaluate(session, space, among, key, case.at)
            _compare(session, among[key], case.expect)
    except _Failed as failed:
        name = f"«{case.name}»: " if case.name else ""
        yield declared.document.problem(("tests", index, *failed.place), f"{name}{failed}")
    except PersonasError as error:
        yield declared.document.problem(("tests", index), str(error))


def _take(session: Session, lake: MemoryLake, rules: IdentityRules, case: models.CaseModel) -> None:
    """Decode the messages and resolve them to profiles."""
    settings = EventSettings()
    facts = FileFacts(1, 1, "case", case.at, settings.max_properties, settings.oversize_bytes)
    texts = [
        json.dumps(_message(one, number, case.at), default=_plain)
        for number, one in enumerate(case.given)
    ]
    lines = [
        {"file_id": 1, "line": number, "raw": text} for number, text in enumerate(texts, start=1)
    ]
    rows = Decoder(session, [facts]).decode(pa.Table.from_pylist(lines, schema=BATCH))
    for row in rows.filter(rows["is_rejected"]).to_pylist():
        reason = REASONS.get(row["reason"], row["reason"])
        detail = f" ({row['detail']})" if row["detail"] else ""
        raise _Failed(
            ("given", row["line"] - 1), f"this message would be rejected: {reason}{detail}"
        )
    lake.append("raw_events", rows)
    load = {"after_load": 0, "through_load": 1}
    propose(session, lake, rules, space_id="case", load_id=1, **load)
    for table in GRAPH_TABLES:
        lake.replace(table, lake.table(f"candidate_{table}"))
    resolve_messages(session, rules, **load)
    append_resolved(session, lake, load_id=1)


def _message(given: Mapping[str, Any], number: int, at: dt.datetime) -> dict[str, Any]:
    """A message with what may be left out filled in."""
    kind = "track" if "event" in given else "group" if "groupId" in given else "identify"
    message = {"type": kind, "messageId": f"case-{number}", "timestamp": at, **given}
    return {"receivedAt": message["timestamp"], **message}


def _plain(value: object) -> str:
    """Dates of YAML as the text that stands in the file, in UTC where no zone is given."""
    if isinstance(value, dt.datetime):
        return (value if value.tzinfo else value.replace(tzinfo=dt.UTC)).isoformat()
    return str(value)


def _evaluate(
    session: Session,
    space: Space,
    among: Mapping[str, Definition],
    key: str,
    at: dt.datetime,
) -> None:
    """Leave `results` of the definition and of all that it references."""
    views.prepare(session)
    prepare_values(session, defined=list(among))
    custom_values(session, as_of=at, promote=space.promotions, conflicts=space.conflicts)
    show_custom_values(session)
    prepare_world(session, as_of=at)
    chosen, waiting = {key: among[key]}, [among[key]]
    while waiting:
        for reference in check(waiting.pop()).references:
            if reference in among and reference not in chosen:
                chosen[reference] = among[reference]
                waiting.append(among[reference])
    evaluate(session, plan(list(chosen.values()), as_of=at))


def _compare(session: Session, definition: Definition, expect: models.ExpectModel) -> None:
    given = next(iter(expect.model_fields_set))
    rows = session.fetch(
        "SELECT profile_id, value FROM results WHERE key = $1", [definition.key]
    ).to_pylist()
    found = {row["profile_id"]: json.loads(row["value"]) for row in rows}
    names = {
        row["profile_id"]: row["name"]
        for row in session.fetch(_NAMES, [definition.collection]).to_pylist()
    }
    absent = False if definition.kind == "audience" else None
    if given == "members":
        if definition.kind != "audience":
            raise _Failed(("expect", given), "a trait has no members; expect `value` or `values`")
        _members(session, definition, expect.members or (), found, names)
        return
    wanted: dict[str, Any] = {}
    if given == "value":
        if len(names) != 1:
            raise _Failed(
                ("expect", given),
                f"the case is about {len(names)} {definition.collection}, expected one; say "
                "`values` with a value for each",
            )
        wanted = {next(iter(names)): expect.value}
    else:
        for name, value in (expect.values or {}).items():
            wanted[_profile(session, definition, name, ("expect", given, name))] = value
    for profile, value in wanted.items():
        here = found.get(profile, absent)
        if not _same(here, value):
            place = ("expect", given, names[profile]) if given == "values" else ("expect", given)
            raise _Failed(
                place, f"expected {_shown(value)}, found {_shown(here)} for {names[profile]}"
            )


def _members(
    session: Session,
    definition: Definition,
    wanted: Sequence[str],
    found: Mapping[str, Any],
    names: Mapping[str, str],
) -> None:
    place = ("expect", "members")
    people = {
        _profile(session, definition, name, (*place, number)): name
        for number, name in enumerate(wanted)
    }
    missing = sorted(name for profile, name in people.items() if profile not in found)
    extra = sorted(names[profile] for profile in found if profile not in people)
    if missing or extra:
        said = [f"{_some(missing)} should be in and is not"] if missing else []
        said += [f"{_some(extra)} is in and should not be"] if extra else []
        raise _Failed(place, "; ".join(said))


def _profile(
    session: Session, definition: Definition, name: str, place: tuple[str | int, ...]
) -> str:
    kind = "user_id" if definition.collection == "users" else "group_id"
    found = session.fetch(_FIND, [definition.collection, kind, name]).column(0).to_pylist()
    if len(found) != 1:
        raise _Failed(place, f"no message of this case has {kind} `{name}`")
    return str(found[0])


def _same(here: Any, wanted: Any) -> bool:
    plain = json.loads(json.dumps(wanted, default=_plain))
    return isinstance(here, bool) == isinstance(plain, bool) and bool(here == plain)


def _shown(value: Any) -> str:
    return "no value" if value is None else json.dumps(value, ensure_ascii=False, default=_plain)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
