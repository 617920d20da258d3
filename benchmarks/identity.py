"""Exact identity resolution against plain connected components, on the same messages.

    python benchmarks/identity.py DIR --messages 1000000

Both start at `raw_events` in a lake and end with written identity tables. The plain run knows no
order, limit, merge, drop or link: DuckDB finds the distinct combinations of the same identifiers,
`scipy.sparse.csgraph.connected_components` joins them. Then an hourly load on top. Every run is a
process of its own, so that its peak of memory is its own; the checks are the findings in SQL (the
import of Great Expectations, some five seconds whatever the load, is not measured here).
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from personas_dagster.engines import DuckDBEngine
from personas_dagster.identity import guard, loads
from personas_dagster.identity.extract import (
    KEY,
    PLAIN,
    combinations,
    normalise,
    prepare_extraction,
)
from personas_dagster.identity.rules import IdentityRules
from personas_dagster.lake import DeltaLake

sys.path.insert(0, str(Path(__file__).parent))
import messages as generator

HOUR = 50_000
RULES = IdentityRules()
_RAW = """
SELECT "messageId" AS message_id, type, event, "userId" AS user_id,
    "anonymousId" AS anonymous_id, timestamp::TIMESTAMPTZ AS timestamp,
    "receivedAt"::TIMESTAMPTZ + to_seconds($1::INT) AS received_at, properties, traits,
    context, 'web' AS source_id, $2::BIGINT AS load_id, $2::BIGINT AS file_id,
    i::BIGINT AS line, date_trunc('month', "receivedAt"::TIMESTAMPTZ)::DATE AS received_date
FROM (SELECT *, row_number() OVER () AS i FROM read_parquet($3) LIMIT $4)
"""


class Clock:
    """Seconds and processor seconds of each step."""

    def __init__(self) -> None:
        self.steps: dict[str, tuple[float, float]] = {}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begun, used = time.perf_counter(), time.process_time()
        yield
        self.steps[name] = (time.perf_counter() - begun, time.process_time() - used)


def land(lake: DeltaLake, folder: Path, load_id: int, *, messages: int, later: int = 0) -> None:
    """Append messages to `raw_events` as they would be after the load that took them in."""
    connection = duckdb.connect(config={"preserve_insertion_order": False})
    connection.execute("SET TimeZone = 'UTC'")
    files = [str(path) for path in sorted(folder.glob("*.parquet"))]
    rows = connection.sql(_RAW, params=[later, load_id, files, messages])
    lake.append("raw_events", rows.to_arrow_reader(122_880), once=("load", load_id))


def exact(lake: DeltaLake, engine: DuckDBEngine, clock: Clock, *, load_id: int) -> dict[str, Any]:
    """Candidates, their checks, and the graph's tables."""
    from personas_dagster.identity import compiled  # noqa: F401
    from personas_dagster.identity.propose import propose

    with clock.step("propose"), engine.session(lake) as session:
        found = propose(session, lake, RULES, space_id="bench", load_id=load_id,
                        after_load=load_id - 1, through_load=load_id)  # fmt: skip
    with clock.step("check"), engine.session(lake) as session:
        findings = guard.find(session, RULES, messages=found.messages,
                              merged=found.counts["merges"], profiles=found.counts["profiles"],
                              earlier_shares=[])  # fmt: skip
        assert all(finding.passed for finding in findings), findings
    with clock.step("apply"):
        loads.write_candidates(lake, load_id)
    return dict(found.counts)


def plain(lake: DeltaLake, engine: DuckDBEngine, clock: Clock) -> dict[str, Any]:
    """Connected components, without any protection."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    with clock.step("combinations"), engine.session(lake) as session:
        session.view("raw_events")
        prepare_extraction(session)
        columns = ", ".join(f"{sql} AS {key}" for key, sql in combinations(RULES).items())
        keys = session.fetch(
            f"SELECT DISTINCT {', '.join(KEY)} FROM (SELECT {columns} FROM raw_events)"
        )
    with clock.step("numbers"):
        spots, values, kinds, size = [], [], [], 0
        for kind in ("user_id", "anonymous_id", "email"):
            texts = [normalise(kind, pa.concat_arrays([pa.array([], pa.string()),
                                                       *keys.column(name).chunks]))
                     for name, its, _ in PLAIN if its == kind]  # fmt: skip
            encoded = pa.concat_arrays(texts).dictionary_encode()
            indices = np.asarray(encoded.indices.fill_null(-1)).reshape(len(texts), -1)
            spots += [np.where(row >= 0, row + size, -1) for row in indices]
            values.append(encoded.dictionary)
            kinds.append(pa.repeat(pa.scalar(kind), len(encoded.dictionary)))
            size += len(encoded.dictionary)
    with clock.step("components"):
        first = spots[0].copy()
        left, right = [], []
        for other in spots[1:]:
            both = (first >= 0) & (other >= 0)
            left.append(first[both])
            right.append(other[both])
            first = np.where(first >= 0, first, other)
        a, b = np.concatenate(left), np.concatenate(right)
        graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(size, size))
        count, labels = connected_components(graph, directed=False)
    with clock.step("write"), engine.session(lake) as session:
        session.register("components", pa.table({"type": pa.concat_arrays(kinds),
                         "value": pa.concat_arrays(values), "label": labels}))  # fmt: skip
        session.run("CREATE TEMP TABLE named AS SELECT 'users' AS collection, type, value, "
                    "md5('bench' || label) AS profile_id FROM components")  # fmt: skip
        lake.append("identifiers", session.stream("SELECT * FROM named"))
        lake.append("profiles", session.stream("SELECT DISTINCT collection, profile_id FROM named"))
    return {"identifiers": size, "profiles": int(count)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Identity resolution, timed.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--only", choices=["land", "exact", "plain", "hour"])
    arguments = parser.parse_args()
    folder: Path = arguments.folder / str(arguments.messages)
    engine, clock = DuckDBEngine(threads=arguments.threads), Clock()
    if arguments.only:
        print(json.dumps(one(arguments.only, folder, arguments.messages, engine, clock)))
        return
    for name in ("land", "plain", "exact", "hour"):
        command = [sys.executable, __file__, *sys.argv[1:], "--only", name]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        show(name, found)


def one(
    name: str, folder: Path, messages: int, engine: DuckDBEngine, clock: Clock
) -> dict[str, Any]:
    counts: dict[str, Any] = {}
    if name == "land":
        if not (folder / "messages").is_dir():
            generator.write(folder / "messages", messages=messages, format="parquet")
            generator.write(folder / "hour", messages=HOUR, people=max(1, messages // 20),
                            format="parquet", seed=1, days=1)  # fmt: skip
        lake = folder / "lake" / "raw_events"
        if not lake.is_dir():
            land(DeltaLake(folder / "lake"), folder / "messages", 1, messages=messages)
        return {"steps": clock.steps, "counts": counts, "peak": 0}
    shared = folder / name
    if name == "hour":
        shared = folder / "exact"
        lake = DeltaLake(shared)
        land(
            lake, folder / "hour", 2, messages=HOUR, later=int(dt.timedelta(days=1).total_seconds())
        )
        counts = exact(lake, engine, clock, load_id=2)
    else:
        shutil.rmtree(shared, ignore_errors=True)
        shutil.copytree(folder / "lake", shared, copy_function=os.link)
        run: Callable[[], dict[str, Any]] = {
            "exact": lambda: exact(DeltaLake(shared), engine, clock, load_id=1),
            "plain": lambda: plain(DeltaLake(shared), engine, clock),
        }[name]
        counts = run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"steps": clock.steps, "counts": counts, "peak": peak}


def show(name: str, found: dict[str, Any]) -> None:
    if not found["counts"]:
        return
    steps = found["steps"]
    total = [sum(times) for times in zip(*steps.values(), strict=True)]
    parts = ", ".join(f"{step} {wall:.1f}/{cpu:.1f}" for step, (wall, cpu) in steps.items())
    print(f"{name:6}{total[0]:7.2f} s {total[1]:7.2f} cpu s {found['peak']:6.0f} MiB  ({parts})")
    print(f"       {found['counts']}")


if __name__ == "__main__":
    main()
