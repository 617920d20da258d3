"""Syncs as Dagster shows them: assets, checks, what starts them, and what is told of them."""

import datetime as dt
import json
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest
import sqlalchemy as sa

from personas_dagster.definitions import build
from personas_dagster.resources import SpaceResource
from personas_dagster.samples.receiver import Receiver
from personas_dagster.sensors.deliveries import last_tick
from personas_dagster.simulators import simulator
from personas_dagster.simulators.serving import Served
from personas_dagster.state.schema import audit
from personas_dagster.timing import due, held_since, next_sync
from tests.rim.conftest import New
from tests.rim.project import DAY, Project, materialised, orders, reason

LISTS_KEY = "TEST_LISTS_KEY"
ALERTS = "sensors/alerts.yaml"

RICH = "event('Order Completed').sum(property('revenue')) >= 100"


@pytest.fixture(scope="module")
def tools() -> Iterator[tuple[Receiver, Receiver, Served]]:
    """A webhook, a channel of alerts, and simulators."""
    with (
        Receiver() as webhook,
        Receiver() as alerts,
        Served() as served,
        pytest.MonkeyPatch.context() as patch,
    ):
        patch.setenv(LISTS_KEY, "simulated-key")
        yield webhook, alerts, served


@pytest.fixture(scope="module")
def project(new_project: New, tools: tuple[Receiver, Receiver, Served]) -> Project:
    """A webhook and a list, told of people who spend; 300 of them are known."""
    webhook, alerts, served = tools
    made = new_project()
    account = simulator("iterable_lists")
    settings = {**account.settings(served.add("lists", account)), "api_key": {"env": LISTS_KEY}}
    folder = "resources/destinations"
    made.write(f"{folder}/lists.yaml", json.dumps({"type": "iterable_lists", "settings": settings}))
    made.write(f"{folder}/webhook.yaml", json.dumps(
        {"type": "webhook", "settings": {"url": webhook.url, "batch_size": 100}}))  # fmt: skip
    made.write("assets/audiences/big_spenders.yaml", f'query: "{RICH}"\n')
    for name in ("abandoned_carts", "win_back", "lifetime_revenue"):
        (made.root / f"sensors/connections/{name}_to_webhook.yaml").unlink()
    made.write("sensors/connections/spenders_to_lists.yaml",
               "{audience: big_spenders, destination: lists}")  # fmt: skip
    url = alerts.url.replace("http://", "json://")
    made.write(ALERTS, f"urls: ['{url}']\nsize: 0.2\nat_least: 20\n")
    emails = [{**one, "context": {"traits": {"email": f"{n}@example.com"}}}
              for n, one in enumerate(orders(range(300), revenue=500))]  # fmt: skip
    made.put(*emails, name="rich.jsonl")
    made.put(*orders(range(300, 400), revenue=5), name="poor.jsonl")
    assert not reason(made.run())
    return made


def evaluated(result: dg.ExecuteInProcessResult) -> dict[tuple[str, str], Any]:
    events = result.get_asset_check_evaluations()
    return {(one.asset_key.path[-1], one.check_name): one for one in events}


def alert(project: Project, result: dg.ExecuteInProcessResult) -> object:
    """What the sensor does about a sync that ended well."""
    definitions = build(project.root, "development")
    sensor = definitions.resolve_sensor_def("delivery_alerts")
    run = project.instance.get_run_by_id(result.run_id)
    assert run is not None
    of_type = dg.DagsterEventType.RUN_SUCCESS
    (entry,) = project.instance.all_logs(run.run_id, of_type=of_type)
    return sensor(dg.build_run_status_sensor_context(
        sensor_name="delivery_alerts", dagster_instance=project.instance,
        dagster_run=run, dagster_event=entry.dagster_event))  # fmt: skip


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def test_a_connection_that_was_never_synced_is_due(project: Project) -> None:
    assert set(due(project.space(), now=now())) == {"webhook", "lists"}


def test_first_sync_shows_on_its_assets(project: Project) -> None:
    result = project.run("sync_webhook")
    assert not reason(result)
    found = {e.asset_key.path[-1]: e for e in result.get_asset_materialization_events()}
    assert set(found) == {"webhook", "big_spenders_to_webhook"}
    metadata = found["big_spenders_to_webhook"].materialization.metadata
    assert metadata["dagster/row_count"].value == 300
    (reasons,) = metadata["by_reason"].value.records
    assert reasons.data == {"reason": "backfill", "rows": 300}
    assert "last_sync" in metadata
    assert all(one.passed for one in evaluated(result).values())
    assert isinstance(alert(project, result), dg.SkipReason)
    assert "webhook" not in due(project.space(), now=now())


@pytest.mark.parametrize(
    ("chosen", "shown"),
    [("destinations/webhook", ["connections/big_spenders_to_webhook", "destinations/webhook"]),
     ("connections/big_spenders_to_webhook", ["connections/big_spenders_to_webhook"])],
)  # fmt: skip
def test_selected_alone(project: Project, chosen: str, shown: list[str]) -> None:
    result = project.run("__ASSET_JOB", select=[chosen])
    assert not reason(result)
    assert materialised(result) == shown
    assert {check for _, check in evaluated(result)} == {"delivered", "circuit_breaker", "as_usual"}


def test_what_must_exist_first_fails_for_good_and_stays_due(project: Project) -> None:
    where = "sensors/connections/spenders_to_lists.yaml"
    project.amend(where, "lists}", "lists, list_id: '9404'}")
    result = project.run("sync_lists")
    project.amend(where, ", list_id: '9404'}", "}")
    assert "there is no list with the id 9404" in reason(result)
    assert project.instance.get_runs(limit=1)[0].tags["dagster/max_retries"] == "0"
    delivered = evaluated(result)[("spenders_to_lists", "delivered")]
    assert not delivered.passed and "9404" in str(delivered.description)
    assert not result.get_asset_materialization_events()
    assert "lists" in due(project.space(), now=now())


def test_lists_are_synced_at_their_own_pace(project: Project) -> None:
    assert not reason(project.run("sync_lists"))
    project.put(*orders(range(300, 305), revenue=500, day=2), name="more.jsonl")
    assert not reason(project.run(hours=1))
    space = project.space()
    again = next_sync(space, "lists")
    assert again is not None and dt.timedelta(minutes=50) < again - now() < dt.timedelta(hours=1)
    assert set(due(space, now=now())) == {"webhook"}
    assert set(due(space, now=again)) == {"webhook", "lists"}
    early = project.run("sync_lists")
    assert not reason(early) and not early.get_asset_materialization_events()


def test_a_slower_pace_that_is_wanted(project: Project) -> None:
    before = next_sync(project.space(), "lists")
    path = "resources/destinations/lists.yaml"
    declared = json.loads((project.root / path).read_text())
    project.write(path, json.dumps({**declared, "every": "6 hours"}))
    after = next_sync(project.space(), "lists")
    assert before is not None and after == before + dt.timedelta(hours=5)
    project.write(path, json.dumps(declared))


def test_failures_show_with_examples(project: Project, tools: Any) -> None:
    tools[0].fail_next(100, status=400)
    result = project.run("sync_webhook")
    assert not reason(result)
    events = {e.asset_key.path[-1]: e for e in result.get_asset_materialization_events()}
    failures = events["big_spenders_to_webhook"].materialization.metadata["failures"].value
    assert len(failures.records) == 5
    assert failures.records[0].data["outcome"] == "rejected"
    tools[0].clear()


def test_a_hard_failure_shows_on_the_audience_too(project: Project, tools: Any) -> None:
    project.put(*orders(range(305, 310), revenue=500, day=3), name="third.jsonl")
    assert not reason(project.run(hours=2))
    tools[0].fail_next(100, status=401)
    result = project.run("sync_webhook")
    assert "credentials" in reason(result)
    assert not evaluated(result)["big_spenders_to_webhook", "delivered"].passed
    events = project.instance.all_logs(
        result.run_id, of_type=dg.DagsterEventType.ASSET_OBSERVATION)  # fmt: skip
    keys = [one.dagster_event.asset_key.path[-1] for one in events if one.dagster_event]  # type: ignore[union-attr]
    assert keys == ["big_spenders"]
    assert "webhook" in due(project.space(), now=now())
    tools[0].clear()
    assert not reason(project.run("sync_webhook"))


def test_held_alerts_once(project: Project, tools: Any) -> None:
    project.write("assets/audiences/big_spenders.yaml",
                  f"query: \"{RICH}000\"\n")  # fmt: skip
    assert not reason(project.run(hours=3))
    first = project.run("sync_webhook")
    assert not reason(first)
    check = evaluated(first)["big_spenders_to_webhook", "circuit_breaker"]
    assert not check.passed and "became empty" in check.description
    alert(project, first)
    (told,) = tools[1].messages
    assert told["title"] == "development: a sync needs a look"
    assert "big_spenders_to_webhook: held: became empty (it had 305 members)" in told["message"]
    assert "Held since: 20" in told["message"]
    assert "Affected: connections/big_spenders_to_webhook" in told["message"]
    assert f"/runs/{first.run_id}" in told["message"]
    second = project.run("sync_webhook")
    assert isinstance(alert(project, second), dg.SkipReason)
    since = held_since(project.space(), "webhook", "big_spenders_to_webhook")
    assert since is not None and since < now()
    assert "webhook" not in due(project.space(), now=now())  # not before the next refresh
    project.write("assets/audiences/big_spenders.yaml", f'query: "{RICH}"\n')
    assert not reason(project.run(hours=4))
    assert "webhook" in due(project.space(), now=now())
    tools[1].clear()


def test_an_audience_that_grew_alerts(project: Project, tools: Any) -> None:
    project.put(*orders(range(310, 400), revenue=500, day=4), name="fourth.jsonl")
    assert not reason(project.run(hours=5))
    result = project.run("sync_webhook")
    assert not reason(result)
    assert not evaluated(result)["big_spenders_to_webhook", "as_usual"].passed
    alert(project, result)
    (told,) = tools[1].messages
    assert "400 members, usually 305 (+31%)" in told["message"]
    tools[1].clear()


def test_each_failed_attempt_where_wanted(project: Project, tools: Any) -> None:
    before = (project.root / ALERTS).read_text()
    project.put(*orders(range(400, 405), revenue=500, day=5), name="fifth.jsonl")
    assert not reason(project.run(hours=6))
    tools[0].fail_next(1, status=503)
    result = project.run("sync_webhook")
    assert not reason(result)
    assert isinstance(alert(project, result), dg.SkipReason)
    project.write(ALERTS, f"{before}when: every_attempt\n")
    alert(project, result)
    (told,) = tools[1].messages
    assert "Attempts that failed and were made again: 1" in told["message"]
    project.write(ALERTS, before)
    tools[1].clear()


def test_late_refresh_alerts_once(
    project: Project, tools: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.amend("resources/spaces/development.yaml", "automation: false", "automation: true")
    last = project.space().last_refresh()
    assert last is not None
    tick = last_tick("0 * * * *", last["finished_at"] + dt.timedelta(hours=1))
    cursors: list[str | None] = [None]
    for minutes in (29, 31, 50):  # after the first tick that brought no refresh
        at = tick + dt.timedelta(minutes=minutes)
        monkeypatch.setattr(SpaceResource, "now", lambda self, at=at: at)
        cursors.append(tick_late(project, cursors[-1]))
    assert cursors == [None, None, str(last["refresh_id"]), str(last["refresh_id"])]
    (told,) = tools[1].messages
    assert told["title"] == "development: the refresh is late"
    assert f"Due at: {tick:%Y-%m-%d %H:%M} UTC (`0 * * * *`), and 0:30:00 later" in told["message"]
    assert f"Last finished: {last['finished_at']:%Y-%m-%d %H:%M:%S} UTC" in told["message"]
    assert "/runs/" in told["message"]
    tools[1].clear()


def tick_late(project: Project, cursor: str | None) -> str | None:
    """One look of the sensor; its cursor after it."""
    definitions = build(project.root, "development")
    sensor = definitions.resolve_sensor_def("late_refreshes")
    resource = SpaceResource(root=str(project.root), space="development")
    with dg.build_sensor_context(
        instance=project.instance,
        definitions=definitions,
        sensor_name="late_refreshes",
        cursor=cursor,
        resources={"space": resource},
    ) as context:
        sensor.evaluate_tick(context)
        return context.cursor


@pytest.mark.parametrize(
    ("cron", "expected"),
    [("0 * * * *", dt.timedelta(hours=2)), ("30 1 * * *", dt.timedelta(hours=1, minutes=30)),
     ("0 0 1 1 *", -dt.timedelta(days=59))],
)  # fmt: skip
def test_last_tick(cron: str, expected: dt.timedelta) -> None:
    assert last_tick(cron, DAY + dt.timedelta(hours=2)) == DAY + expected


def test_each_attempt_is_in_the_audit_trail(project: Project) -> None:
    rows = project.space().state.rows(sa.select(audit).where(audit.c.what == "sync"))
    found = {(row["subject"], row["outcome"]) for row in rows}
    assert found >= {("webhook", "finished"), ("webhook", "failed"), ("lists", "skipped"),
                     ("big_spenders_to_webhook", "held"),
                     ("spenders_to_lists", "needs_setup")}  # fmt: skip
    failed = next(row for row in rows if (row["subject"], row["outcome"]) == ("webhook", "failed"))
    assert failed["attempt"] == 1 and "401" in failed["reason"]
    assert failed["counts"]["postponed"] + failed["counts"]["failed"] > 0
