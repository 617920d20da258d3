"""An identifier that many share is shown with the load and told once; a person decides."""

import datetime as dt
from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from personas_dagster import curating
from personas_dagster.definitions import build
from personas_dagster.samples.receiver import Receiver
from tests.rim.conftest import New
from tests.rim.project import Project, order, reason

NOW = dt.datetime(2026, 3, 2, tzinfo=dt.UTC)


@pytest.fixture(scope="module")
def channel() -> Iterator[Receiver]:
    with Receiver() as alerts:
        yield alerts


@pytest.fixture(scope="module")
def project(new_project: New, channel: Receiver) -> Project:
    made = new_project()
    url = channel.url.replace("http://", "json://")
    made.write("sensors/alerts.yaml", f"urls: ['{url}']\n")
    return made


def load(project: Project, first: int) -> dg.ExecuteInProcessResult:
    """25 people at one kiosk."""
    rows = [order(f"u-{n}", revenue=1, anonymousId="kiosk 1") for n in range(first, first + 25)]
    project.put(*rows, name=f"{first}.jsonl")
    result = project.run(hours=first)
    assert not reason(result)
    return result


def check(result: dg.ExecuteInProcessResult) -> Any:
    found = result.get_asset_check_evaluations()
    (one,) = [one for one in found if one.check_name == "hub_identifiers"]
    return one


def alert(project: Project, result: dg.ExecuteInProcessResult) -> object:
    sensor = build(project.root, "development").resolve_sensor_def("hub_alerts")
    run = project.instance.get_run_by_id(result.run_id)
    assert run is not None
    of_type = dg.DagsterEventType.RUN_SUCCESS
    (entry,) = project.instance.all_logs(run.run_id, of_type=of_type)
    return sensor(dg.build_run_status_sensor_context(
        sensor_name="hub_alerts", dagster_instance=project.instance,
        dagster_run=run, dagster_event=entry.dagster_event))  # fmt: skip


def test_a_hub_is_shown_and_told_once_until_a_person_decides(
    project: Project, channel: Receiver
) -> None:
    first = load(project, 100)
    found = check(first)
    assert not found.passed and found.severity == dg.AssetCheckSeverity.WARN
    (row,) = found.metadata["hubs"].value.records
    assert (row.data["type"], row.data["value"], row.data["degree"]) == (
        "anonymous_id", "kiosk 1", 25
    )  # fmt: skip
    assert row.data["decide"] == "personas identity block 'anonymous_id:kiosk 1' (or allow)"
    alert(project, first)
    (told,) = channel.messages
    assert told["title"] == "development: an identifier looks like a hub"
    assert "anonymous_id:kiosk 1 stands beside 25 others" in told["message"]
    assert f"/runs/{first.run_id}" in told["message"]
    # The next load shows it again; nobody is told twice.
    second = load(project, 200)
    assert not check(second).passed
    assert isinstance(alert(project, second), dg.SkipReason)
    name = ("users", "anonymous_id", "kiosk 1")
    curating.settle(project.space(), "allow", name, now=NOW, by="ann", reason="a library")
    assert check(load(project, 300)).passed
    curating.settle(project.space(), "block", name, now=NOW, by="ann", reason="a kiosk")
    assert check(load(project, 400)).passed
    assert len(channel.messages) == 1
