"""Runs that people launch, against the real webserver, daemon and code servers.

The tests build on each other: they are the life of one space, in order.
"""

import datetime as dt
import os
import random
import signal
import time
from pathlib import Path

import dagster as dg
import pytest

from personas_dagster import intake, refresh
from personas_dagster.digests import digests
from personas_dagster.project.loader import load_project
from personas_dagster.spaces import open_space
from tests.live.conftest import Live
from tests.live.messages import batch, message, write
from tests.live.running import copy_declarations, eventually

pytestmark = pytest.mark.dagster_ui

SPACE = "production"
DAY = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
KILLED_IN = ("landing", "merge_candidates", "identity_graph", "events", "compute")


def as_of(hours: int) -> dict[str, str]:
    return {"personas/as_of": (DAY + dt.timedelta(hours=hours)).isoformat()}


def put(live: Live, name: str, rows: list[dict[str, object]]) -> None:
    write(live.ui.space(SPACE).landing.incoming / name, rows)


def test_locations_load(live: Live) -> None:
    kind = "RepositoryLocation"
    assert live.ui.locations() == {"development": kind, "production": kind}


def undisturbed(root: Path, batches: int) -> dict[str, str]:
    """The digests after the same refreshes, by the core alone."""
    copy_declarations(root)
    space = open_space(load_project(root), SPACE)
    for number in range(batches):
        write(space.landing.incoming / f"{number}.jsonl", batch(number))
        this = refresh.begin(
            space, run_id=str(number), now=DAY, as_of=DAY + dt.timedelta(hours=number)
        )
        intake.take_in(space, now=DAY)
        refresh.propose(space, now=DAY)
        refresh.check(space)
        refresh.apply(space, now=DAY)
        refresh.settle(space)
        refresh.custom_traits(space, this)
        refresh.compute_definitions(space, this)
        refresh.finish(space, this, now=DAY)
    return digests(space)


def test_killed_runs_lose_nothing(live: Live, tmp_path: Path) -> None:
    chance = random.Random(os.environ.get("PERSONAS_TEST_SEED", "rim"))
    killed = []
    for number, step in enumerate(chance.sample(KILLED_IN, 3)):
        put(live, f"{number}.jsonl", batch(number))
        run_id = live.ui.launch(SPACE, "refresh", tags=as_of(number))
        node = f"{SPACE}__{step}"
        eventually(lambda r=run_id, n=node: live.ui.has_begun(r, n), f"{step} begins", every=0.02)
        time.sleep(chance.uniform(0, 0.3))
        pid = live.ui.worker(run_id)
        assert pid is not None
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        if live.ui.ended(run_id).dagster_run.status == dg.DagsterRunStatus.FAILURE:
            killed.append(step)
            live.ui.succeeded(live.ui.retry_of(run_id))
    assert killed, "no run was killed in time"
    assert digests(live.ui.space(SPACE)) == undisturbed(tmp_path, 3)


def test_a_launched_refresh_materialises_everything(live: Live) -> None:
    put(live, "launched.jsonl", [message(f"new-{n}", n, "2026-02-21T10:00:00Z") for n in range(9)])
    run_id = live.ui.launch(SPACE, "refresh", tags=as_of(10))
    live.ui.succeeded(run_id)
    stages = {"landing", "raw_events", "merge_candidates", "identity_graph", "events"}
    found = live.ui.materialised(run_id)
    assert found >= stages | {"custom_traits", "computed_traits/lifetime_revenue"}
    assert found >= {"audiences/first_time_shoppers", "audience_memberships", "audience_changes"}
    assert "computed_traits/refunded_total" not in found


def test_backfill_in_one_run(live: Live) -> None:
    before = digests(live.ui.space(SPACE))
    days = [str(dt.date(2026, 1, 25) + dt.timedelta(days=n)) for n in range(30)]
    backfill_id = live.ui.backfill(SPACE, "raw_events", days)

    def completed() -> bool:
        backfill = live.ui.instance.get_backfill(backfill_id)
        assert backfill is not None
        assert backfill.status.value not in ("FAILED", "COMPLETED_FAILED"), backfill.error
        return backfill.status.value in ("COMPLETED", "COMPLETED_SUCCESS")

    eventually(completed, "the backfill")
    filters = dg.RunsFilter(tags={"dagster/backfill": backfill_id})
    (run,) = live.ui.instance.get_runs(filters)
    of_type = dg.DagsterEventType.ASSET_MATERIALIZATION
    assert len(live.ui.instance.all_logs(run.run_id, of_type=of_type)) == 30
    assert digests(live.ui.space(SPACE)) == before


def test_two_refreshes_take_turns(live: Live) -> None:
    runs = [live.ui.launch(SPACE, "refresh", tags=as_of(11)) for _ in range(2)]
    # One that the queue does not know as a refresh: it waits for the space itself.
    runs.append(live.ui.launch(SPACE, "__ASSET_JOB", tags=as_of(11), select=["landing"]))
    records = sorted((live.ui.succeeded(run_id) for run_id in runs), key=lambda r: r.end_time or 0)
    first, second = (r for r in records if r.dagster_run.job_name == "refresh")
    assert first.end_time is not None and second.start_time is not None
    assert first.end_time <= second.start_time


def test_syncs_of_a_destination_take_turns(live: Live) -> None:
    runs = [live.ui.launch(SPACE, "sync_webhook") for _ in range(3)]
    records = sorted(
        (live.ui.succeeded(run_id) for run_id in runs), key=lambda r: r.start_time or 0
    )
    for before, after in zip(records, records[1:], strict=False):
        assert before.end_time is not None and after.start_time is not None
        assert before.end_time <= after.start_time
    told = [(m["userId"], m["type"]) for m in live.tool.messages if m["type"] == "identify"]
    assert told
    live.tool.clear()


def test_a_refused_merge_stops_and_alerts(live: Live) -> None:
    before = digests(live.ui.space(SPACE))
    live.alerts.clear()
    at = "2026-02-22T10:00:00Z"
    put(live, "bad.jsonl", [message("shared", n, at, anonymousId=f"tablet-{n}", context={
        "traits": {"email": f"{n}@example.com"}}) for n in range(5)])  # fmt: skip
    run_id = live.ui.launch(SPACE, "refresh", tags=as_of(12))
    assert live.ui.ended(run_id).dagster_run.status == dg.DagsterRunStatus.FAILURE
    assert live.ui.materialised(run_id) == {"landing", "raw_events", "merge_candidates"}
    after = digests(live.ui.space(SPACE))
    assert {name for name in after if after[name] != before[name]} == {"raw_events"}
    (alert,) = live.alerts.wait_for(1, timeout=120)
    assert alert["title"] == "production: refresh failed"
    for said in ("merge_guard", "tablet-0", "Failing since: 20", "identity_graph", "audiences/",
                 "destinations/webhook", f"{live.ui.url}/runs/{run_id}"):  # fmt: skip
        assert said in alert["message"], alert["message"]


def test_mended_rules_after_a_reload(live: Live) -> None:
    path = live.ui.root / "resources" / "spaces" / f"{SPACE}.yaml"
    path.write_text(path.read_text().replace("identifiers: 6", "identifiers: 100"))
    live.ui.reload(SPACE)
    run_id = live.ui.launch(SPACE, "refresh", tags=as_of(13))
    live.ui.succeeded(run_id)
    assert "identity_graph" in live.ui.materialised(run_id)
