"""Streams that break identity graphs, with every limit lifted: is time linear, memory bounded?

    python benchmarks/identity_pathological.py [--share 0.1]

- hub: one anonymous id that 100,000 people share
- chain: 1,000,000 identifiers, each message names two neighbours, from one end to the other
- broken chain: the same messages in a random order, so that parts of the chain merge all the time

Each runs at a tenth of the size and at the whole, in a process of its own: from `raw_events` to
written and settled tables, checks included (without the import of Great Expectations).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb
import sqlalchemy as sa

from personas_dagster.engines import DuckDBEngine
from personas_dagster.identity import guard, loads
from personas_dagster.identity.rules import IdentityRules, TypeRule
from personas_dagster.lake import DeltaLake
from personas_dagster.state import State
from personas_dagster.state import schema as state_schema

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
SIZES = {"hub": 100_000, "chain": 1_000_000, "broken chain": 1_000_000}
_IDS = {
    "hub": "'u' || i AS user_id, 'shared' AS anonymous_id, i AS place",
    "chain": "'u' || ((i + 1) // 2) AS user_id, 'a' || (i // 2) AS anonymous_id, i AS place",
    "broken chain": "'u' || ((i + 1) // 2) AS user_id, 'a' || (i // 2) AS anonymous_id, "
    "hash(i) % 1000000000 AS place",
}
_RAW = """
SELECT 'm' || i AS message_id, 'track' AS type, 'E' AS event, user_id, anonymous_id,
       TIMESTAMPTZ '2026-01-01 00:00:00Z' + to_microseconds(place::BIGINT) AS received_at,
       received_at AS timestamp, 'web' AS source_id, 1::BIGINT AS load_id, 1::BIGINT AS file_id,
       i::BIGINT AS line, DATE '2026-01-01' AS received_date
FROM (SELECT i, {ids} FROM range({size:d}) t(i))
"""


def run(kind: str, size: int) -> None:
    """One stream in this process; prints its figures as JSON."""
    lifted = {name: TypeRule(limit=4 * size) for name in ("user_id", "anonymous_id")}
    rules = IdentityRules(
        types=lifted,
        max_merges=4 * size,
        max_identifiers=4 * size,
        max_profile_identifiers=4 * size,
    )
    loads.judge = lambda load_id, found: guard.Verdict(  # type: ignore[attr-defined]
        load_id, all(one.passed for one in found), tuple(found)
    )
    with tempfile.TemporaryDirectory() as folder:
        lake, engine = DeltaLake(Path(folder) / "lake"), DuckDBEngine(threads=2)
        state = State(f"sqlite:///{folder}/state.db")
        with state.begin() as connection:
            connection.execute(
                sa.insert(state_schema.loads).values(status="loaded", started_at=NOW, counts={})
            )
        raw = duckdb.sql(_RAW.format(ids=_IDS[kind], size=size)).to_arrow_reader(100_000)
        lake.append("raw_events", raw)
        began, cpu = time.perf_counter(), time.process_time()
        loads.propose_load(lake, engine, state, rules, space_id="bench", now=NOW)
        verdict = loads.check_load(lake, engine, state, rules)
        assert verdict is not None and verdict.passed, verdict
        applied = loads.apply_load(lake, engine, state, now=NOW)
        loads.settle_load(lake, engine, state)
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        assert applied is not None
        left = applied.rows["profiles"] - applied.rows["merges"]
        assert left == 1, f"{left} profiles"
        state.close()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"seconds": round(seconds, 2), "cpu": round(cpu, 2), "peak_mib": round(peak)}
    print(json.dumps({"stream": kind, "size": size, **found, "merges": applied.rows["merges"]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--share", type=float, default=1.0, help="of the sizes")
    parser.add_argument("--one", nargs=2, metavar=("STREAM", "SIZE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        run(arguments.one[0], int(arguments.one[1]))
        return
    # The loop is compiled once and cached: that is not to be measured.
    warm_up = [sys.executable, __file__, "--one", "chain", "20000"]
    subprocess.run(warm_up, check=True, capture_output=True)
    for kind, whole in SIZES.items():
        rows = []
        for part in (0.1, 1.0):
            size = str(int(whole * part * arguments.share))
            command = [sys.executable, __file__, "--one", kind, size]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(rows[-1]), flush=True)
        small, large = rows
        print(
            f"{kind}: ten times the size takes {large['cpu'] / small['cpu']:.1f} times the "
            f"processor seconds and {large['peak_mib'] / small['peak_mib']:.1f} times the memory"
        )


if __name__ == "__main__":
    main()
