"""Deleting a person, step by step; a deletion that was killed is finished by the next.

1. The identifiers go onto the suppression list: from here on no load stores the person's messages.
2. Messages leave `raw_events`, `rejected_events` and the landing copies.
3. The graph and `events` are derived anew from what is left, values and memberships leave their
   tables, and that is published.
4. Destinations that were told something are synced: lists lose the person, audiences are left.
5. The ledger, earlier versions of all tables and words in records go; the profile store follows.
"""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import sqlalchemy as sa

from personas_dagster import deliver, intake, refresh
from personas_dagster.erasing import exports, messages, records, scanning, values
from personas_dagster.erasing.person import Person, find
from personas_dagster.errors import PersonasError
from personas_dagster.identity import rebuilding
from personas_dagster.identity.facts import Identifier
from personas_dagster.lake.tables import TABLES
from personas_dagster.spaces import Space
from personas_dagster.state.schema import deletions, suppressions
from personas_dagster.suppressing import suppressed

Step = Callable[[str], None]


@dataclass(frozen=True)
class Receipt:
    """What was deleted: counts only, so that it names nobody."""

    deletion_id: int
    at: dt.datetime
    by: str
    profiles: int
    identifiers: dict[str, int]  # by type
    rows: dict[str, int]  # by table; `landing`: lines of landed files, `records`: rows redacted
    destinations: dict[str, str] = field(default_factory=dict)  # what became of telling each

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def look_up(space: Space, identifier: Identifier) -> Person:
    """The person who holds an identifier. NotFound when nobody does."""
    with space.engine.session(space.lake) as session:
        return find(session, identifier)


def erase(
    space: Space,
    identifier: Identifier,
    *,
    now: dt.datetime,
    by: str,
    step: Step = lambda _: None,
) -> tuple[Receipt, Person]:
    """Delete the person who holds an identifier, and finish what an earlier call left.

    Raises NotFound when no profile holds it, and PersonasError when somebody else is at work.
    """
    with _alone(space, "refresh"):
        step("taking in what has landed")
        intake.take_in(space, now=now)
        refresh.derive_anew(space, now=now)
        left = [row for row in _unfinished(space) if _holds(row, identifier)]
        if not left:
            _begin(space, look_up(space, identifier), now=now, by=by)
        done = [(_carry_out(space, row, now=now, step=step), _person(row["payload"]))
                for row in _unfinished(space)]  # fmt: skip
    mine = [one for one in done if tuple(identifier[1:]) in one[1].identifiers]
    return (mine or done)[-1]


def is_open(space: Space, identifier: Identifier) -> bool:
    """Whether a deletion of its person was begun and not finished."""
    return any(_holds(row, identifier) for row in _unfinished(space))


def is_suppressed(space: Space, identifier: Identifier) -> bool:
    """Whether messages that name it are not stored any more."""
    found = suppressed(space.state)
    return found.hash_of(*identifier[1:]) in found.hashes


def leftovers(space: Space, person: Person, more: Sequence[Path] = ()) -> list[Path]:
    """The files of the space that still hold an identifier of the person."""
    spilled = space.project.root / space.settings.engine.temp_directory
    roots = [space.landing_folder, spilled, *exports.written(space.state), *more]
    if "://" not in str(space.settings.lake.location):
        roots.append(space.project.root / str(space.settings.lake.location))
    url = space.state.url
    if url.get_backend_name() == "sqlite" and url.database:
        database = Path(url.database)
        roots += [path for path in database.parent.glob(f"{database.name}*") if path.is_file()]
        roots += [path for path in database.parent.iterdir() if path.is_dir()]
    return scanning.scan(roots, person)


def _begin(space: Space, person: Person, *, now: dt.datetime, by: str) -> None:
    payload = {"profile_ids": person.profile_ids, "identifiers": person.identifiers}
    hashed = suppressed(space.state).of(person.identifiers)
    there = suppressed(space.state).hashes
    with space.state.begin() as connection:
        row = sa.insert(deletions).values(
            status="started", started_at=now, by=by, payload=payload, counts={}
        )
        number = connection.execute(row.returning(deletions.c.deletion_id)).scalar_one()
        new = [{"sha256": one, "deletion_id": number, "at": now} for one in hashed.hashes - there]
        if new:
            connection.execute(sa.insert(suppressions), new)


def _unfinished(space: Space) -> list[dict[str, Any]]:
    query = sa.select(deletions).where(deletions.c.status == "started")
    return space.state.rows(query.order_by(deletions.c.deletion_id))


def _person(payload: dict[str, Any]) -> Person:
    return Person(
        tuple(payload["profile_ids"]),
        tuple((kind, value) for kind, value in payload["identifiers"]),
    )


def _holds(row: dict[str, Any], identifier: Identifier) -> bool:
    return tuple(identifier[1:]) in _person(row["payload"]).identifiers


def _carry_out(space: Space, row: dict[str, Any], *, now: dt.datetime, step: Step) -> Receipt:
    number, person = row["deletion_id"], _person(row["payload"])
    rows: dict[str, int] = dict(row["counts"])

    def count(found: dict[str, int]) -> None:
        """Kept as it is found, so that a deletion that was killed still says what it removed."""
        for name, n in found.items():
            rows[name] = rows.get(name, 0) + n
        with space.state.begin() as connection:
            connection.execute(
                sa.update(deletions).where(deletions.c.deletion_id == number).values(counts=rows)
            )

    step("removing messages")
    with _alone(space, "intake"):
        count(messages.remove(space, person, suppressed(space.state)))
    with space.state.begin() as connection:
        rebuilding.ask(connection, why=f"deletion {number}", now=now)
    step("deriving the graph anew")
    with _published(space, f"deletion-{number}-{uuid4().hex[:8]}", now=now):
        _clear_candidates(space)
        count(values.remove(space.lake, space.engine, person))
    told = _tell(space, person, now=now, step=step)
    step("removing what was delivered, and earlier versions")
    names = [f"destination:{name}" for name in sorted(space.destinations)]
    with _alone(space, *names, "intake"):
        ledger = space.ledger_lake
        count({values.LEDGER: values.remove_deliveries(ledger, space.engine, person)})
        with _published(space, f"deletion-{number}-{uuid4().hex[:8]}", now=now):
            for table in TABLES:
                space.lake.forget(table)
            if ledger is not space.lake:
                ledger.forget(values.LEDGER)
    step("following up in the profile store and in records")
    refresh.keep_profiles(space)
    count({"exports": exports.remove(space.state, person)})
    count({"records": records.redact(space.state, person)})
    receipt = Receipt(number, now, row["by"], len(person.profile_ids), person.types, rows, told)
    _finish(space, receipt, now=now)
    return receipt


@contextmanager
def _published(space: Space, run_id: str, *, now: dt.datetime) -> Iterator[None]:
    """What is written within is published at the end, as of the last refresh."""
    last = space.last_refresh()
    if last is None:
        refresh.derive_anew(space, now=now)
        yield
        return
    run = refresh.begin(space, run_id=run_id, now=now, as_of=last["as_of"])
    yield
    refresh.finish(space, run, now=now)


def _clear_candidates(space: Space) -> None:
    for name, table in TABLES.items():
        if name.startswith("candidate_") and space.lake.files(name):
            space.lake.replace(name, table.schema.empty_table())


def _tell(space: Space, person: Person, *, now: dt.datetime, step: Step) -> dict[str, str]:
    """Tell the destinations that were ever told of the person; what became of each."""
    told: dict[str, str] = {}
    for name, recipients in _told_of(space, person).items():
        step(f"telling {name}")
        said = [_left(space, name)]
        try:
            said.append(deliver.delete_people(space, name, recipients, now=now) or "")
        except PersonasError as error:
            said.append(f"not asked to delete: {type(error).__name__}")
        told[name] = "; ".join(part for part in said if part)
    return told


def _left(space: Space, name: str) -> str:
    """Sync a destination, so that the person leaves its lists and audiences; how that went."""
    by_hand = "delete the person there by hand"
    try:
        report = deliver.deliver(
            space, name, owner=uuid4().hex, now=lambda: dt.datetime.now(dt.UTC), force=True
        )
    except PersonasError as error:
        return f"not told: {type(error).__name__}; {by_hand}"
    if report.failed or any(part.held for part in report.connections.values()):
        return f"not told in full; {by_hand}"
    return "told of every list and audience that the person left"


def _told_of(space: Space, person: Person) -> dict[str, list[dict[str, str]]]:
    """The space's destinations, each with what it was told the person by."""
    lake = space.ledger_lake
    if space.last_refresh() is None or not lake.files(values.LEDGER):
        return {}
    with space.engine.session(lake) as session:
        session.view(values.LEDGER)
        session.register("gone", pa.table({"profile_id": list(person.profile_ids)}))
        rows = session.fetch(
            f"SELECT DISTINCT destination, recipient FROM {values.LEDGER} "
            "WHERE profile_id IN (SELECT profile_id FROM gone) ORDER BY ALL"
        ).to_pylist()
    found: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        if row["destination"] in space.destinations:
            found.setdefault(row["destination"], []).append(json.loads(row["recipient"]))
    return found


def _finish(space: Space, receipt: Receipt, *, now: dt.datetime) -> None:
    with space.state.begin() as connection:
        connection.execute(
            sa.update(deletions)
            .where(deletions.c.deletion_id == receipt.deletion_id)
            .values(status="finished", finished_at=now, payload={}, counts=receipt.rows)
        )
    shown = receipt.as_json()
    counts = {name: shown[name] for name in ("profiles", "identifiers", "rows", "destinations")}
    space.state.audit(
        "deletion", f"deletion {receipt.deletion_id}", at=now, outcome="finished",
        reason=f"asked for by {receipt.by}", counts=counts,
    )  # fmt: skip
    space.state.forget()


@contextmanager
def _alone(space: Space, *names: str) -> Iterator[None]:
    """Nobody else refreshes, takes messages in or syncs meanwhile."""
    with ExitStack() as stack:
        for name in names:
            state = space.sync_state if name.startswith("destination:") else space.state
            lease = state.lease(name, owner=uuid4().hex, holder="a deletion of a person")
            stack.enter_context(lease)
        yield
