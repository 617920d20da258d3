"""A shop's clickstream, day by day: after each refresh and sync the list is the audience.

Three days in a row every six weeks, with leaps between them; with PERSONAS_REPLAY=whole each of the
178 days, which takes some seven minutes of one core.
"""

from __future__ import annotations

import datetime as dt
import gzip
import json
import os
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from personas_dagster import deliver
from personas_dagster.activation.report import SyncReport
from personas_dagster.simulators import simulator
from personas_dagster.simulators.serving import Served
from personas_dagster.spaces import Space
from tests.place import Place

KEY = "hesitant"
HESITANT = (
    "event('Product Viewed').within(3 days).count() >= 1 "
    "AND event('Order Completed').within(14 days).count() = 0"
)
WHOLE = os.environ.get("PERSONAS_REPLAY") == "whole"
TOLD_BEFORE = {"new_identifier", "merge"}
_MEMBERS = f"""
SELECT m.profile_id, i.value FROM members m
LEFT JOIN graph_identifiers i ON i.profile_id = m.profile_id AND i.type = 'user_id'
WHERE m.audience = '{KEY}'
"""
_SENT = """
SELECT l.*, coalesce(r.root_id, l.profile_id) AS root_id
FROM ledger l LEFT JOIN graph_roots r ON r.profile_id = l.profile_id
WHERE l.sync_id = ? AND l.recipient IS NOT NULL
"""


def steps_of(path: Path) -> dict[dt.date, list[str]]:
    """The days that are refreshed and synced, each with the lines that came since the last."""
    came: dict[dt.date, list[str]] = defaultdict(list)
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            came[dt.date.fromisoformat(json.loads(line)["receivedAt"][:10])].append(line)
    first, last = min(came), max(came)
    days = [first + dt.timedelta(days=n) for n in range((last - first).days + 1)]
    chosen = [day for n, day in enumerate(days) if WHOLE or n % 42 < 3 or day == last]
    found: dict[dt.date, list[str]] = {day: [] for day in chosen}
    for day in sorted(came):
        found[chosen[bisect_left(chosen, day)]] += came[day]
    return found


@pytest.mark.slow
def test_day_by_day(
    new_place: Callable[[], Place], real_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = steps_of(real_data / "ecom.jsonl.gz")
    assert len(steps) == (178 if WHOLE else 16)
    account = simulator("iterable_lists")
    monkeypatch.setenv("LIST_KEY", account.key)
    place = new_place()
    place.define({f"audiences/{KEY}": f"query: |\n  {HESITANT}\ninclude_anonymous: true\n"})
    place.write("sensors/connections/to_list.yaml",
                f"{{audience: {KEY}, destination: list, max_change: 9}}")  # fmt: skip
    reasons: Counter[str] = Counter()
    with Served() as served:
        settings = {**account.settings(served.add("list", account)), "api_key": {"env": "LIST_KEY"}}
        text = json.dumps({"type": "iterable_lists", "settings": settings})
        place.write("resources/destinations/list.yaml", text)
        space = place.space
        for day, lines in steps.items():
            if lines:
                file = place.write(f"{day}.jsonl", "".join(lines))
                space.landing.land([file], now=_noon(day))
            at = _noon(day + dt.timedelta(days=1))
            place.refresh(as_of=at, space=space)
            before, asked = set(account.members(KEY)), len(account.requests)
            report = deliver.deliver(space, "list", owner="test", now=lambda at=at: at)
            rows = sum(one.rows for one in account.requests[asked:])
            reasons += explained(space, report, before, account.members(KEY), rows)
    told = {"entered", "exited"}
    assert told <= reasons.keys() <= told | {"backfill", *TOLD_BEFORE}
    assert reasons["entered"] + reasons["backfill"] >= reasons["exited"] >= 20, reasons


def _noon(day: dt.date) -> dt.datetime:
    return dt.datetime(day.year, day.month, day.day, 12, tzinfo=dt.UTC)


def explained(
    space: Space, report: SyncReport, before: set[str], after: set[str], rows: int
) -> Counter[str]:
    """The list is the audience, and each row that was sent has a reason that holds."""
    part = report.connections["to_list"]
    with space.session(space.ledger_lake) as session:
        session.view("ledger")
        found = session.fetch(_MEMBERS).to_pylist()
        sent: list[dict[str, Any]] = session.fetch(_SENT, [report.sync_id]).to_pylist()
    members = {row["profile_id"] for row in found}
    assert after == {row["value"] for row in found if row["value"]}
    unknown = {row["profile_id"] for row in found if row["value"] is None}
    assert sum(part.not_sendable.values()) <= len(unknown)
    assert part.members == len(members)
    assert not report.failed and not report.rejected
    assert rows == len(sent) == part.confirmed == sum(part.sent.values())
    assert Counter(row["reason"] for row in sent) == part.sent
    told = {json.loads(row["recipient"])["user_id"]: row for row in sent}
    assert {who for who, row in told.items() if row["value"] == "true"} == after - before
    assert {who for who, row in told.items() if row["value"] == "false"} == before - after
    for row in sent:
        assert (row["root_id"] in members) == (row["reason"] != "exited")
        assert (row["reason"] == "exited") == (row["value"] == "false")
        assert (row["reason"] == "backfill") <= part.first
    return part.sent
