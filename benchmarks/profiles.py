"""The profile store and the Profile API, measured: `python benchmarks/profiles.py [PROFILES]`.

Fills a store with 1,000,000 profiles (8 traits, 2 audiences, 3 identifiers, 2 events each), then
brings it up to an hour that changed 50,000 of them, then asks the Profile API for the traits of
random profiles over loopback, server and client on the same cores. The lake's tables are made by
SQL and are no part of any figure. `--json FILE` writes the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import datetime as dt
import json
import os
import random
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from personas_dagster import access, refresh
from personas_dagster.project.loader import load_project
from personas_dagster.spaces import Space, open_space

AS_OF = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
CHANGED = 50_000
SPACE = {
    "lake": {"location": "lake"},
    "state": {"url": "sqlite:///state/state.db"},
    "landing": "landing",
    "profile_api": {"rate": 1_000_000},
}
_ID = "md5('profile' || n)"
_AT = "TIMESTAMPTZ '2026-02-20 00:00:00+00' + to_seconds(n % 700000)"
TABLES = {
    "profiles": f"SELECT {_ID} AS profile_id, 'users' AS collection, {_AT} AS created_at, "
    "'m' || n AS first_message_id, 1 AS load_id FROM range({size}) r(n)",
    "identifiers": f"SELECT 'users' AS collection, k.type AS type, k.prefix || n AS value, "
    f"{_ID} AS profile_id, {_AT} AS first_seen_at, 'm' || n AS first_message_id, "
    "'web' AS source_id, 1 AS load_id FROM range({size}) r(n), "
    "(VALUES ('user_id', 'u'), ('email', 'person@example.com'), ('anonymous_id', 'a')) "
    "k(type, prefix)",
    "custom_traits": f"SELECT 'users' AS collection, {_ID} AS profile_id, k.key AS key, "
    "to_json(k.key || n)::VARCHAR AS value, TIMESTAMPTZ '2026-02-20 00:00:00+00' AS updated_at, "
    "'web' AS source_id, 1 AS refresh_id FROM range({size}) r(n), "
    "(VALUES ('name'), ('city'), ('email'), ('plan')) k(key)",
    "computed_traits": f"SELECT 'users' AS collection, {_ID} AS profile_id, k.key AS key, "
    "(n % 97)::VARCHAR AS value, TIMESTAMPTZ '2026-03-01 00:00:00+00' AS updated_at, "
    "NULL AS source_id, 1 AS refresh_id FROM range({size}) r(n), "
    "(VALUES ('orders'), ('revenue'), ('visits'), ('refunds')) k(key)",
    "audience_memberships": f"SELECT k.key AS audience, 'users' AS collection, {_ID} AS "
    "profile_id, TIMESTAMPTZ '2026-03-01 00:00:00+00' AS entered_at FROM range({size}) r(n), "
    "(VALUES ('big', 3), ('recent', 2)) k(key, every) WHERE n % k.every = 0",
}
MESSAGES = """
SELECT 'e' || n || '-' || k AS message_id, 'track' AS type, 'Order' AS event,
       'u' || n AS user_id, 'a' || n AS anonymous_id, {at} AS timestamp, {at} AS received_at,
       '{{"revenue":12.5,"sku":"a"}}' AS properties, '{{"page":{{"path":"/a"}}}}' AS context,
       'web' AS source_id, {load} AS load_id, ({at})::DATE AS received_date,
       md5('profile' || n) AS profile_id, strftime({at}, '%Y-%m') AS month
FROM range({size}) r(n), range({each}) s(k)
"""


@contextmanager
def made(root: Path, size: int) -> Iterator[Space]:
    """A space whose last refresh published this many profiles."""
    for folder in ("resources/spaces", "assets/computed_traits", "assets/audiences", "state"):
        (root / folder).mkdir(parents=True)
    (root / "resources/spaces/bench.yaml").write_text(json.dumps(SPACE))
    for folder, keys in (("computed_traits", ("orders", "revenue", "visits", "refunds")),
                         ("audiences", ("big", "recent"))):  # fmt: skip
        for key in keys:
            query = {"query": "event('Order').count() >= 1" if folder == "audiences"
                     else "event('Order').count()"}  # fmt: skip
            (root / "assets" / folder / f"{key}.yaml").write_text(json.dumps(query))
    space = open_space(load_project(root), "bench")
    this = refresh.begin(space, run_id="first", now=AS_OF, as_of=AS_OF)
    with space.engine.session(space.lake) as session:
        for table, query in TABLES.items():
            space.lake.append(table, session.stream(query.format(size=size)))
        at = "TIMESTAMPTZ '2026-02-16 00:00:00+00' + to_seconds((n * 7 + k) % 1000000)"
        append_messages(space, session, at=at, load=1, size=size, each=2, first="1-")
    refresh.finish(space, this, now=AS_OF)
    yield space


def append_messages(space: Space, session: Any, *, first: str, **parts: Any) -> None:
    """The same messages into `raw_events` and `events`."""
    query = MESSAGES.format(**parts).replace("'e' ||", f"'{first}' ||")
    space.lake.append("raw_events", session.stream(f"{query} ORDER BY received_date"))
    events = f"{query} ORDER BY month, event, profile_id, timestamp"
    space.lake.append("events", session.stream(events))


def an_hour(space: Space, size: int) -> None:
    """A refresh that changes some profiles: a trait, a message; some enter, some are new."""
    later = AS_OF + dt.timedelta(hours=1)
    this = refresh.begin(space, run_id="second", now=later, as_of=later)
    step = max(1, size // CHANGED)
    with space.engine.session(space.lake) as session:
        session.run(f"CREATE TEMP TABLE touched AS SELECT n FROM range(0, {size}, {step}) r(n)")
        changed = TABLES["computed_traits"].replace("range({size}) r(n)", "touched")
        changed = changed.replace("1 AS refresh_id", "2 AS refresh_id").replace("n % 97", "n % 89")
        space.lake.append("computed_traits", session.stream(changed.split(", (VALUES")[0]
            .replace("k.key", "'orders'")))  # fmt: skip
        query = MESSAGES.replace("range({size}) r(n)", "touched")
        at = "TIMESTAMPTZ '2026-03-01 00:30:00+00'"
        query = query.format(at=at, load=2, each=1).replace("'e' ||", "'2-' ||")
        space.lake.append("raw_events", session.stream(query))
        space.lake.append("events", session.stream(f"{query} ORDER BY event, profile_id"))
    refresh.finish(space, this, now=later)


def measured(stage: str, work: Callable[[], Any]) -> dict[str, Any]:
    began, cpu = time.perf_counter(), time.process_time()
    work()
    return {
        "stage": stage,
        "seconds": round(time.perf_counter() - began, 2),
        "cpu_seconds": round(time.process_time() - cpu, 2),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


@contextmanager
def served(root: Path) -> Iterator[int]:
    """`personas serve` in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "personas_dagster.cli", "serve", "--project", str(root),
               "--port", str(port), "-q"]  # fmt: skip
    process = subprocess.Popen(command)
    try:
        for _ in range(300):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield port
    finally:
        process.terminate()
        process.wait(30)


async def _client(port: int, paths: list[bytes], seconds: list[float]) -> None:
    """One connection that asks, waits for the answer, and asks again."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in paths:
        began = time.perf_counter()
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200"), head
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
        seconds.append(time.perf_counter() - began)
    writer.close()


def asked(space: Space, root: Path, size: int, requests: int, clients: int) -> dict[str, Any]:
    """`/traits` of random profiles from some connections at once."""
    _, token = access.create(space.state, "bench", "bench", roles=["read"], has_pii=True,
                             now=AS_OF)  # fmt: skip
    auth = base64.b64encode(f"{token}:".encode()).decode()
    chance = random.Random(1)

    def request() -> bytes:
        who = chance.choice(["user_id:u", "anonymous_id:a", "email:person@example.com"])
        path = f"/v1/spaces/bench/collections/users/profiles/{who}{chance.randrange(size)}/traits"
        return (f"GET {path}?limit=50 HTTP/1.1\r\nHost: x\r\n"
                f"Authorization: Basic {auth}\r\n\r\n").encode()  # fmt: skip

    async def all_clients(count: int) -> tuple[float, list[float]]:
        seconds: list[float] = []
        began = time.perf_counter()
        await asyncio.gather(
            *(_client(port, [request() for _ in range(count // clients)], seconds)
              for _ in range(clients))
        )  # fmt: skip
        return time.perf_counter() - began, seconds

    with served(root) as port:
        asyncio.run(all_clients(requests // 10))  # what is first asked is read from disk
        took, seconds = asyncio.run(all_clients(requests))
    parts = statistics.quantiles(seconds, n=1000)
    return {
        "requests_a_second": round(len(seconds) / took),
        "clients": clients,
        "p50_ms": round(parts[499] * 1000, 2),
        "p99_ms": round(parts[989] * 1000, 2),
        "p99.9_ms": round(parts[998] * 1000, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("profiles", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    size = options.profiles
    with tempfile.TemporaryDirectory() as folder, made(Path(folder) / "shop", size) as space:
        root = Path(folder) / "shop"
        found: dict[str, Any] = {"profiles": size, "cores": os.cpu_count()}
        found["fill"] = measured("fill", lambda: refresh.keep_profiles(space))
        an_hour(space, size)
        found["hour"] = measured("hour", lambda: refresh.keep_profiles(space))
        files = Path(root / "state" / "profiles").glob("*")
        found["store_mib"] = round(sum(file.stat().st_size for file in files) / 2**20)
        found["traits"] = asked(space, root, size, options.requests, options.clients)
    print(json.dumps(found, indent=2))
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
