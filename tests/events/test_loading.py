"""Loads: interrupted anywhere they end the same; partitions can be materialised again."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from personas_dagster.events import EventSettings, load, loading, staging, writing
from personas_dagster.state.schema import landing_files, loads

Message = Callable[..., dict[str, Any]]


class Killed(BaseException):
    """Stands for `kill -9`: nothing in the code under test catches it."""


def killed(*_: Any, **__: Any) -> Any:
    raise Killed


def late(function: Callable[..., Any]) -> Callable[..., Any]:
    """Do the step, then be killed."""

    def run(*arguments: Any, **options: Any) -> Any:
        function(*arguments, **options)
        raise Killed

    return run


def stories(message: Message) -> list[list[Any]]:
    """Two files: repeats within and across, bad lines, several days."""
    repeated = message(3, receivedAt="2024-05-20T00:00:00Z")
    return [
        [message(1), repeated, "nonsense", message(2_000), message(1)],
        [message(1), message(4, messageId=...), message(4, messageId=...), {"type": "x"}],
    ]


def tables(intake: Any) -> Any:
    return intake.rows("raw_events"), intake.rows("rejected_events")


def state_of(intake: Any) -> Any:
    files = intake.state.rows(landing_files.select())
    return (
        [{k: v for k, v in f.items() if k not in ("name", "path")} for f in files],
        intake.state.rows(loads.select()),
    )


def kill_at(patch: pytest.MonkeyPatch, intake: Any, step: str) -> None:
    append = intake.lake.append
    if step == "after begin":
        patch.setattr(loading, "_run", killed)
    elif step == "after staging":
        patch.setattr(staging, "stage", late(staging.stage))
    elif step == "before append":
        patch.setattr(intake.lake, "append", killed)
    elif step == "after first append":
        patch.setattr(intake.lake, "append", late(append))
    elif step == "before second append":
        once = iter([append, killed])
        patch.setattr(intake.lake, "append", lambda *a, **o: next(once)(*a, **o))
    elif step == "after second append":
        once = iter([append, late(append)])
        patch.setattr(intake.lake, "append", lambda *a, **o: next(once)(*a, **o))
    elif step == "before finish":
        patch.setattr(loading, "_finish", killed)


STEPS = ["after begin", "after staging", "before append", "after first append"]
STEPS += ["before second append", "after second append", "before finish"]


@pytest.mark.parametrize("step", STEPS)
def test_killed_and_run_again(
    make_intake: Callable[[], Any], message: Message, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    calm, struck = make_intake(), make_intake()
    for intake in (calm, struck):
        intake.take(message(1), message(900))
        paths = [intake.write(*lines) for lines in stories(message)]
        intake.landing.land(paths, now=dt.datetime(2024, 6, 1, 12, tzinfo=dt.UTC))
    expected = calm.load()
    with monkeypatch.context() as patch:
        kill_at(patch, struck, step)
        with pytest.raises(Killed):
            struck.load()
    assert [file.name for file in struck.landing.pending()] == [str(path) for path in paths]
    struck.settings = EventSettings(dedupe_days=1, max_properties=1)  # the load has its own
    report = struck.load()
    names = {"damaged"}
    assert {k: v for k, v in report.as_json().items() if k not in names} == {
        k: v for k, v in expected.as_json().items() if k not in names
    }
    assert [{**r, "file": ""} for rows in tables(struck) for r in rows] == [
        {**r, "file": ""} for rows in tables(calm) for r in rows
    ]
    assert state_of(struck) == state_of(calm)
    assert struck.load().load_id is None
    assert list((struck.root / "landing" / "staging").iterdir()) == []


def test_a_resumed_load_keeps_its_files(
    intake: Any, message: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = dt.datetime(2024, 6, 1, 12, tzinfo=dt.UTC)
    intake.landing.land([intake.write(message(1))], now=now)
    with monkeypatch.context() as patch:
        patch.setattr(loading, "_finish", killed)
        with pytest.raises(Killed):
            intake.load()
    intake.landing.land([intake.write(message(1), message(2))], now=now)
    assert len(intake.landing.pending()) == 2
    report = intake.load()
    assert (report.load_ids, report.accepted, report.duplicates) == ((1, 2), 2, 1)
    assert [(row["load_id"], row["file_id"]) for row in intake.rows()] == [(1, 1), (2, 2)]


def test_nothing_pending(intake: Any) -> None:
    assert intake.load() == loading.LoadReport()


def test_report_and_records(intake: Any, message: Message) -> None:
    report = intake.take(message(1), message(1), "nonsense", message(2_000))
    days = {dt.date(2024, 5, 12): 1, dt.date(2024, 5, 13): 1, dt.date(2024, 6, 1): 0}
    assert report.received_dates == days
    assert json.loads(json.dumps(report.as_json()))["reasons"] == {"not_json": 1}
    (file,) = intake.state.rows(landing_files.select())
    assert file["received_dates"] == {"2024-05-12": 2, "2024-05-13": 1, "2024-06-01": 1}
    assert file["counts"]["duplicates"] == 1
    (row,) = intake.state.rows(loads.select())
    assert (row["status"], row["counts"]["accepted"]) == ("loaded", 2)
    assert row["counts"]["received_dates"] == {str(day): n for day, n in days.items()}


def test_progress_counts_all_bytes(intake: Any, message: Message) -> None:
    paths = [intake.write(*(message(n * 1_000 + i) for i in range(900))) for n in range(2)]
    landed = intake.landing.land(paths, now=dt.datetime(2024, 6, 1, tzinfo=dt.UTC))
    told: list[int] = []
    load(
        intake.landing,
        intake.lake,
        intake.engine,
        intake.state,
        settings=EventSettings(chunk_bytes=10_000),
        now=dt.datetime(2024, 6, 1, tzinfo=dt.UTC),
        progress=told.append,
    )
    assert sum(told) == sum(file.bytes for file in landed)


def test_chunks_change_nothing(make_intake: Callable[[], Any], message: Message) -> None:
    found = []
    for chunk_bytes in (1, 1 << 25):
        intake = make_intake()
        intake.settings = EventSettings(chunk_bytes=chunk_bytes)
        intake.take_files(*(intake.write(*lines) for lines in stories(message)))
        found.append([{**row, "file": ""} for rows in tables(intake) for row in rows])
    assert found[0] == found[1]


def test_rebuild_is_the_same(intake: Any, message: Message) -> None:
    for lines in stories(message):
        intake.take(*lines)
    intake.settings = EventSettings(dedupe_days=2)
    late_ones = [message(i * 700, messageId=f"r{i % 3}") for i in range(20)]
    intake.take(*late_ones[::2], "rubbish")
    intake.take(*late_ones[1::2], message(1), {"type": "y"})
    raw, rejected = tables(intake)
    intake.settings = EventSettings()  # each load's own settings hold
    days = sorted({row["received_date"] for row in raw + rejected})
    assert len(days) > 8
    for day in days:
        report = intake.rebuild(day)
        assert report.accepted == sum(row["received_date"] == day for row in raw)
        assert report.rejected == sum(row["received_date"] == day for row in rejected)
        assert tables(intake) == (raw, rejected)
    intake.rebuild(*days)
    assert tables(intake) == (raw, rejected)


def test_rebuild_of_lost_partitions(intake: Any, message: Message) -> None:
    intake.take(*(message(i * 60, messageId=f"r{i % 30}") for i in range(200)), "rubbish")
    raw, rejected = tables(intake)
    days = {row["received_date"] for row in raw + rejected}
    intake.lake.replace("raw_events", _nothing(), where="received_date >= '2024-05-14'")
    assert len(intake.rows()) < len(raw)
    intake.rebuild(*days)
    assert tables(intake) == (raw, rejected)


def _nothing() -> Any:
    from personas_dagster.lake import TABLES

    return TABLES["raw_events"].schema.empty_table()


def test_rebuild_of_an_empty_day(intake: Any, message: Message) -> None:
    intake.take(message(1))
    before = tables(intake)
    report = intake.rebuild(dt.date(2020, 1, 1))
    assert (report.files, report.accepted) == (0, 0)
    assert tables(intake) == before


def test_real_data(make_intake: Callable[[], Any], real_data: Path) -> None:
    for name in ("ecom", "cdnow"):
        intake = make_intake()
        truth = json.loads((real_data / f"{name}.truth.json").read_text())
        report = intake.take_files(real_data / f"{name}.jsonl.gz")
        counts = (report.accepted, report.rejected, report.duplicates, report.clock_skew)
        assert counts == (truth["events"], 0, 0, 0)
        assert sum(report.received_dates.values()) == truth["events"]
        with intake.engine.session(intake.lake) as session:
            session.view("raw_events")
            by_event = session.fetch(
                "SELECT coalesce(event, type) AS event, count(*) AS n, count(DISTINCT user_id) AS"
                " users, count(DISTINCT anonymous_id) AS devices,"
                " round(sum((properties ->> '$.revenue')::DECIMAL(12, 2)), 2)::DOUBLE AS revenue"
                " FROM raw_events GROUP BY 1"
            ).to_pylist()
        found = {row["event"]: row for row in by_event}
        if name == "cdnow":
            assert found["Order Completed"]["n"] == truth["orders"]
            assert found["Order Completed"]["revenue"] == truth["total_revenue"]
            assert found["identify"]["n"] == found["identify"]["users"] == truth["profiles"]
        else:
            assert found["identify"]["n"] == truth["identify_added"]
            assert (
                sum(row["n"] for row in by_event) - found["identify"]["n"] == truth["source_rows"]
            )


def test_many_partitions_in_several_commits(
    make_intake: Callable[[], Any], message: Message, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [message(i * 700) for i in range(20)] + ["rubbish"]
    whole, parts = make_intake(), make_intake()
    whole.take(*lines)
    monkeypatch.setattr(writing, "_HELD_ROWS", 5)
    append, calls = parts.lake.append, []

    def third_is_killed(*arguments: Any, **options: Any) -> Any:
        calls.append(options["once"])
        return killed() if len(calls) == 3 else append(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(parts.lake, "append", third_is_killed)
        with pytest.raises(Killed):
            parts.take(*lines)
    report = parts.load()
    assert calls == [("load", 1), ("load/1", 1), ("load/2", 1)]
    assert (report.accepted, report.rejected) == (20, 1)
    plain = [[{**row, "file": ""} for rows in tables(i) for row in rows] for i in (whole, parts)]
    assert plain[0] == plain[1]
    parts.rebuild(*{row["received_date"] for row in parts.rows()})
    assert [{**row, "file": ""} for rows in tables(parts) for row in rows] == plain[0]
