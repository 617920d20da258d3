"""Dagster's SQLite event log: what is stored stays the same, with less repeating."""

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.data_version import get_input_event_pointer_tag

from personas_dagster.resources import event_batches, storage

PARTS = [dg.AssetKey(f"part_{number}") for number in range(12)]
WHOLE = dg.AssetKey("whole")


@dg.multi_asset(
    specs=[*(dg.AssetSpec(key, skippable=True) for key in PARTS), dg.AssetSpec(WHOLE, deps=PARTS)]
)
def made() -> Iterator[dg.MaterializeResult[Any]]:
    for key in PARTS[:-1]:
        yield dg.MaterializeResult(asset_key=key)
    yield dg.MaterializeResult(asset_key=WHOLE)


@dg.multi_asset(
    name="made",  # in its place
    specs=[*(dg.AssetSpec(key, skippable=True) for key in PARTS), dg.AssetSpec(WHOLE, deps=PARTS)],
)
def made_together(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
    with event_batches.together(context.instance):
        yield from made()


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    storage.make_cheap()
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(tmp_path)) as made_here:
        yield made_here


def run(instance: dg.DagsterInstance, of: dg.AssetsDefinition = made) -> str:
    job = dg.Definitions(assets=[of], jobs=[dg.define_asset_job("all")]).resolve_job_def("all")
    return job.execute_in_process(instance=instance).run_id


def newest(instance: dg.DagsterInstance, key: dg.AssetKey) -> dg.EventLogRecord:
    return instance.fetch_materializations(key, limit=1).records[0]


def test_engines_are_kept(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    urls: list[str] = []
    make = storage._make_engine

    def counted(url: str, **options: Any) -> Any:
        urls.append(url)
        return make(url, **options)

    monkeypatch.setattr(storage, "_make_engine", counted)
    run(instance)
    assert len(urls) == len(set(urls)) <= 2  # the run's log, and the one of all runs


def test_connections_are_kept(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    note = storage._opened

    def counted(connection: Any, record: Any) -> None:
        opened.append(Path(connection.execute("PRAGMA database_list").fetchone()[2]).stem)
        note(connection, record)

    monkeypatch.setattr(storage, "_opened", counted)
    run_id = run(instance)
    assert (
        1 <= opened.count(run_id) <= 2 and opened.count("index") <= 2
    )  # one while tables are made


def test_a_log_that_was_replaced_is_opened_anew(tmp_path: Path) -> None:
    storage.make_cheap()
    for _ in range(2):
        home = tmp_path / "home"
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
        with dg.DagsterInstance.from_config(str(home)) as instance:
            assert instance.get_asset_keys() == []
            run(instance)
            assert set(instance.get_asset_keys()) == {*PARTS, WHOLE}
        shutil.rmtree(home)


def test_planned_assets_are_stored_once(instance: dg.DagsterInstance) -> None:
    run_id = run(instance)
    planned = dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED
    told = [one.get_dagster_event().asset_key for one in instance.all_logs(run_id, planned)]
    assert sorted(told, key=str) == sorted([*PARTS, WHOLE], key=str)
    assert set(instance.get_asset_keys()) == {*PARTS, WHOLE}


def test_what_was_made_from_what_is_asked_at_once(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(instance)
    asked: list[int] = []
    get = dg.DagsterInstance.get_asset_records

    def counted(self: dg.DagsterInstance, keys: Sequence[dg.AssetKey] = ()) -> Any:
        asked.append(len(keys))
        return get(self, keys)

    monkeypatch.setattr(dg.DagsterInstance, "get_asset_records", counted)
    run(instance)
    assert max(asked) == len(PARTS)
    assert len(asked) <= 3
    event = newest(instance, WHOLE).asset_materialization
    assert event is not None
    assert event.tags is not None
    for key in PARTS[:-1]:
        assert event.tags[get_input_event_pointer_tag(key)] == str(newest(instance, key).storage_id)
    assert event.tags[get_input_event_pointer_tag(PARTS[-1])] == "NULL"


MIDDLE = {key: dg.AssetKey(f"of_{key.path[-1]}") for key in PARTS}


@dg.multi_asset(
    specs=[
        *map(dg.AssetSpec, PARTS),
        *(dg.AssetSpec(made_of, deps=[key]) for key, made_of in MIDDLE.items()),
        dg.AssetSpec(WHOLE, deps=[*PARTS, *MIDDLE.values()]),
    ]
)
def made_in_levels(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
    with event_batches.together(context.instance):
        for key in [*PARTS, *MIDDLE.values(), WHOLE]:
            yield dg.MaterializeResult(asset_key=key)


def test_what_a_level_is_made_from_is_asked_at_once(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(instance, made_in_levels)
    asked: list[set[dg.AssetKey]] = []
    get = dg.DagsterInstance.get_asset_records

    def counted(self: dg.DagsterInstance, keys: Sequence[dg.AssetKey] = ()) -> Any:
        asked.append(set(keys))
        return get(self, keys)

    monkeypatch.setattr(dg.DagsterInstance, "get_asset_records", counted)
    run(instance, made_in_levels)
    assert [keys for keys in asked if keys] == [set(PARTS), set(MIDDLE.values())]
    for key, made_of in [*MIDDLE.items(), *((key, WHOLE) for key in PARTS)]:
        event = newest(instance, made_of).asset_materialization
        assert event is not None and event.tags is not None
        pointer = event.tags[get_input_event_pointer_tag(key)]
        assert pointer == str(newest(instance, key).storage_id)


def test_schema_that_lacks_something_is_asked_again(instance: dg.DagsterInstance) -> None:
    log: Any = instance.event_log_storage
    assert not log.has_secondary_index("something new")
    log.enable_secondary_index("something new")
    assert log.has_secondary_index("something new")


def stored(instance: dg.DagsterInstance, run_id: str) -> list[Any]:
    """What two runs that make the same have in common: events in their order, assets, tags."""
    events: list[Any] = [
        (one.get_dagster_event().event_type_value, one.get_dagster_event().asset_key)
        for one in instance.all_logs(run_id)
        if one.is_dagster_event
    ]
    for key in [*PARTS[:-1], WHOLE]:
        (asset,) = instance.get_asset_records([key])
        last = asset.asset_entry.last_materialization_record
        assert last is not None and last == newest(instance, key)
        assert asset.asset_entry.last_run_id == last.run_id == run_id
        made_here = last.asset_materialization
        assert made_here is not None and made_here.tags is not None
        tagged = instance.event_log_storage.get_event_tags_for_asset(
            key, filter_event_id=last.storage_id
        )
        (by_tag,) = map(dict, tagged)
        assert by_tag.items() <= made_here.tags.items()
        events.append((key, sorted(made_here.tags), sorted(by_tag)))
    return events


def test_outputs_that_are_stored_together_are_stored_the_same(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    store = event_batches._store_of_run

    def counted(log: Any, events: Sequence[Any], rows: list[Any]) -> None:
        batches.append(len(events))
        store(log, events, rows)

    one_by_one = stored(instance, run(instance))
    monkeypatch.setattr(event_batches, "_store_of_run", counted)
    assert stored(instance, run(instance, made_together)) == one_by_one
    assert sum(batches) == len(PARTS) + 1 + 2 * len(PARTS)  # planned; outputs and assets
    assert len(batches) <= 4


def test_an_event_that_waits_is_found(instance: dg.DagsterInstance) -> None:
    with event_batches.together(instance):
        run_id = run(instance)
        assert newest(instance, WHOLE).run_id == run_id


def test_events_that_could_not_be_stored_are_tried_again(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [OSError("busy")]
    store = event_batches._store_of_run

    def failing(log: Any, events: Sequence[Any], rows: list[Any]) -> None:
        if event_batches.kind(events[0]) in event_batches._OF_OUTPUTS and failures:
            raise failures.pop()
        store(log, events, rows)

    monkeypatch.setattr(event_batches, "_store_of_run", failing)
    run_id = run(instance)
    with pytest.raises(OSError, match="busy"), event_batches.together(instance):
        instance.event_log_storage.store_event(_output_of(instance, run_id))
        failures.append(OSError("busy"))
        with pytest.raises(OSError, match="busy"):
            instance.fetch_materializations(WHOLE, limit=1)
        assert len(vars(instance.event_log_storage)[event_batches._WAITING]) == 1
        failures.append(OSError("busy"))
    assert event_batches._WAITING not in vars(instance.event_log_storage)


def _output_of(instance: dg.DagsterInstance, run_id: str) -> Any:
    of_type = dg.DagsterEventType.STEP_OUTPUT
    (first, *_) = instance.get_records_for_run(run_id, of_type=of_type).records
    return first.event_log_entry
