"""What starts by itself, asked tick by tick."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import create_run_for_test
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

from personas_dagster.definitions import build
from personas_dagster.resources import SpaceResource
from personas_dagster.samples.receiver import Receiver
from tests.rim.conftest import New
from tests.rim.project import Project, order, orders, reason


@pytest.fixture(scope="module")
def project(new_project: New) -> Project:
    return new_project()


def tick(project: Project, name: str) -> list[Any]:
    """What a sensor asks for: run requests, or nothing."""
    definitions = build(project.root, "development")
    sensor = definitions.resolve_sensor_def(name)
    with dg.build_sensor_context(
        instance=project.instance,
        definitions=definitions,
        sensor_name=name,
        resources={"space": SpaceResource(root=str(project.root), space="development")},
    ) as context:
        return list(sensor.evaluate_tick(context).run_requests or ())


@contextmanager
def queued(project: Project, tags: dict[str, str]) -> Iterator[None]:
    """While a run with these tags waits in the queue."""
    status = dg.DagsterRunStatus.QUEUED
    target = LoadableTargetOrigin(module_name="personas_dagster.definitions")
    location = InProcessCodeLocationOrigin(target, location_name="development")
    origin = RemoteRepositoryOrigin(location, "__repository__").get_job_origin("any")
    run = create_run_for_test(
        project.instance, job_name="any", tags=tags, status=status, remote_job_origin=origin
    )
    yield
    project.instance.delete_run(run.run_id)


def test_new_messages_start_one_refresh(project: Project) -> None:
    assert tick(project, "new_messages") == []
    project.put(*orders(range(5)), name="first.jsonl")
    (first,) = tick(project, "new_messages")
    (second,) = tick(project, "new_messages")
    assert first.run_key == second.run_key
    assert not reason(project.run())
    assert tick(project, "new_messages") == []


def test_another_file_is_another_key(project: Project) -> None:
    project.put(order("user-1", revenue=600, day=2), name="second.jsonl")
    (one,) = tick(project, "new_messages")
    project.put(order("user-2", revenue=600, day=2), name="third.jsonl")
    (two,) = tick(project, "new_messages")
    assert one.run_key != two.run_key
    assert not reason(project.run(hours=1))


def test_one_refresh_in_the_queue_is_enough(project: Project) -> None:
    project.put(order("user-3", revenue=5), name="fourth.jsonl")
    with queued(project, {"personas/refresh": "production"}):
        assert len(tick(project, "new_messages")) == 1
    with queued(project, {"personas/refresh": "development"}):
        assert tick(project, "new_messages") == []


def test_changes_start_the_sync(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (request,) = tick(project, "changes")
    assert request.job_name == "sync_webhook"
    assert request.run_key.startswith("webhook:")
    with queued(project, {"personas/destination": "development/webhook"}):
        assert tick(project, "changes") == []
    with Receiver() as receiver:
        monkeypatch.setenv("PERSONAS_WEBHOOK_URL", receiver.url)
        assert not reason(project.run("sync_webhook"))
        assert {m["userId"] for m in receiver.messages} >= {"user-1", "user-2"}
    assert tick(project, "changes") == []


def test_sync_that_failed_stays_due(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    project.put(order("user-4", revenue=800), name="fifth.jsonl")
    assert not reason(project.run(hours=2))
    with Receiver() as receiver:
        monkeypatch.setenv("PERSONAS_WEBHOOK_URL", receiver.url)
        receiver.fail_next(100, status=401)
        assert "credentials" in reason(project.run("sync_webhook"))
    run = project.instance.get_runs(limit=1)[0]
    assert run.tags["dagster/max_retries"] == "0"  # a person must act
    (request,) = tick(project, "changes")
    assert request.job_name == "sync_webhook"
