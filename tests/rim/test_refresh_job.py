"""The refresh as a Dagster job: everything once, then only what changed."""

import base64
import datetime as dt
import json
import shutil
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import dagster as dg
import pytest

from personas_dagster import intake
from tests.rim.conftest import New
from tests.rim.project import Project, materialised, order, orders, reason

STAGES = [
    *("custom_traits", "events", "identity_graph", "landing", "merge_candidates"),
    *("profile_store", "published"),
]


@pytest.fixture(scope="module")
def project(new_project: New) -> Project:
    """Refreshed once, with orders of 30 people and one message that is rejected."""
    made = new_project()
    made.put(
        *orders(range(30)),
        order("user-1", revenue=700, day=20),
        {
            "type": "track",
            "event": "Nobody",
            "messageId": "n",
            "receivedAt": "2026-02-01T10:00:00Z",
        },
        name="first.jsonl",
    )
    assert not reason(made.run())
    return made


def latest(project: Project, *key: str) -> dict[str, Any]:
    event = project.instance.get_latest_materialization_event(dg.AssetKey(["development", *key]))
    assert event is not None
    assert event.asset_materialization is not None
    return {k: v.value for k, v in event.asset_materialization.metadata.items()}


def test_end_to_end(project: Project) -> None:
    assert project.members("big_spenders") == 1
    assert latest(project, "landing")["accepted"] == 31
    assert latest(project, "merge_candidates")["dagster/row_count"] == 31
    assert latest(project, "identity_graph")["users_now"] == 30
    assert latest(project, "events")["dagster/row_count"] == 31
    assert latest(project, "computed_traits", "lifetime_revenue")["dagster/row_count"] == 30
    assert latest(project, "audiences", "big_spenders")["entered"] == 1
    assert latest(project, "audience_changes")["dagster/row_count"] >= 1
    assert latest(project, "rejected_events")["rejected"] == 1


def told(project: Project) -> set[str]:
    raw = dg.AssetKey(["development", "raw_events"])
    return set(project.instance.get_materialized_partitions(raw))


def test_partitions_are_told(project: Project) -> None:
    assert told(project) == {"2026-02-01", "2026-02-20"}


def drawn(picture: str) -> str:
    """The SVG of a picture in Markdown; it is one that a browser can read."""
    text = base64.b64decode(picture.split("base64,")[1].rstrip(")")).decode()
    assert ElementTree.fromstring(text).tag.endswith("svg")
    return text


def test_what_is_stale_is_told(project: Project) -> None:
    """The refresh was as of a day long ago."""
    why = "it is as of 2026-03-01 00:00 UTC, and due at `0 * * * *`"
    assert latest(project, "audiences", "big_spenders")["stale"] == why
    assert latest(project, "computed_traits", "lifetime_revenue")["stale"] == why
    told = [record.data for record in latest(project, "published")["stale"].records]
    assert {row["key"] for row in told} >= {"big_spenders", "lifetime_revenue"}
    assert why in {row["why"] for row in told}


def test_plots_and_tables_are_shown(project: Project) -> None:
    assert "data:image/" in str(latest(project, "events")["by_event"])
    picture = str(latest(project, "computed_traits", "lifetime_revenue")["plot"])
    assert ">50.0</text>" in drawn(picture) and ">29</text>" in drawn(picture)
    assert ">1</text>" in drawn(str(latest(project, "audiences", "big_spenders")["over_time"]))
    changes = latest(project, "audience_changes")["changes"]
    assert "big_spenders" in [record.data["audience"] for record in changes.records]


def test_nothing_new_no_events(project: Project) -> None:
    result = project.run(hours=1)
    assert not reason(result)
    assert materialised(result) == STAGES


def test_only_what_changed(project: Project) -> None:
    project.put(order("user-2", revenue=900, day=27), name="second.jsonl")
    result = project.run(hours=2)
    assert not reason(result)
    found = materialised(result)
    assert "audiences/big_spenders" in found
    assert "computed_traits/lifetime_revenue" in found
    assert "audiences/newsletter_fans" not in found
    assert "computed_traits/refunded_total" not in found
    assert project.members("big_spenders") == 2


def test_one_trait(project: Project) -> None:
    before = project.space().last_refresh()
    project.put(order("user-3", revenue=1000, day=27), name="third.jsonl")
    keys = ["landing", "merge_candidates", "identity_graph", "events"]
    result = project.run(hours=3, select=[*keys, "computed_traits/lifetime_revenue"])
    assert not reason(result)
    assert materialised(result) == sorted([*keys, "raw_events", "computed_traits/lifetime_revenue"])
    after = project.space().last_refresh()
    assert before is not None and after is not None
    assert after["refresh_id"] > before["refresh_id"]
    assert project.members("big_spenders") == 2  # it was not evaluated
    assert not reason(project.run(hours=4))
    assert project.members("big_spenders") == 3


def test_ingested_without_a_run_is_told(project: Project, tmp_path: Path) -> None:
    space = project.space()
    file = tmp_path / "by_hand.jsonl"
    file.write_text(json.dumps(order("user-4", revenue=10, day=14)) + "\n")
    now = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)
    space.landing.land([file], now=now)
    intake.take_in(space, now=now)
    assert "2026-02-14" not in told(project)
    assert not reason(project.run(hours=5))
    assert "2026-02-14" in told(project)
    assert latest(project, "landing")["accepted"] == 1


def test_compute_alone_brings_custom_traits_along(project: Project) -> None:
    """As when somebody goes on from the step that failed."""
    said = {"type": "identify", "event": None, "traits": {"marketing_opt_in": True}}
    opened = {"event": "Email Opened", "properties": {}}
    project.put(
        order("user-5", revenue=1, day=24, **said),
        *[order("user-5", revenue=n, day=25, hour=n, **opened) for n in range(3)],
        name="opted_in.jsonl",
    )
    stages = ["landing", "merge_candidates", "identity_graph", "events"]
    assert not reason(project.run(hours=6, select=stages))
    assert project.members("newsletter_fans") == 0
    assert not reason(project.run(hours=6, select=["audiences/newsletter_fans"]))
    assert project.members("newsletter_fans") == 1


def test_lease_is_given_back(project: Project) -> None:
    assert project.leases() == []


def test_space_without_definitions(new_project: New) -> None:
    made = new_project()
    for folder in ("assets/audiences", "assets/computed_traits", "assets/sql_traits"):
        shutil.rmtree(made.root / folder, ignore_errors=True)
    shutil.rmtree(made.root / "sensors" / "connections")
    made.put(*orders(range(3)), name="first.jsonl")
    assert not reason(made.run())
    last = made.space().last_refresh()
    assert last is not None
    assert last["counts"]["identity"]["profiles"] == 3


def test_destination_in_a_run_without_changes_is_skipped(project: Project) -> None:
    connections = [f"connections/{name}" for name in sorted(project.space().connections)]
    chosen = ["audiences/big_spenders", *connections, "destinations/webhook"]
    result = project.run("__ASSET_JOB", hours=7, select=chosen)
    assert not reason(result)
    assert materialised(result) == []
