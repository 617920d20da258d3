"""100 traits and 100 audiences, beside the same written by hand: `python benchmarks/compute.py`.

    python benchmarks/compute.py --millions 1 10

For 100 million, `--millions 100 --ways ours` makes only what that way reads.

At 10 million `one_by_one` alone takes two minutes, `from_json` many.

For each size the same messages lie in the `events` table (as settling writes it) and, with
typed columns, in order of arrival. Three ways of computing the 200 definitions of
`shop_definitions.py`, each in a process of its own:

    ours      the plan of the query compiler over `events`, up to the table of values
    by_event  the best plan by hand: one query per event name over the sorted rows
    one_by_one  one query by hand for each definition, over the rows in order of arrival
    from_json   the same, with properties as they arrive, in JSON
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
from functools import partial
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
import messages as generator
import shop_definitions as shop

from personas_dagster.engines import DuckDBEngine
from personas_dagster.events.resolved import append_resolved
from personas_dagster.identity import views
from personas_dagster.lake import DeltaLake
from personas_dagster.query import Plan, evaluate, plan, typed_columns
from personas_dagster.traits.world import evaluate_everybody, prepare_values, prepare_world

AS_OF = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
PEOPLE_SHARE = 20  # messages a person
MEMORY = "14GB"
MEANINGS = {
    "ours": "one plan for all, over events",
    "by_event": "by hand, a query per event name over sorted rows",
    "one_by_one": "by hand, a query per definition over rows in order of arrival, typed columns",
    "from_json": "the same, properties read from their JSON",
}
WAYS = tuple(MEANINGS)

_RESOLVED = """
CREATE OR REPLACE TEMP VIEW resolved_messages AS
SELECT CASE WHEN type = 'page' THEN 'Page Viewed' ELSE event END AS event, profile_id,
       timestamp::TIMESTAMPTZ AS timestamp, "receivedAt"::TIMESTAMPTZ AS received_at,
       "messageId" AS message_id, type, NULL::VARCHAR AS account_id, 'web' AS source_id,
       properties, traits, context
FROM generated
"""
_GENERATED = """
SELECT *, md5(floor({people} * pow(unit(i, 1), 1.25))::BIGINT::VARCHAR) AS profile_id
FROM messages ORDER BY i
"""
# In order of arrival, as the files came; the properties that are read as typed columns.
_ARRIVAL = """
SELECT CASE WHEN type = 'page' THEN 'Page Viewed' ELSE event END AS event, profile_id,
       timestamp::TIMESTAMPTZ AS timestamp, properties, {typed}
FROM generated
"""
_TYPED = """
       properties ->> '$.product_id' AS product_id, properties ->> '$.category' AS category,
       (properties ->> '$.price')::DOUBLE AS price,
       (properties ->> '$.quantity')::DOUBLE AS quantity, properties ->> '$.path' AS path
"""
_PROFILES = """
SELECT md5(i::VARCHAR) AS profile_id, 'users' AS collection, $1::TIMESTAMPTZ AS created_at,
       i::VARCHAR AS first_message_id, 1::BIGINT AS load_id
FROM range($2) r(i)
"""
_IDENTIFIERS = """
SELECT 'users' AS collection, 'user_id' AS type, 'u' || i AS value, md5(i::VARCHAR) AS profile_id,
       $1::TIMESTAMPTZ AS first_seen_at, i::VARCHAR AS first_message_id, 'web' AS source_id,
       1::BIGINT AS load_id
FROM range($2) r(i)
"""
_SORTED = """
COPY (SELECT * EXCLUDE (properties) FROM read_parquet($1) ORDER BY event, profile_id, timestamp)
TO '{path}' (FORMAT parquet, COMPRESSION zstd)
"""


def make(folder: Path, count: int, *, parts: int = 12, by_hand: bool = True) -> None:
    """The same messages as `events`, in order of arrival, and by hand in sorted files.

    The last two only `by_hand`: of 100 million messages they take as much time and room again.
    """
    import pyarrow.parquet as pq

    people = max(1, count // PEOPLE_SHARE)
    values = {"messages": str(count), "people": str(people), "days": "365", "seed": "1",
              "end": generator.END}  # fmt: skip
    lake, engine = DeltaLake(folder / "lake"), DuckDBEngine(memory_limit=MEMORY)
    for name in ("arrival", "sorted"):
        (folder / name).mkdir(parents=True)
    part = folder / "part.parquet"
    typed = typed_columns(tuple(shop.definitions()))
    for index in range(parts):
        start, stop = count * index // parts, count * (index + 1) // parts
        writer = None
        query = _GENERATED.format(people=people)
        for table in generator._chunks(values, query, start, stop):
            writer = writer or pq.ParquetWriter(part, table.schema, compression="lz4")
            writer.write_table(table)
        assert writer
        writer.close()
        with engine.session(lake) as session:
            session.run(f"CREATE TEMP VIEW generated AS FROM read_parquet('{part}')")
            session.run(_RESOLVED)
            append_resolved(session, lake, load_id=index + 1, columns=typed)
            if by_hand:
                arrival = folder / "arrival" / f"{index:02}.parquet"
                session.run(f"COPY ({_ARRIVAL.format(typed=_TYPED)}) TO '{arrival}' "
                            "(FORMAT parquet, COMPRESSION zstd)")  # fmt: skip
                session.run(_SORTED.format(path=folder / "sorted" / f"{index:02}.parquet"),
                            [str(arrival)])  # fmt: skip
        part.unlink()
    with engine.session(lake) as session:
        for table, query in (("profiles", _PROFILES), ("identifiers", _IDENTIFIERS)):
            lake.append(table, session.stream(query, [AS_OF, people]))


def warm(folder: Path) -> None:
    """Have the disk's cache hold the files, so that no way pays for being the first."""
    for file in folder.rglob("*.parquet"):
        with file.open("rb") as opened:
            while opened.read(1 << 24):
                pass


def run(way: str, folder: Path, *, details: bool = False) -> dict[str, Any]:
    """One way of computing, in this process."""
    warm(folder / {"ours": "lake", "by_event": "sorted"}.get(way, "arrival"))
    engine, lake = DuckDBEngine(memory_limit=MEMORY), DeltaLake(folder / "lake")
    steps: list[tuple[str, float, float]] = []
    with engine.session(lake) as session:
        views.prepare(session)
        if way == "ours":
            prepare_values(session, defined=())
            layers = prepare_world(session, typed=typed_columns(tuple(shop.definitions())))
        else:
            session.run("CREATE TEMP TABLE profiles AS SELECT profile_id FROM graph_profiles")
            files = folder / ("sorted" if way == "by_event" else "arrival") / "*.parquet"
            columns = f"event, profile_id, timestamp, {_TYPED}" if way == "from_json" else "*"
            session.run(
                f"CREATE TEMP VIEW messages AS SELECT {columns} FROM read_parquet('{files}')"
            )

        def step(name: str, work: Any) -> Any:
            begun, used = time.perf_counter(), time.process_time()
            result = work()
            steps.append((name, time.perf_counter() - begun, time.process_time() - used))
            return result

        begun, used = time.perf_counter(), time.process_time()
        if way == "ours":
            made = step("compile", lambda: plan(shop.definitions(), as_of=AS_OF, layers=layers))
            if details:
                for name, query in made.statements:
                    step(name, partial(evaluate, session, Plan(((name, query),))))
            else:
                step("evaluate", lambda: evaluate_everybody(session, layers, made))
        else:
            statements = shop.by_event() if way == "by_event" else shop.one_by_one()
            for statement in statements:
                name = statement.split()[5]
                step(name, partial(session.run, statement))
        seconds, processor = time.perf_counter() - begun, time.process_time() - used
    return {
        "way": way,
        "seconds": round(seconds, 2),
        "processor_seconds": round(processor, 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        **({"steps": steps} if details else {}),
    }


def bench(millions: float, folder: Path, ways: list[str]) -> list[dict[str, Any]]:
    count = round(millions * 1_000_000)
    if not folder.exists():
        child = [sys.executable, __file__, "--ways", *ways, "--make", str(folder), str(count)]
        subprocess.run(child, check=True)
    results = []
    for way in ways:
        child = [sys.executable, __file__, "--run", way, str(folder)]
        done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True)
        results.append({"messages": count, **json.loads(done.stdout.splitlines()[-1])})
    return results


def show(results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="100 traits and 100 audiences", title_justify="left")
    for name in ("messages", "way", "seconds", "processor s", "us a message", "times ours",
                 "peak MiB"):  # fmt: skip
        table.add_column(name, justify="left" if name == "way" else "right")
    ours = {row["messages"]: row["seconds"] for row in results if row["way"] == "ours"}
    for row in results:
        share = row["seconds"] / ours[row["messages"]] if row["messages"] in ours else 0
        table.add_row(
            *(f"{row['messages']:,}", row["way"], f"{row['seconds']:.2f}"),
            *(f"{row['processor_seconds']:.2f}", f"{row['seconds'] / row['messages'] * 1e6:.2f}"),
            *(f"{share:.2f}", f"{row['peak_mib']:,}"),
        )
    Console(width=max(100, Console().width)).print(table)
    for name, meaning in MEANINGS.items():
        if any(row["way"] == name for row in results):
            Console().print(f"{name}: {meaning}", style="dim", highlight=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--millions", nargs="+", type=float, default=[1.0])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--folder", type=Path, help="keep the data here, or take it from here")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--details", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        folder, count = arguments.make
        make(Path(folder), int(count), by_hand=set(arguments.ways) != {"ours"})
        return
    if arguments.run:
        way, folder = arguments.run
        found = run(way, Path(folder), details=arguments.details)
        if arguments.details:
            for name, wall, cpu in sorted(found.pop("steps"), key=lambda s: -s[1])[:25]:
                sys.stderr.write(f"{name:30}{wall:8.3f}{cpu:8.3f}\n")
        sys.stdout.write(json.dumps(found) + "\n")
        return
    results = []
    with tempfile.TemporaryDirectory(prefix="personas-bench-") as temporary:
        for millions in arguments.millions:
            folder = (arguments.folder or Path(temporary)) / f"{millions:g}"
            results += bench(millions, folder, arguments.ways)
    show(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
