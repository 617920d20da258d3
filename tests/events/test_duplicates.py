"""Each message once: against a naive reading of the rule, and at its edges."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from personas_dagster.events.decoding import message_hash
from personas_dagster.events.duplicates import keep_first
from tests.examples import examples

Message = Callable[..., dict[str, Any]]
START = dt.datetime(2024, 1, 1, tzinfo=dt.UTC)
WEEK = dt.timedelta(days=7)
Occurrence = tuple[str, dt.datetime]


def naive(loads: list[list[Occurrence]]) -> set[tuple[int, int]]:
    """Which (load, line) are kept, read off the rule one message after the other."""
    kept: list[tuple[str, dt.datetime]] = []
    places = set()
    for number, messages in enumerate(loads):
        order = sorted(range(len(messages)), key=lambda line: (messages[line][1], line))
        for line in order:
            name, at = messages[line]
            if not any(name == other and abs(at - then) <= WEEK for other, then in kept):
                kept.append((name, at))
                places.add((number + 1, line + 1))
    return places


occurrences = st.tuples(
    st.sampled_from("abc"), st.integers(0, 30).map(lambda day: START + dt.timedelta(days=day))
)


@settings(max_examples=examples(8))
@given(st.lists(st.lists(occurrences, min_size=1, max_size=25), min_size=1, max_size=3))
def test_as_the_naive_reading(make_intake: Any, message: Message, loads: Any) -> None:
    intake = make_intake()
    for number, messages in enumerate(loads):
        lines = [message(messageId=name, receivedAt=at.isoformat()) for name, at in messages]
        intake.take(*lines, f"of load {number}")  # so that no two files are the same
    kept = {(row["load_id"], row["line"]) for row in intake.rows()}
    assert kept == naive(loads)
    before = intake.rows()
    intake.rebuild(*{row["received_date"] for row in before})
    assert intake.rows() == before


@settings(max_examples=examples(200))
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 40)), max_size=40))
def test_keep_first(rows: list[tuple[int, int]]) -> None:
    rows = sorted(rows, key=lambda row: row[0])
    group, received = (np.array([row[i] for row in rows], dtype=np.int64) for i in (0, 1))
    found = keep_first(group, received, np.full(len(rows), 7))
    kept: list[tuple[int, int]] = []
    for row, is_kept in zip(rows, found, strict=True):
        assert is_kept == (not any(k == row[0] and abs(at - row[1]) <= 7 for k, at in kept))
        kept += [row] if is_kept else []


@pytest.mark.parametrize(("apart", "kept"), [(WEEK, 1), (WEEK + dt.timedelta(microseconds=1), 2)])
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("loads", [1, 2])
def test_edge_of_the_window(
    intake: Any, message: Message, apart: dt.timedelta, kept: int, backwards: bool, loads: int
) -> None:
    times = [START, START + apart][:: -1 if backwards else 1]
    lines = [message(messageId="m", receivedAt=at.isoformat()) for at in times]
    if loads == 1:
        report = intake.take(*lines)
        assert (report.accepted, report.duplicates) == (kept, 2 - kept)
    else:
        assert intake.take(lines[0]).accepted == 1
        assert intake.take(lines[1]).accepted == kept - 1


def test_the_first_received_wins(intake: Any, message: Message) -> None:
    late, early = ("2024-05-02T00:00:00Z", "2024-05-01T00:00:00Z")
    paths = [
        intake.write(message(messageId="m", receivedAt=late), message(2)),
        intake.write(message(messageId="m", receivedAt=early)),
        intake.write(message(messageId="m", receivedAt=early), message(3)),
    ]
    report = intake.take_files(*paths)
    assert (report.accepted, report.duplicates) == (3, 2)
    (row,) = [row for row in intake.rows() if row["message_id"] == "m"]
    assert (row["file_id"], row["line"]) == (2, 1)


def test_an_id_is_made_from_the_message(intake: Any, message: Message) -> None:
    times = {"receivedAt": "2024-05-01T00:00:00Z", "sentAt": "2024-05-01T00:00:00Z"}
    first = message(messageId=..., **times, properties={"a": 1, "b": {"x": 1, "y": 2}})
    again = dict(reversed(first.items())) | {"sentAt": "2024-05-03T00:00:00Z", "messageId": ""}
    again["properties"] = {"b": {"y": 2, "x": 1}, "a": 1}
    other = first | {"properties": {"a": 2}}
    report = intake.take(first, again, other)
    assert (report.accepted, report.duplicates) == (2, 1)
    assert len({row["message_id"] for row in intake.rows()}) == 2
    assert intake.take(first | {"receivedAt": "2024-05-04T00:00:00Z"}).duplicates == 1


def test_hash_of_odd_messages() -> None:
    assert message_hash('{"a": 1e400}') != message_hash('{"a": 1e401}')
    assert len(message_hash('{"a": ' + "[" * 10_000 + "]" * 10_000 + "}")) == 32
    assert message_hash('{"b":1,"a":2}') == message_hash(' {"a": 2, "b": 1}\n')


def test_a_rejected_message_is_no_duplicate(intake: Any, message: Message) -> None:
    report = intake.take(message(1, type="x"), message(1), message(1, type="x"))
    assert (report.accepted, report.rejected, report.duplicates) == (1, 2, 0)


def test_window_of_the_space(intake: Any, message: Message) -> None:
    intake.settings = type(intake.settings)(dedupe_days=1)
    times = [START, START + dt.timedelta(days=2)]
    assert intake.take(*(message(7, receivedAt=at.isoformat()) for at in times)).accepted == 2
