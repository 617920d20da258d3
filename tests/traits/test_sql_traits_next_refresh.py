"""Identifiers that the graph does not know, on their way through landing and back."""

import datetime as dt
from pathlib import Path

import pyarrow as pa

from personas_dagster.engines import DuckDBEngine
from personas_dagster.events import EventSettings, Landing, load
from personas_dagster.identity import loads
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.identity.views import prepare
from personas_dagster.lake import DeltaLake
from personas_dagster.state import State
from personas_dagster.traits.sql import SOURCE, refresh_sql_trait, write_messages

NOW = dt.datetime(2024, 5, 1, 12, tzinfo=dt.UTC)
KNOWN = ("user_id", "group_id")


def test_counts_from_the_next_refresh(tmp_path: Path) -> None:
    lake, engine = DeltaLake(tmp_path / "lake"), DuckDBEngine(threads=1)
    state = State(f"sqlite:///{tmp_path}/state.db")
    landing = Landing(tmp_path / "landing", state)
    said = tmp_path / "sql_traits.jsonl"

    def take_in() -> None:
        landing.land([said], source_id=SOURCE, now=NOW)
        load(landing, lake, engine, state, settings=EventSettings(), now=NOW)
        loads.propose_load(lake, engine, state, IdentityRules(), space_id="s", now=NOW)
        verdict = loads.check_load(lake, engine, state, IdentityRules())
        assert verdict is not None and verdict.passed, verdict
        loads.apply_load(lake, engine, state, now=NOW)

    def run(refresh_id: int) -> tuple[int, dict[str, int], int]:
        result = pa.table({"user_id": ["u1", "u2"], "group_id": ["acme", None], "ltv": [1, 2]})
        with engine.session(lake) as session:
            prepare(session)
            report = refresh_sql_trait(
                session,
                lake,
                key="ltv",
                reader=result.to_reader(),
                known_types=KNOWN,
                at=NOW,
                refresh_id=refresh_id,
            )
            return report.unknown, dict(report.changed), write_messages(session, said)

    assert run(1) == (2, {}, 2)
    take_in()
    assert run(2) == (0, {"ltv": 2}, 0)
    with engine.session(lake) as session:
        prepare(session)
        assert session.fetch("SELECT count(*) AS n FROM graph_links").to_pylist() == [{"n": 1}]
        sources = session.fetch("SELECT DISTINCT source_id FROM graph_identifiers")
    assert sources.column(0).to_pylist() == ["sql_trait"]
