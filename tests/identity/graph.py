"""A space's graph in a temporary folder, driven load by load, and its tables as plain tuples."""

from __future__ import annotations

import datetime as dt
import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from personas_dagster.engines.duckdb import DuckDBEngine
from personas_dagster.identity import loads
from personas_dagster.identity.deciding import Deciding, decide
from personas_dagster.identity.guard import Verdict
from personas_dagster.identity.propose import Proposal
from personas_dagster.identity.rebuilding import Rebuilt, ask, run_due
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.identity.views import prepare
from personas_dagster.lake import TABLES, DeltaLake
from personas_dagster.lake.halves import halves_sql
from personas_dagster.state import State
from personas_dagster.state import schema as state_schema
from tests.identity.oracle import Oracle, member, text_of

NOW = dt.datetime(2026, 11, 22, 12, tzinfo=dt.UTC)
START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
Message = dict[str, Any]
_RAW = TABLES["raw_events"].schema
_HIGH, _LOW = halves_sql("profile_id")
_HALVES_THAT_DIFFER = f"""
SELECT * FROM events
WHERE profile_high IS DISTINCT FROM {_HIGH} OR profile_low IS DISTINCT FROM {_LOW}
"""


def message(number: int = 0, /, *, at: float = 0, kind: str = "track", **fields: Any) -> Message:
    """A message, `at` seconds after the start; its id sorts by its number."""
    return {
        "messageId": f"m{number:04}",
        "type": kind,
        "receivedAt": START + dt.timedelta(seconds=at or number),
        **fields,
    }


def raw_row(m: Message, load_id: int, line: int) -> dict[str, Any]:
    """A message as `events` would store it."""
    group = text_of(m.get("groupId"))
    if not group and m["type"] != "group":
        group = text_of(member(m.get("context"), "groupId"))
    row = dict.fromkeys(_RAW.names)
    row |= {
        "message_id": m["messageId"],
        "type": m["type"],
        "event": m.get("event", "Clicked"),
        "user_id": text_of(m.get("userId")) or None,
        "anonymous_id": text_of(m.get("anonymousId")) or None,
        "group_id": group or None,
        "previous_id": text_of(m.get("previousId")),
        "timestamp": m["receivedAt"],
        "received_at": m["receivedAt"],
        "source_id": m.get("source", "web"),
        "load_id": load_id,
        "file_id": load_id,
        "line": line,
        "received_date": m["receivedAt"].date(),
    }
    for name in ("properties", "traits", "context"):
        if name in m:
            row[name] = json.dumps(m[name], ensure_ascii=False)
    return row


class Graph:
    """What the tests drive."""

    def __init__(
        self,
        folder: Path,
        rules: IdentityRules | None = None,
        *,
        state: Path | None = None,
        url: str | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        if state is not None:
            shutil.copy(state, folder / "state.db")
        self.folder = folder
        self.rules = rules or IdentityRules()
        self.state = State(url or f"sqlite:///{folder}/state.db")
        self.lake = DeltaLake(folder / "lake")
        self.engine = DuckDBEngine(threads=2)
        self.rebuilt: Rebuilt | None = None  # by the last decision

    def copy(self, folder: Path) -> Graph:
        """The same graph elsewhere."""
        self.state.close()
        shutil.copytree(self.folder, folder)
        return Graph(folder, self.rules)

    def land(self, messages: list[Message]) -> int:
        """Write messages to `raw_events` as one load, their lines in no order."""
        with self.state.begin() as connection:
            row = sa.insert(state_schema.loads).values(status="loaded", started_at=NOW, counts={})
            load_id = int(
                connection.execute(row.returning(state_schema.loads.c.load_id)).scalar_one()
            )
        messages = list(messages)
        random.Random(load_id).shuffle(messages)
        rows = [raw_row(m, load_id, line) for line, m in enumerate(messages, 1)]
        self.lake.append("raw_events", pa.Table.from_pylist(rows, schema=_RAW))
        return load_id

    def propose(self) -> Proposal | None:
        return loads.propose_load(
            self.lake, self.engine, self.state, self.rules, space_id="test", now=NOW
        )

    def check(self) -> Verdict | None:
        return loads.check_load(self.lake, self.engine, self.state, self.rules)

    def apply(self) -> loads.Applied | None:
        return loads.apply_load(self.lake, self.engine, self.state, now=NOW)

    def settle(self) -> int:
        return loads.settle_load(self.lake, self.engine, self.state)

    def take(self, *messages: Message) -> loads.Applied:
        """One load, all the way."""
        self.land(list(messages))
        return self.run()

    def decide(
        self, what: str, kind: str, value: str, *, collection: str = "users", at: dt.datetime = NOW
    ) -> None:
        """Record a decision, and do what it sets going."""
        place = Deciding(self.lake, self.engine, self.state, "test", at, "ann", "a test")
        decide(place, what, (collection, kind, value), self.rules)
        self.rebuilt = self.run_due()

    def rebuild(self, rules: IdentityRules | None = None, *, by_time: bool = False) -> Rebuilt:
        """Derive the graph anew, under these rules (default: those recorded)."""
        with self.state.begin() as connection:
            ask(connection, why="rebuild", now=NOW, rules=rules, in_time=by_time)
        done = self.run_due()
        assert done is not None
        return done

    def run_due(self) -> Rebuilt | None:
        return run_due(self.lake, self.engine, self.state, space_id="test", now=NOW)

    def run(self) -> loads.Applied:
        self.propose()
        verdict = self.check()
        assert verdict is not None and verdict.passed, verdict
        applied = self.apply()
        assert applied is not None
        self.settle()
        return applied

    def totals(self) -> Any:
        """What the last load recorded that the graph holds."""
        loads = state_schema.identity_loads
        query = (
            sa.select(loads.c.totals)
            .where(loads.c.status.in_(("applied", "settled")))
            .order_by(loads.c.load_id.desc())
        )
        return self.state.rows(query)[0]["totals"]

    def rows(self, query: str, *tables: str) -> list[dict[str, Any]]:
        with self.engine.session(self.lake) as session:
            prepare(session)
            for table in tables:
                session.view(table)
            return [dict(row) for row in session.fetch(query).to_pylist()]

    def tables(self) -> dict[str, set[tuple[Any, ...]]]:
        """Every table, in the form that `oracle_tables` has."""
        named = "collection, type, value, profile_id, first_seen_at, first_message_id"
        with self.engine.session(self.lake) as session:
            prepare(session)
            session.view("dropped_identifiers")
            session.view("events")

            def rows(query: str) -> list[tuple[Any, ...]]:
                return [tuple(row.values()) for row in session.fetch(query).to_pylist()]

            found = {
                "profiles": rows(
                    "SELECT profile_id, collection, created_at, first_message_id "
                    "FROM stored_profiles"
                ),
                "identifiers": rows(f"SELECT {named} FROM identifiers"),
                "merges": [
                    (*row[:-1], _ids(row[-1]))
                    for row in rows(
                        "SELECT collection, parent_id, child_id, merged_at, message_id, "
                        "identifiers FROM merges"
                    )
                ],
                "dropped_identifiers": [
                    (*row[:-1], tuple(json.loads(row[-1])))
                    for row in rows(
                        "SELECT message_id, received_at, collection, type, value, limit_broken, "
                        "profiles_apart FROM dropped_identifiers"
                    )
                ],
                "account_links": rows(
                    "SELECT user_profile_id, account_profile_id, first_at, first_message_id, "
                    "last_at, last_message_id FROM graph_links"
                ),
                "events": rows("SELECT message_id, profile_id, account_id FROM events"),
                "holders": rows("SELECT collection, type, value, profile_id "
                                "FROM graph_identifiers"),
            }  # fmt: skip
        for name, table in found.items():
            assert len(set(table)) == len(table), name
        return {name: set(table) for name, table in found.items()}


def oracle_tables(oracle: Oracle) -> dict[str, set[tuple[Any, ...]]]:
    """The oracle's tables in the same form."""
    return {
        "profiles": set(oracle.profiles),
        "identifiers": set(oracle.identifiers),
        "merges": set(oracle.merges),
        "dropped_identifiers": set(oracle.drops),
        "account_links": set(oracle.links()),
        "events": {(name, *ended) for name, (_, *ended) in oracle.messages.items()},
        "holders": {(c, *i, p.profile_id) for (c, i), p in oracle.holders.items()},
    }


def assert_same(graph: Graph, oracle: Oracle) -> None:
    found, expected = graph.tables(), oracle_tables(oracle)
    for name, rows in expected.items():
        missing, extra = rows - found[name], found[name] - rows
        assert not missing and not extra, (name, sorted(map(str, missing))[:5],
                                           sorted(map(str, extra))[:5])  # fmt: skip
    children = Counter(row[0] for row in found["merges"])
    roots = Counter(row[1] for row in found["profiles"]) - children
    kinds = Counter(row[1] for row in found["identifiers"])
    assert graph.totals() == {"profiles": roots, "identifiers": kinds}
    assert graph.rows(_HALVES_THAT_DIFFER, "events") == []


def _ids(text: str) -> tuple[tuple[str, str], ...]:
    return tuple((one["type"], one["id"]) for one in json.loads(text))
