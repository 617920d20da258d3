"""An hourly refresh, whole: `python benchmarks/hour.py --millions 1 10`.

A space with so many stored messages and the 200 definitions of `shop_definitions.py` takes in
50,000 new messages, and `personas refresh` runs: Dagster, identity, traits, audiences. Two hours,
one after the other; then one in which nothing came.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
import messages as generator
import shop_definitions as shop

HOUR = 50_000
COMMAND = Path(sys.executable).parent / "personas"
SPACE = {
    "default": True,
    "lake": {"location": "lake"},
    "engine": {"memory_limit": "10GB"},
    "state": {"url": "sqlite:///state.db"},
    "landing": "landing",
}


def project(root: Path) -> None:
    files = {"resources/spaces/bench": SPACE, "assets/sources/files": {"name": "F", "kind": "file"}}
    for one in shop.definitions():
        folder = "audiences" if one.kind == "audience" else "computed_traits"
        files[f"assets/{folder}/{one.key}"] = {"query": one.query}
    for path, content in files.items():
        target = root / f"{path}.yaml"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(content))


def personas(root: Path, *arguments: str) -> dict[str, Any]:
    """One command in the project, and how long it took."""
    begun = time.perf_counter()
    environment = {**os.environ, "DAGSTER_HOME": str(root / "dagster")}
    (root / "dagster").mkdir(exist_ok=True)
    (root / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    process = subprocess.Popen(
        [COMMAND, *arguments, "--project", str(root), "--quiet"],
        stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout
    lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"personas {' '.join(arguments)} failed")
    return {
        "seconds": round(time.perf_counter() - begun, 2),
        "processor_seconds": round(usage.ru_utime + usage.ru_stime, 2),
        "peak_mib": round(usage.ru_maxrss / 1024),
        "said": json.loads(lines[-1]),
    }


def bench(millions: float, folder: Path) -> list[dict[str, Any]]:
    count = round(millions * 1_000_000)
    people = max(1, count // 20)
    root = folder / "project"
    results = []
    end = dt.datetime.fromisoformat(generator.END).replace(tzinfo=dt.UTC)
    if not root.exists():
        project(root)
        generator.write(folder / "past", messages=count, people=people, format="parquet")
        personas(root, "ingest", str(folder / "past"))
        first = personas(root, "refresh", "--as-of", end.isoformat())
        results.append({"step": "first refresh, all of it", **first})
    for hour in (1, 2, 3):
        if hour < 3:
            new = folder / f"hour-{hour}"
            generator.write(new, messages=HOUR, people=people, format="parquet", seed=1 + hour,
                            days=1, files=1)  # fmt: skip
            personas(root, "ingest", str(new))
        as_of = (end + dt.timedelta(hours=hour)).isoformat()
        name = f"hour {hour}, {HOUR:,} messages" if hour < 3 else "hour 3, none"
        results.append({"step": name, **personas(root, "refresh", "--as-of", as_of)})
    return [{"messages": count, **row} for row in results]


def show(results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="personas refresh, 200 definitions", title_justify="left")
    for name in ("stored messages", "refresh", "seconds", "processor s", "peak MiB", "changed"):
        table.add_column(name, justify="left" if name == "refresh" else "right")
    for row in results:
        said = row["said"]
        changed = said["traits_changed"] + said["entered"] + said["exited"]
        table.add_row(
            *(f"{row['messages']:,}", row["step"], f"{row['seconds']:.2f}"),
            *(f"{row['processor_seconds']:.2f}", f"{row['peak_mib']:,}", f"{changed:,}"),
        )
    Console(width=max(100, Console().width)).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--millions", nargs="+", type=float, default=[1.0])
    parser.add_argument("--folder", type=Path, help="keep the space here, or take it from here")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="personas-bench-") as temporary:
        for millions in arguments.millions:
            results += bench(millions, (arguments.folder or Path(temporary)) / f"{millions:g}")
    show(results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
