"""How the definitions are found: by workspace.yaml, by `dg`, by tests that swap a part."""

import importlib
from pathlib import Path

import dagster as dg
import pytest
import yaml
from dagster._core.workspace.autodiscovery import loadable_targets_from_loaded_module

from personas_dagster import definitions
from personas_dagster.definitions import build
from tests.rim.project import ROOT


@pytest.fixture(autouse=True)
def project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERSONAS_PROJECT", str(ROOT))


def test_each_space_is_a_location() -> None:
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())
    modules = [entry["python_module"] for entry in workspace["load_from"]]
    spaces = {path.stem for path in (ROOT / "resources" / "spaces").glob("*.yaml")}
    assert {one["attribute"] for one in modules} == spaces
    assert [one["location_name"] for one in modules] == [one["attribute"] for one in modules]
    for one in modules:
        found = getattr(importlib.import_module(one["module_name"]), one["attribute"])
        assert isinstance(found, dg.Definitions)
        found.get_repository_def().load_all_definitions()


def test_dg_finds_the_default_space() -> None:
    (target,) = loadable_targets_from_loaded_module(definitions)
    assert isinstance(target.target_definition, dg.Definitions)
    assert target.attribute == "defs"


def test_no_such_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="no space is named `staging`"):
        _ = definitions.staging
    assert not hasattr(definitions, "__wrapped__")
    monkeypatch.setenv("PERSONAS_PROJECT", str(tmp_path))
    with pytest.raises(AttributeError, match="no space is named `development`"):
        _ = definitions.development


def test_parts_can_be_swapped() -> None:
    swapped = build(ROOT, "development", sensors=[], schedules=[])
    assert not swapped.sensors
    assert swapped.jobs


def test_automation_follows_the_space() -> None:
    for space, status in (("development", "STOPPED"), ("production", "RUNNING")):
        found = build(ROOT, space)
        automated = [*(found.sensors or ()), *(found.schedules or ())]
        assert automated
        assert {one.default_status.value for one in automated} == {status}


def test_jobs_carry_their_tags() -> None:
    found = build(ROOT, "production")
    refresh = found.resolve_job_def("refresh")
    sync = found.resolve_job_def("sync_webhook")
    assert refresh.tags["personas/refresh"] == "production"
    assert sync.tags["personas/destination"] == "production/webhook"
    assert refresh.tags["dagster/max_retries"] == "1"
    assert refresh.tags["dagster/retry_strategy"] == "ALL_STEPS"


def test_instance_settings_are_valid(tmp_path: Path) -> None:
    (tmp_path / "dagster.yaml").write_bytes((ROOT / "dagster.yaml").read_bytes())
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        limits = instance.get_concurrency_config().run_queue_config
        assert limits is not None
        keys = {limit["key"] for limit in limits.tag_concurrency_limits or ()}
        assert keys == {"personas/refresh", "personas/destination"}
        assert instance.run_monitoring_enabled
