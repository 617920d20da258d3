"""Partitions of raw_events, materialised again: the same content, in one run for a range."""

import datetime as dt

import dagster as dg
import pytest

from personas_dagster.assets.events import partitions
from personas_dagster.digests import digests
from tests.rim.conftest import New
from tests.rim.project import Project, order, reason

DAY = "resources/spaces/development.yaml"
TABLES = ("raw_events", "rejected_events")


def filled(project: Project) -> Project:
    project.put(
        *[order(f"user-{n}", revenue=n, day=1 + n % 5, hour=n % 24) for n in range(60)],
        {
            "type": "track",
            "event": "Nobody",
            "messageId": "n",
            "receivedAt": "2026-02-02T10:00:00Z",
        },
        name="first.jsonl",
    )
    assert not reason(project.run())
    return project


@pytest.fixture(scope="module")
def daily(new_project: New) -> Project:
    return filled(new_project())


@pytest.fixture(scope="module")
def hourly(new_project: New) -> Project:
    made = new_project()
    made.amend(DAY, "by: day", "by: hour")
    return filled(made)


def content(project: Project) -> dict[str, str]:
    found = digests(project.space())
    return {name: found[name] for name in TABLES}


def again(project: Project, first: str, last: str) -> dg.ExecuteInProcessResult:
    tags = {
        "dagster/asset_partition_range_start": first,
        "dagster/asset_partition_range_end": last,
    }
    return project.run("__ASSET_JOB", select=["raw_events"], tags=tags)


def counts(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    events = result.get_asset_materialization_events()
    return {
        event.partition: event.materialization.metadata["dagster/partition_row_count"].value
        for event in events
        if event.partition
    }


def test_a_range_of_days_in_one_run(daily: Project) -> None:
    before = content(daily)
    result = again(daily, "2026-02-01", "2026-02-28")
    assert not reason(result)
    assert len(counts(result)) == 28
    assert [n for n in counts(result).values() if n] == [12] * 5
    assert content(daily) == before
    assert daily.leases() == []


def test_one_day(daily: Project) -> None:
    before = content(daily)
    result = daily.run("__ASSET_JOB", select=["raw_events"], partition="2026-02-02")
    assert not reason(result)
    assert counts(result) == {"2026-02-02": 12}
    assert content(daily) == before


def test_hours(hourly: Project) -> None:
    raw = dg.AssetKey(["development", "raw_events"])
    assert len(hourly.instance.get_materialized_partitions(raw)) == 60
    before = content(hourly)
    result = again(hourly, "2026-02-01-22:00", "2026-02-02-03:00")
    assert not reason(result)
    assert len(counts(result)) == 6
    assert content(hourly) == before


def test_today_has_a_partition(daily: Project, hourly: Project) -> None:
    """Messages of the hour that is under way are there already."""
    now = dt.datetime.now(dt.UTC)
    assert partitions(daily.space()).has_partition_key(f"{now:%Y-%m-%d}")
    assert partitions(hourly.space()).has_partition_key(f"{now:%Y-%m-%d-%H:00}")
