"""Load and refresh, measured: `make bench` (1 million messages), `make bench BENCH="1 10 100"`.

Each size runs in a process of its own, so that peak memory is that size's. Data is generated
first and is not part of any figure. Prints a table and, with --json FILE, the same as JSON.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
AS_OF = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)

TRAITS = {
    "orders_90_days": "event('Order Completed').within(90 days).count()",
    "lifetime_revenue": "event('Order Completed').sum(property('revenue'))",
    "average_order": "event('Order Completed').avg(property('revenue'))",
    "favourite_category": "event('Product Viewed').within(90 days).mode(property('category'), 2)",
}
AUDIENCES = {
    "big_spenders": "trait('lifetime_revenue') >= 500",
    "repeat_buyers": "trait('orders_90_days') >= 2",
    "lapsed": "event('Order Completed').count() >= 1 AND "
    "NOT event('Order Completed').within(60 days).count() >= 1",
    "carts": "event('Product Added').within(7 days).count() >= 1",
}


def project(root: Path) -> None:
    """A project with a few typical definitions."""
    for folder in ("assets/computed_traits", "assets/audiences", "resources/spaces"):
        (root / folder).mkdir(parents=True)
    for folder, definitions in (("computed_traits", TRAITS), ("audiences", AUDIENCES)):
        for key, query in definitions.items():
            path = root / "assets" / folder / f"{key}.yaml"
            path.write_text(json.dumps({"query": query}))
    space = {
        "lake": {"location": "lake"},
        "engine": {"memory_limit": "8GB"},
        "state": {"url": "sqlite:///state.db"},
        "landing": "landing",
    }
    (root / "resources" / "spaces" / "bench.yaml").write_text(json.dumps(space))


def measure(folder: Path, root: Path) -> list[dict[str, Any]]:
    """Each stage's seconds and the process's peak memory after it."""
    from personas_dagster import intake, refresh
    from personas_dagster.project.loader import load_project
    from personas_dagster.spaces import open_space

    space = open_space(load_project(root))
    rows: list[dict[str, Any]] = []

    def timed(stage: str, work: Callable[[], Any]) -> Any:
        started = time.perf_counter()
        result = work()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seconds = time.perf_counter() - started
        rows.append({"stage": stage, "seconds": round(seconds, 2), "peak_mib": round(peak)})
        return result

    now = AS_OF
    files = sorted(folder.iterdir())
    timed("land (copy, hash)", lambda: space.landing.land(files, now=now))
    report = timed("load raw_events", lambda: intake.take_in(space, now=now))
    timed("merge candidates", lambda: refresh.propose(space, now=now))
    timed("merge guard", lambda: refresh.check(space))
    timed("identity graph", lambda: refresh.apply(space, now=now))
    timed("events", lambda: refresh.settle(space))
    this = refresh.begin(space, run_id="bench", now=now, as_of=AS_OF)
    timed("custom traits", lambda: refresh.custom_traits(space, this))
    timed("traits and audiences", lambda: refresh.compute_definitions(space, this))
    refresh.finish(space, this, now=now)
    rows.append({"messages": report.accepted})
    return rows


def bench(millions: float, folder: Path) -> dict[str, Any]:
    """One size: generate, then measure in a fresh process."""
    sys.path.insert(0, str(ROOT))
    from benchmarks import messages

    count = round(millions * 1_000_000)
    data = folder / "messages"
    data.mkdir(parents=True)
    messages.write(data, messages=count, format="jsonl.gz")
    project(folder / "project")
    child = [sys.executable, __file__, "--measure", str(data), str(folder / "project")]
    done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True)
    rows = json.loads(done.stdout.splitlines()[-1])
    return {"messages": rows.pop()["messages"], "stages": rows}


def show(results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    for result in results:
        count = result["messages"]
        table = Table(title=f"{count:,} messages", title_justify="left")
        for name in ("stage", "seconds", "messages a second", "peak MiB so far"):
            table.add_column(name, justify="left" if name == "stage" else "right")
        total = 0.0
        for row in result["stages"]:
            total += row["seconds"]
            rate = f"{count / row['seconds']:,.0f}" if row["seconds"] >= 0.01 else ""
            table.add_row(row["stage"], f"{row['seconds']:.2f}", rate, f"{row['peak_mib']:,}")
        table.add_row("all", f"{total:.2f}", f"{count / total:,.0f}", "")
        Console(width=max(100, Console().width)).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("millions", nargs="*", type=float, default=[1.0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--measure", nargs=2, type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        sys.stdout.write(json.dumps(measure(*arguments.measure)) + "\n")
        return
    results = []
    for millions in arguments.millions:
        with tempfile.TemporaryDirectory(prefix="personas-bench-") as folder:
            results.append(bench(millions, Path(folder)))
    show(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
