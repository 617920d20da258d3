"""Exact identity resolution against plain connected components, on the same messages.

    python benchmarks/identity.py --messages 1 10      (millions; --folder keeps the data)

Both start at `raw_events` in a lake and end with written identity tables. The plain run knows no
limit, merge, drop or link: DuckDB finds the distinct combinations of the same identifiers,
`scipy.sparse.csgraph.connected_components` joins them, and `profiles` and `identifiers` are
written with the same columns (when and by which message each was first seen; the exact run also
writes the narrow columns that later loads look by, and their indexes). The bare run writes only
which component an identifier is in. Then an hourly load on top, its digests included: what it
touches is looked up, so its time should hardly hang on how many messages are there. Every run is
a process of its own, so that its peak of memory is its own. Not measured are imports (numba's
compiled code, scipy, and Great Expectations, whose findings in SQL are what is timed).
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
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from personas_dagster.engines import DuckDBEngine
from personas_dagster.identity import findings, loads
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
RUNS = ("land", "bare", "plain", "exact", "hour")
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
        wrong = findings.find(session, RULES, messages=found.messages,
                              merged=found.counts["merges"], profiles=found.counts["profiles"],
                              earlier_shares=[])  # fmt: skip
        assert all(finding.passed for finding in wrong), wrong
    with clock.step("apply"):
        loads.write_candidates(lake, load_id)
    return dict(found.counts)


def plain(
    lake: DeltaLake, engine: DuckDBEngine, clock: Clock, *, bare: bool = False
) -> dict[str, Any]:
    """Connected components, without any protection."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    with clock.step("combinations"), engine.session(lake) as session:
        session.view("raw_events")
        prepare_extraction(session)
        columns = ", ".join(f"{sql} AS {key}" for key, sql in combinations(RULES).items())
        names = ", ".join(KEY)
        query = f"SELECT DISTINCT {names} FROM (SELECT {columns} FROM raw_events)"
        if not bare:
            query = (
                f"SELECT {names}, min({{'at': epoch_us(received_at), 'message_id': message_id, "
                "'source_id': source_id}) AS first "
                f"FROM (SELECT {columns}, received_at, message_id, source_id FROM raw_events) "
                f"GROUP BY {names} ORDER BY min(epoch_us(received_at))"
            )
        keys = session.fetch(query)
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
    found = {"type": pa.concat_arrays(kinds), "value": pa.concat_arrays(values), "label": labels}
    if not bare:
        with clock.step("first messages"):
            row = np.full(size, keys.num_rows)  # combinations come in order, so the least is first
            for spot in spots:
                np.minimum.at(row, spot[spot >= 0], np.flatnonzero(spot >= 0))
            moments = keys.column("first").combine_chunks().take(pa.array(row))
            found |= {name: moments.field(name) for name in ("at", "message_id", "source_id")}
    with clock.step("write"), engine.session(lake) as session:
        session.register("components", pa.table(found))
        more = "" if bare else (
            ", make_timestamptz(\"at\") AS first_seen_at, message_id AS first_message_id, "
            "source_id, 1::BIGINT AS load_id"
        )  # fmt: skip
        session.run("CREATE TEMP TABLE named AS SELECT 'users' AS collection, type, value, "
                    f"md5('bench' || label) AS profile_id{more} FROM components")  # fmt: skip
        lake.append("identifiers", session.stream("SELECT * FROM named"))
        profiles = "SELECT DISTINCT collection, profile_id FROM named" if bare else (
            "SELECT collection, profile_id, first.at AS created_at, "
            "first.id AS first_message_id, load_id FROM (SELECT collection, profile_id, "
            "min({'at': first_seen_at, 'id': first_message_id}) AS first, load_id "
            "FROM named GROUP BY ALL)"
        )  # fmt: skip
        lake.append("profiles", session.stream(profiles))
    return {"identifiers": size, "profiles": int(count)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Identity resolution, timed.")
    parser.add_argument("--messages", type=float, nargs="+", default=[1], help="millions")
    parser.add_argument("--folder", type=Path, help="where the data is kept for another run")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--memory", default="6GB", help="for DuckDB; beyond it, it spills")
    parser.add_argument("--only", choices=RUNS)
    arguments = parser.parse_args()
    if arguments.only:
        (millions,) = arguments.messages
        engine = DuckDBEngine(threads=arguments.threads, memory_limit=arguments.memory)
        messages = round(millions * 1e6)
        found = one(arguments.only, arguments.folder / str(messages), messages, engine, Clock())
        print(json.dumps(found))
        return
    with tempfile.TemporaryDirectory(prefix="personas-identity-") as temporary:
        hours = {}
        for millions in arguments.messages:
            hours[millions] = compare(arguments, arguments.folder or Path(temporary), millions)
    least = min(hours)
    for millions, (wall, cpu) in sorted(hours.items()):
        print(f"hour on {millions:g} million  {wall / hours[least][0]:.2f} x that on {least:g} "
              f"million ({cpu / hours[least][1]:.2f} x in cpu s)")  # fmt: skip


def compare(arguments: argparse.Namespace, folder: Path, millions: float) -> tuple[float, float]:
    """Each run in a process of its own, and what the exact one costs beside the others.

    Returns the seconds of the hourly load, and its processor seconds.
    """
    print(f"identity: {millions:g} million messages")
    seconds = {}
    for name in RUNS:
        command = [sys.executable, __file__, "--folder", str(folder), "--messages", str(millions),
                   "--threads", str(arguments.threads), "--memory", arguments.memory,
                   "--only", name]  # fmt: skip
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        seconds[name] = show(name, found)
    exact, bare = seconds["exact"][0], seconds["bare"][0]
    print(f"ratio  {exact / seconds['plain'][0]:7.2f} x plain, {exact / bare:.2f} x bare")
    return seconds["hour"]


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
        with clock.step("digests"), engine.session(lake) as session:
            loads.carried(session, dict.fromkeys(loads.GRAPH_TABLES, "0"), load_id=2)
    else:
        shutil.rmtree(shared, ignore_errors=True)
        shutil.copytree(folder / "lake", shared, copy_function=os.link)
        run: Callable[[], dict[str, Any]] = {
            "exact": lambda: exact(DeltaLake(shared), engine, clock, load_id=1),
            "plain": lambda: plain(DeltaLake(shared), engine, clock),
            "bare": lambda: plain(DeltaLake(shared), engine, clock, bare=True),
        }[name]
        counts = run()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"steps": clock.steps, "counts": counts, "peak": peak}


def show(name: str, found: dict[str, Any]) -> tuple[float, float]:
    """Print one run; its seconds and processor seconds."""
    if not found["counts"]:
        return 0.0, 0.0
    steps = found["steps"]
    total = [sum(times) for times in zip(*steps.values(), strict=True)]
    parts = ", ".join(f"{step} {wall:.1f}/{cpu:.1f}" for step, (wall, cpu) in steps.items())
    print(f"{name:6}{total[0]:7.2f} s {total[1]:7.2f} cpu s {found['peak']:6.0f} MiB  ({parts})")
    print(f"       {found['counts']}", flush=True)
    return float(total[0]), float(total[1])


if __name__ == "__main__":
    main()
