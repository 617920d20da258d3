"""What runs by itself: a file lands, a refresh starts; what changed starts the sync."""

import datetime as dt

import dagster as dg
import httpx
import pytest

from tests.live.conftest import WRITE_KEY, Live
from tests.live.messages import message, write
from tests.live.running import eventually

pytestmark = pytest.mark.dagster_ui

SPACE = "development"


def runs(live: Live, job: str) -> list[dg.RunRecord]:
    filters = dg.RunsFilter(job_name=job, tags={"dagster/code_location": SPACE})
    found = live.ui.instance.get_run_records(filters)
    return [r for r in found if r.dagster_run.status == dg.DagsterRunStatus.SUCCESS]


def test_a_file_that_lands_reaches_the_destination(live: Live) -> None:
    live.tool.clear()
    now = dt.datetime.now(dt.UTC) - dt.timedelta(days=1)
    at = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    rows = [message(f"rich-{n}", n, at, properties={"revenue": 900}) for n in range(20)]
    write(live.ui.space(SPACE).landing.incoming / "web_shop" / "landed.jsonl", rows)
    eventually(lambda: runs(live, "refresh"), "a refresh that the sensor started")
    eventually(lambda: runs(live, "sync_webhook"), "a sync that the change started")
    told = {m["userId"] for m in live.tool.messages}
    assert told == {f"rich-{n}" for n in range(20)}
    entered = [m for m in live.tool.messages if m.get("event") == "Audience Entered"]
    assert len(entered) == 20


def test_a_message_over_http_is_taken_up(live: Live) -> None:
    answer = httpx.post(
        f"http://127.0.0.1:{live.ui.serve_port}/v1/track",
        json={"userId": "over-http", "event": "Order Completed", "messageId": "over-http"},
        auth=(WRITE_KEY, ""),
    )
    assert (answer.status_code, answer.json()) == (200, {"success": True})

    def resolved() -> list[object]:
        with live.ui.space(SPACE).session() as session:
            session.view("events")
            found = session.fetch("SELECT source_id FROM events WHERE message_id = 'over-http'")
            return list(found.column(0).to_pylist())

    assert eventually(resolved, "a refresh with the message that came in") == ["web_shop"]
