"""Delivery, measured: `python benchmarks/delivery.py [MEMBERS] [--json FILE]`.

One audience goes to a webhook on this machine, in batches of 1,000 with the ledger on: the first
sync, a sync with nothing to do, one with 1,000 changes, and one with nothing to do again. The
receiver runs in a process of its own and only counts; each sync runs in a process of its own, so
that peak memory is that sync's.
"""

from __future__ import annotations

import argparse
import asyncio
import datetime as dt
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
CHANGES = 1_000
STEPS = ("first sync", "no changes", f"{CHANGES:,} changes", "no changes again")

_IDENTIFIERS = """
SELECT 'users' AS collection, t.type,
       CASE t.type WHEN 'user_id' THEN 'user-' || i
                   WHEN 'email' THEN 'user-' || i || '@example.com'
                   ELSE md5('anonymous' || i) END AS value,
       'prf_' || substr(md5(CAST(i AS VARCHAR)), 1, 24) AS profile_id,
       $1::TIMESTAMPTZ AS first_seen_at, CAST(i AS VARCHAR) AS first_message_id, 's' AS source_id,
       1::BIGINT AS load_id
FROM range($2) r(i), (VALUES ('user_id'), ('email'), ('anonymous_id')) t(type)
"""
_PROFILES = """
SELECT 'prf_' || substr(md5(CAST(i AS VARCHAR)), 1, 24) AS profile_id, 'users' AS collection,
       $1::TIMESTAMPTZ AS created_at, CAST(i AS VARCHAR) AS first_message_id, 1::BIGINT AS load_id
FROM range($2) r(i)
"""
_MEMBERS = """
SELECT 'buyers' AS audience, 'users' AS collection,
       'prf_' || substr(md5(CAST(i AS VARCHAR)), 1, 24) AS profile_id,
       $1::TIMESTAMPTZ AS entered_at
FROM range($2, $3) r(i)
"""


def write_space(folder: Path, members: int) -> None:
    """A lake of people with a user id, an e-mail and an anonymous id, and an audience of them."""
    import duckdb

    from personas_dagster.lake.delta import DeltaLake

    lake = DeltaLake(folder / "lake")
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        for table, query in (("profiles", _PROFILES), ("identifiers", _IDENTIFIERS)):
            found = connection.sql(query, params=[NOW, members + CHANGES])
            lake.append(table, found.to_arrow_reader())
    write_members(folder, 0, members)


def write_members(folder: Path, start: int, stop: int) -> None:
    import duckdb

    from personas_dagster.lake.delta import DeltaLake

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        found = connection.sql(_MEMBERS, params=[NOW, start, stop])
        DeltaLake(folder / "lake").replace("audience_memberships", found.to_arrow_reader())


def receive(pipe: Pipe) -> None:
    """A server that answers 200 and counts messages, until it is asked how many came."""
    count = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length:")
                )
                body = await reader.readexactly(length)
                count += body.count(b'"messageId"')
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def serve() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0, limit=2**24)
        pipe.send(server.sockets[0].getsockname()[1])
        await asyncio.get_running_loop().run_in_executor(None, pipe.recv)
        pipe.send(count)

    asyncio.run(serve())


@contextmanager
def receiver() -> Iterator[tuple[str, Pipe]]:
    """Its address, and the pipe that ends it with a count."""
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=receive, args=(there,), daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{here.recv()}", here
    finally:
        process.terminate()
        process.join()


def run(folder: Path, url: str, refresh_id: int) -> dict[str, Any]:
    """One sync in this process: how long it took and how much memory."""
    import deltalake  # noqa: F401  imports are no part of the figure

    from personas_dagster.activation.connection import Connection
    from personas_dagster.activation.sync import sync
    from personas_dagster.destinations import open_destination
    from personas_dagster.engines.duckdb import DuckDBEngine
    from personas_dagster.identity import views
    from personas_dagster.interfaces import Session
    from personas_dagster.lake.delta import DeltaLake
    from personas_dagster.state.store import State
    from personas_dagster.traits.world import prepare_values

    def prepare(session: Session) -> None:
        views.prepare(session)
        prepare_values(session, defined=())

    sending: list[tuple[float, float]] = []  # when, and memory, as rows are confirmed
    state = State(f"sqlite:///{folder / 'state.db'}")
    settings = {"url": url, "batch_size": 1_000, "concurrency": 8}
    started, processor = time.perf_counter(), time.process_time()
    report = sync(
        "webhook",
        open_destination("webhook", settings),
        [Connection("bench", "webhook", "buyers", "audience", forms=("identify",))],
        lake=DeltaLake(folder / "lake"),
        engine=DuckDBEngine(),
        state=state,
        prepare=prepare,
        space_id="bench",
        refresh_id=refresh_id,
        now=lambda: NOW,
        owner="bench",
        progress=lambda done, total: sending.append((time.perf_counter(), _memory())),
    )
    seconds = time.perf_counter() - started
    tenth = len(sending) // 10
    return {
        "messages": report.messages,
        "seconds": round(seconds, 2),
        "processor_seconds": round(time.process_time() - processor, 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "sending_mib": [round(sending[n][1]) for n in (tenth, -1)] if sending else [],
    }


def _memory() -> float:
    """What this process holds now, in MiB."""
    import psutil

    return psutil.Process().memory_info().rss / 2**20


def bench(members: int, folder: Path) -> list[dict[str, Any]]:
    """The four syncs."""
    sys.path.insert(0, str(ROOT))
    write_space(folder, members)
    results = []
    with receiver() as (url, pipe):
        for refresh_id, step in enumerate(STEPS, 1):
            if refresh_id == 3:
                half = CHANGES // 2
                write_members(folder, half, members + half)
            child = [sys.executable, __file__, "--run", str(folder), url, str(refresh_id)]
            done = subprocess.run(child, stdout=subprocess.PIPE, text=True, check=True)
            results.append({"sync": step, **json.loads(done.stdout.splitlines()[-1])})
        pipe.send("end")
        arrived, told = pipe.recv(), sum(result["messages"] for result in results)
    if arrived != told:
        raise SystemExit(f"{told} messages were confirmed, and {arrived} arrived")
    return results


def show(members: int, results: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"One audience of {members:,} to a webhook", title_justify="left")
    table.caption = "sending MiB: after a tenth of the messages, and at the end"
    columns = ("sync", "messages", "seconds", "CPU s", "a second", "peak MiB", "sending MiB")
    for name in columns:
        table.add_column(name, justify="left" if name == "sync" else "right")
    for row in results:
        rate = f"{row['messages'] / row['seconds']:,.0f}" if row["messages"] else ""
        table.add_row(
            *(row["sync"], f"{row['messages']:,}", f"{row['seconds']:.2f}"),
            *(f"{row['processor_seconds']:.2f}", rate, f"{row['peak_mib']:,}"),
            ", ".join(f"{one:,}" for one in row["sending_mib"]),
        )
    Console(width=max(100, Console().width)).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("members", nargs="?", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        sys.path.insert(0, str(ROOT))
        folder, url, refresh_id = arguments.run
        sys.stdout.write(json.dumps(run(Path(folder), url, int(refresh_id))) + "\n")
        return
    with tempfile.TemporaryDirectory(prefix="personas-bench-") as folder:
        results = bench(arguments.members, Path(folder))
    show(arguments.members, results)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()
