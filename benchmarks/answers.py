"""Preview and CSV export, measured: `python benchmarks/answers.py [MILLIONS]` (`make bench`).

The lake is written as the refresh would leave it, without going through intake and identity, so
that 10 million messages are there within a minute. That is not part of any figure.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

AS_OF = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
TYPICAL = "event('Order Completed').within(90 days).sum(property('revenue')) >= 500"
EVENTS = {
    "Page Viewed": 0.43,
    "Product Viewed": 0.30,
    "Product Added": 0.11,
    "Checkout Started": 0.08,
    "Order Completed": 0.08,
}
_PROFILE = "'per_' || left(md5(i::VARCHAR), 27)"
_PEOPLE = f"""
SELECT {_PROFILE} AS profile_id, 'users' AS collection,
       TIMESTAMPTZ '2025-03-01 00:00:00+00' AS created_at, 'm' || i AS first_message_id,
       1::BIGINT AS load_id
FROM range($1) r(i)
"""
# A user id each, an e-mail (one in ten has two) and a browser or two.
_IDENTIFIERS = f"""
SELECT 'users' AS collection, type, value, {_PROFILE} AS profile_id,
       TIMESTAMPTZ '2025-03-01 00:00:00+00' + to_seconds((hash(value) % 30000000)::BIGINT)
           AS first_seen_at, 'm' || i AS first_message_id,
       'files' AS source_id, 1::BIGINT AS load_id
FROM (
    SELECT i, 'user_id' AS type, 'u' || i AS value FROM range($1) r(i)
    UNION ALL SELECT i, 'email', 'u' || i || '@mail.example' FROM range($1) r(i)
    UNION ALL SELECT i, 'email', 'u' || i || '.b@mail.example' FROM range(0, $1, 10) r(i)
    UNION ALL SELECT i, 'anonymous_id', md5(i || 'a') FROM range($1) r(i)
    UNION ALL SELECT i, 'anonymous_id', md5(i || 'b') FROM range(0, $1, 2) r(i)
)
"""
_EVENTS = """
SELECT event, profile_id, timestamp, timestamp + INTERVAL 1 SECOND AS received_at, message_id,
       'track' AS type, NULL::VARCHAR AS account_id, 'files' AS source_id,
       '{"product_id":"p' || product || '","category":"c' || product % 40 || '","price":'
         || price || CASE WHEN event = 'Order Completed'
                          THEN ',"revenue":' || price * 2 || ',"currency":"EUR"' ELSE '' END
         || '}' AS properties,
       NULL::VARCHAR AS traits, '{"library":{"name":"analytics.js"},"locale":"en-GB"}' AS context,
       1::BIGINT AS load_id, strftime(timestamp, '%Y-%m') AS month
FROM (
    SELECT printf('m-%016x', hash(i)) AS message_id,
           'per_' || left(md5((hash(i, 1) % $people)::VARCHAR), 27) AS profile_id,
           list_extract($names, list_position(list_transform($shares,
               lambda x: x > (hash(i, 2) % 1000) / 1000.0), true)) AS event,
           hash(i, 3) % 2000 AS product, 5 + (hash(i, 4) % 9500) / 100 AS price,
           $start::TIMESTAMPTZ + to_seconds((hash(i, 5) % $seconds)::BIGINT) AS timestamp
    FROM range($low, $high) r(i)
) ORDER BY event, profile_id, timestamp, message_id
"""
_MEMBERS = f"""
SELECT 'everybody' AS audience, 'users' AS collection, {_PROFILE} AS profile_id,
       $2::TIMESTAMPTZ AS entered_at
FROM range($1) r(i) ORDER BY profile_id
"""


def project(root: Path) -> Any:
    """A space with an audience that everybody is in."""
    from personas_dagster.project.loader import load_project
    from personas_dagster.spaces import open_space

    for folder in ("assets/audiences", "resources/spaces"):
        (root / folder).mkdir(parents=True)
    (root / "assets/audiences/everybody.yaml").write_text(
        json.dumps({"query": "event('Page Viewed').count() >= 0"})
    )
    space = {
        "lake": {"location": "lake"},
        "engine": {"memory_limit": "8GB", "threads": 2},
        "state": {"url": "sqlite:///state.db"},
        "landing": "landing",
        "operator": ["pii"],
    }
    (root / "resources" / "spaces" / "bench.yaml").write_text(json.dumps(space))
    return open_space(load_project(root))


def fill(space: Any, *, messages: int, people: int, members: int) -> None:
    """The lake as a refresh would leave it, and the refresh that published it."""
    import sqlalchemy as sa

    from personas_dagster.state.schema import refreshes

    lake, months = space.lake, 12
    shares, total = [], 0.0
    for share in EVENTS.values():
        total += share
        shares.append(total)
    with space.engine.session(lake) as session:
        lake.append("profiles", session.stream(_PEOPLE, [max(people, members)]))
        lake.append("identifiers", session.stream(_IDENTIFIERS, [max(people, members)]))
        lake.append("audience_memberships", session.stream(_MEMBERS, [members, AS_OF]))
        for month in range(months):
            year, number = divmod(2 + month, 12)
            start = dt.datetime(2025 + year, number + 1, 1, tzinfo=dt.UTC)
            values = {
                "people": people,
                "names": list(EVENTS),
                "shares": shares,
                "start": start,
                "seconds": 28 * 86_400,
                "low": messages * month // months,
                "high": messages * (month + 1) // months,
            }
            lake.append("events", session.stream(_EVENTS, values))
    with space.state.begin() as connection:
        connection.execute(
            sa.insert(refreshes).values(
                run_id="bench",
                as_of=AS_OF,
                status="finished",
                started_at=AS_OF,
                finished_at=AS_OF,
                versions=lake.versions(),
                counts={},
            )
        )


def timed(what: str, work: Callable[[], Any], times: int = 1) -> dict[str, Any]:
    """The best of some times: wall clock, CPU seconds, and the process's peak memory."""
    best: dict[str, Any] = {}
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        seconds = time.perf_counter() - wall
        if not best or seconds < best["seconds"]:
            best = {
                "what": what,
                "seconds": round(seconds, 3),
                "cpu_seconds": round(time.process_time() - cpu, 3),
            }
    best["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return best


def measure(space: Any, folder: Path, members: int) -> list[dict[str, Any]]:
    from personas_dagster.answers import export, preview

    asked = preview.of_text(space, TYPICAL)
    rows = [timed("preview of a typical audience", lambda: preview.preview(space, asked), 3)]
    for layout in ("unformatted", "formatted", "single"):
        id_type = "email" if layout == "single" else None
        chosen = export.Export("everybody", "audience", layout=layout, id_type=id_type)
        out = folder / f"{layout}.csv"
        rows.append(
            timed(
                f"CSV of {members:,} members, {layout}",
                lambda chosen=chosen, out=out: export.write(space, chosen, out),
                3,
            )
        )
        out.unlink()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("millions", nargs="?", type=float, default=10.0)
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--keep", type=Path, help="Use this folder, and fill it if it is empty.")
    arguments = parser.parse_args()
    messages = round(arguments.millions * 1_000_000)
    with tempfile.TemporaryDirectory(prefix="personas-bench-") as temporary:
        root = arguments.keep or Path(temporary)
        if (root / "resources").exists():
            from personas_dagster.project.loader import load_project
            from personas_dagster.spaces import open_space

            space = open_space(load_project(root))
        else:
            space = project(root)
            fill(space, messages=messages, people=messages // 20, members=arguments.members)
        for row in measure(space, root, arguments.members):
            print(json.dumps(row))


if __name__ == "__main__":
    main()
