"""The demo: a lifelike shop through the whole platform, in one command.

Generates messages, refreshes twice (a day apart), syncs to a webhook receiver that it starts on
this machine, and prints what happened. Run by `make demo` in the project's folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.rule import Rule
from rich.table import Table

from personas_dagster.project.loader import load_project
from personas_dagster.samples import shop
from personas_dagster.samples.receiver import Receiver
from personas_dagster.spaces import Space, data_folder, open_space

_SPACE = "development"
_DAYS = ("2026-03-01T00:00Z", "2026-03-02T00:00Z")
_LAST_FILE = "2026-03-01"

_PREVENTED = """
SELECT limit_broken, type AS removed, count(*) AS messages,
       count(DISTINCT value) AS identifiers
FROM dropped_identifiers GROUP BY ALL ORDER BY messages DESC
"""
_HUB = """
SELECT value, count(DISTINCT message_id) AS messages FROM dropped_identifiers
WHERE type = 'email' GROUP BY value ORDER BY messages DESC, value LIMIT 1
"""
_TRAITS = """
SELECT key, collection, count(*) AS profiles, min(n) AS low, median(n) AS middle, max(n) AS high,
       any_value(value ORDER BY value) FILTER (n IS NULL) AS example
FROM (SELECT *, TRY_CAST(value AS DOUBLE) AS n FROM trait_values WHERE class = 'computed_trait')
GROUP BY ALL ORDER BY key
"""


def main(root: Path) -> None:
    """Run the demo in the project at `root`."""
    console = Console()
    started = time.perf_counter()
    shutil.rmtree(data_folder(root) / _SPACE, ignore_errors=True)
    with tempfile.TemporaryDirectory() as folder, Receiver() as receiver:
        os.environ["PERSONAS_WEBHOOK_URL"] = receiver.url
        console.print(Rule("A shop's messages"))
        with console.status("generating four months of a shop"):
            files = shop.write(Path(folder))
        size = sum(file.stat().st_size for file in files) / 1e6
        console.print(f"{len(files)} files, {size:.0f} MB: {files[0].name} to {files[-1].name}")
        before = [str(file) for file in files if file.name < _LAST_FILE]
        after = [str(file) for file in files if file.name >= _LAST_FILE]
        space = open_space(load_project(root), _SPACE)
        for day, arrived in zip(_DAYS, (before, after), strict=True):
            console.print(Rule(f"Day of {day[:10]}"))
            taken = _personas(root, "ingest", "--source", "web_shop", *arrived)
            _intake(console, taken)
            _personas(root, "refresh", "--as-of", day)
            _identity(console, space)
            _audiences(console, space)
            known = len(receiver.messages)
            report = _personas(root, "sync")
            _delivered(console, report, receiver.messages[known:])
        _traits(console, space)
    seconds = time.perf_counter() - started
    console.print(Rule(f"Done in {seconds:.0f} s"))
    console.print("See all of it in Dagster's UI:   make dev      (then http://127.0.0.1:3000)")
    console.print("Ask something of your own:       .venv/bin/personas query \\")
    console.print(
        "    \"event('Order Completed').within(30 days).count() >= 2\" "
        "--as-of 2026-03-02T00:00Z --format count"
    )
    console.print("Look at one person:              .venv/bin/personas profile user_id:u_004899")
    console.print("Change an audience:              assets/audiences/, then make check")


def _personas(root: Path, *arguments: str) -> dict[str, Any]:
    """One command, as a person would run it; the JSON line that it printed."""
    command = [sys.executable, "-m", "personas_dagster.cli", *arguments, "-q"]
    done = subprocess.run(
        [*command, "--project", str(root), "--space", _SPACE],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(done.returncode)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _intake(console: Console, report: dict[str, Any]) -> None:
    console.print(
        f"messages: {report['accepted']:,} in, {report['duplicates']:,} duplicates, "
        f"{report['rejected']:,} rejected"
        + (": " if report["reasons"] else "")
        + ", ".join(f"{reason} {n}" for reason, n in sorted(report["reasons"].items()))
    )


def _identity(console: Console, space: Space) -> None:
    with space.session() as session:
        profiles = session.fetch(
            "SELECT collection, count(*) AS n FROM graph_profiles GROUP BY ALL ORDER BY ALL DESC"
        ).to_pylist()
        merges = session.fetch("SELECT count(*) FROM merges").column(0)[0].as_py()
        session.view("dropped_identifiers")
        prevented = session.fetch(_PREVENTED).to_pylist()
        hub = session.fetch(_HUB).to_pylist()
    counted = ", ".join(f"{row['n']:,} {row['collection']}" for row in profiles)
    console.print(f"profiles: {counted}, after {merges:,} merges")
    table = Table("merges prevented: limit", "identifier given up", "values", "messages")
    for row in prevented[:8]:
        cells = (row["limit_broken"], row["removed"], row["identifiers"], row["messages"])
        table.add_row(*(f"{c:,}" if isinstance(c, int) else str(c) for c in cells))
    console.print(table)
    if hub:
        console.print(f"most often given up: {hub[0]['value']} (a mailbox that people share)")


def _audiences(console: Console, space: Space) -> None:
    last = space.last_refresh() or {}
    table = Table("audience", "members", "entered", "exited")
    for key, one in sorted(last.get("counts", {}).get("audiences", {}).items()):
        table.add_row(key, f"{one['size']:,}", f"{one['entered']:,}", f"{one['exited']:,}")
    console.print(table)


def _traits(console: Console, space: Space) -> None:
    with space.session() as session:
        rows = session.fetch(_TRAITS).to_pylist()
    console.print(Rule("Computed traits"))
    table = Table("trait", "profiles", "lowest", "median", "highest", "or for example")
    for row in rows:
        numbers = [
            "" if row[name] is None else f"{row[name]:,.2f}" for name in ("low", "middle", "high")
        ]
        table.add_row(row["key"], f"{row['profiles']:,}", *numbers, row["example"] or "")
    console.print(table)


def _delivered(console: Console, report: dict[str, Any], messages: list[dict[str, Any]]) -> None:
    reasons = ", ".join(f"{reason} {n:,}" for reason, n in report["reasons"].items())
    console.print(
        f"webhook: {len(messages):,} messages received ({report['requests']:,} requests; {reasons})"
    )
    track = [message for message in messages if message["type"] == "track"]
    if track:
        console.print("for example:", json.dumps(track[-1])[:300])


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve())
