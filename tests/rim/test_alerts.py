"""Alerts: which runs are told of, what is said, and that one is not lost on a bad minute."""

import dagster as dg
import pytest
import sqlalchemy as sa

from personas_dagster import alerting
from personas_dagster.definitions import build
from personas_dagster.errors import Unavailable
from personas_dagster.samples.receiver import Receiver
from personas_dagster.state.schema import audit
from tests.rim.conftest import New
from tests.rim.project import Project, order, reason

ALERTS = "sensors/alerts.yaml"
SPACE = "resources/spaces/development.yaml"


@pytest.fixture(scope="module")
def failed(new_project: New) -> Project:
    """The guard refused; then the sync failed, as there is no finished refresh."""
    made = new_project()
    before = (made.root / SPACE).read_text()
    made.write(SPACE, before + "identity:\n  max_profile_identifiers: 1\n")
    made.put(order("user-1", revenue=5, anonymousId="a-1"), name="first.jsonl")
    assert "" != reason(made.run())
    return made


def alert(
    project: Project, urls: list[str], *, job: str = "refresh", when: str = "failure", **tags: str
) -> object:
    """What the alert sensor does about the last run of a job."""
    project.write(ALERTS, f"urls: {urls}\nwhen: {when}\n")
    definitions = build(project.root, "development")
    sensor = definitions.resolve_sensor_def("failure_alerts")
    (run,) = project.instance.get_runs(dg.RunsFilter(job_name=job), limit=1)
    if tags:
        project.instance.add_run_tags(run.run_id, {f"dagster/{k}": v for k, v in tags.items()})
    run = project.instance.get_run_by_id(run.run_id)
    assert run is not None
    of_type = dg.DagsterEventType.RUN_FAILURE
    (entry,) = project.instance.all_logs(run.run_id, of_type=of_type)
    context = dg.build_run_status_sensor_context(
        sensor_name="failure_alerts",
        dagster_instance=project.instance,
        dagster_run=run,
        dagster_event=entry.dagster_event,
    ).for_run_failure()
    return sensor(context)


def json_url(receiver: Receiver) -> str:
    return receiver.url.replace("http://", "json://")


def test_what_failed_and_why(failed: Project) -> None:
    with Receiver() as receiver:
        alert(failed, [json_url(receiver)], will_retry="false")
        (message,) = receiver.messages
    run = failed.instance.get_runs(dg.RunsFilter(job_name="refresh"), limit=1)[0]
    assert message["title"] == "development: refresh failed"
    body = message["message"]
    assert "Failed: merge_candidates_merge_guard" in body
    assert "merge_guard: " in body and "a-1" in body
    assert "Failing since: 20" in body
    assert "identity_graph" in body.split("Affected")[1]
    assert "destinations/webhook" in body.split("Affected")[1]
    assert "landing" not in body.split("Affected")[1]
    assert f"http://127.0.0.1:3000/runs/{run.run_id}" in body


def test_a_failed_attempt_is_in_the_audit_trail(failed: Project) -> None:
    rows = failed.space().state.rows(sa.select(audit).where(audit.c.outcome == "failed"))
    (row,) = [row for row in rows if row["what"] == "refresh"]
    assert (row["subject"], row["attempt"]) == ("development", 1)
    assert "merge_guard" in row["reason"]


def test_not_before_the_last_attempt(failed: Project) -> None:
    with Receiver() as receiver:
        found = alert(failed, [json_url(receiver)], will_retry="true")
        assert isinstance(found, dg.SkipReason)
        assert receiver.messages == []


def test_each_attempt_where_wanted(failed: Project) -> None:
    with Receiver() as receiver:
        alert(failed, [json_url(receiver)], when="every_attempt", will_retry="true")
        (message,) = receiver.messages
    assert "started again" in message["message"]


def test_failed_since_the_last_success(failed: Project) -> None:
    assert reason(failed.run(hours=1))
    with Receiver() as receiver:
        alert(failed, [json_url(receiver)])
        (message,) = receiver.messages
    assert "(2 failed since the last success)" in message["message"]


def test_a_bad_channel_does_not_silence_the_others(failed: Project) -> None:
    with Receiver() as receiver, pytest.raises(Exception, match="alert URL 1") as found:
        alert(failed, ["json://127.0.0.1:9/secret-token", json_url(receiver)])
    assert "secret-token" not in str(found.value)
    assert len(receiver.messages) == 1


def test_tried_again() -> None:
    with Receiver() as receiver:
        receiver.fail_next(1)
        alerting.tell([json_url(receiver)], title="t", body="b")
        assert [m["message"] for m in receiver.messages] == ["b"]


def test_unknown_scheme() -> None:
    with pytest.raises(Unavailable, match="alert URL 1 of sensors/alerts.yaml is none"):
        alerting.tell(["nothing"], title="t", body="b")


def test_no_urls_no_sensor(failed: Project) -> None:
    failed.write(ALERTS, "urls: []\n")
    names = {one.name for one in build(failed.root, "development").sensors or ()}
    assert "failure_alerts" not in names
