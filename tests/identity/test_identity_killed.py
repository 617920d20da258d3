"""A load that dies at any point is finished by the next run, and nothing enters twice."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from personas_dagster.engines.memory import MemoryLake
from personas_dagster.events import resolved
from personas_dagster.identity import loads
from personas_dagster.identity.deciding import Deciding, decide
from personas_dagster.interfaces import Part
from personas_dagster.lake import indexes
from tests.identity.conftest import NewGraph
from tests.identity.graph import NOW, Graph, Message, assert_same, message
from tests.identity.nasty import RULES
from tests.identity.oracle import Oracle
from tests.identity.test_identity_oracle import worlds


class Killed(BaseException):
    """As a signal is: no `except Exception` stops it."""


class Fuse:
    """Kills at the nth step, before or after it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, graph: Graph) -> None:
        self.left, self.after = -1, False
        self._counting = threading.Lock()
        for owner, name in (
            (type(graph.lake), "append"),
            (type(graph.lake), "replace"),
            (type(graph.lake), "adopt"),
            (type(graph.lake), "index"),
            (indexes, "sweep"),
            (loads, "_update"),
        ):
            monkeypatch.setattr(owner, name, self._around(getattr(owner, name)))

    def _around(self, step: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            with self._counting:  # tables are written by several threads
                self.left -= 1
                mine = self.left == 0
            if mine and not self.after:
                raise Killed
            done = step(*args, **kwargs)
            if mine:
                raise Killed
            return done

        return run


def run(graph: Graph) -> None:
    """The stages of a run; each finds nothing to do when an earlier run did it."""
    graph.propose()
    graph.check()
    graph.apply()
    graph.settle()


@pytest.fixture(scope="module")
def parts() -> list[list[Message]]:
    found = worlds("aliases merge", count=12)
    middle = len(found) // 2
    return [found[:middle], found[middle:]]


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_step(
    after: bool,
    parts: list[list[Message]],
    new_graph: NewGraph,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    undisturbed = new_graph(RULES["aliases merge"])
    for part in parts:
        undisturbed.take(*part)
    expected, digests = undisturbed.tables(), last_digests(undisturbed)
    step, finished = 0, False
    waiting = new_graph(RULES["aliases merge"])
    waiting.take(*parts[0])
    waiting.land(parts[1])
    while not finished:
        step += 1
        graph = waiting.copy(tmp_path / str(step))
        with monkeypatch.context() as patched:
            fuse = Fuse(patched, graph)
            fuse.left, fuse.after = step, after
            try:
                run(graph)
                finished = True
            except Killed:
                pass
        if step % 2:
            loads.finish(graph.lake, graph.engine, graph.state, now=NOW)
        compact(graph)
        run(graph)
        assert graph.tables() == expected, step
        assert last_digests(graph) == digests
    assert step > 14


def last_digests(graph: Graph) -> Any:
    with graph.engine.session(graph.lake) as session:
        return loads.graph_digests(session)


def compact(graph: Graph) -> list[str]:
    with graph.engine.session(graph.lake) as session:
        return resolved.compact(session, graph.lake)


def test_compaction_changes_no_row(new_graph: NewGraph, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = new_graph()
    for number in range(1, 8):
        graph.take(message(number, userId="u", anonymousId=f"a{number}"))
    before = graph.tables()
    monkeypatch.setattr(resolved, "_MANY_FILES", 3)
    assert compact(graph) == ["2024-01"]
    assert len(graph.lake.files("events")) == 1
    assert graph.tables() == before


def test_compaction_leaves_what_is_much_larger(
    new_graph: NewGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A month's messages are written anew when those that came since are half as many."""
    monkeypatch.setattr(resolved, "_MANY_FILES", 4)
    graph, taken = new_graph(), 0

    def take(*loads: int) -> None:
        nonlocal taken
        for size in loads:
            numbers = range(taken, taken := taken + size)
            graph.take(*(message(one, anonymousId=f"a{one}") for one in numbers))

    def rows() -> dict[str, int]:
        return {part.file: part.rows or 0 for part in graph.lake.parts("events")}

    take(100, 3)
    (large,) = (file for file, size in rows().items() if size == 100)
    take(4)
    assert compact(graph) == []  # three files are not many
    take(2)
    before = graph.tables()
    assert compact(graph) == ["2024-01"]
    assert graph.tables() == before
    assert sorted(rows().values()) == [9, 100] and large in rows()
    assert compact(graph) == []
    take(5, 5)
    assert compact(graph) == ["2024-01"]
    assert sorted(rows().values()) == [19, 100] and large in rows()
    take(30, 20)
    before = graph.tables()
    assert compact(graph) == ["2024-01"]
    assert list(rows().values()) == [169]
    assert graph.tables() == before


def test_runs_of_files_that_are_much_larger_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to join, however many they are; files of the same loads are one run."""

    def crowded(*parts: tuple[int | None, int, int]) -> dict[str, int | None]:
        lake = MemoryLake()
        files = [Part(f"month=2024-01/{n}", *part) for n, part in enumerate(parts)]
        monkeypatch.setattr(lake, "parts", lambda name: files)
        return resolved.crowded_months(lake)

    monkeypatch.setattr(resolved, "_MANY_FILES", 3)
    assert crowded((90, 1, 5), (20, 6, 7), (6, 8, 8)) == {}
    assert crowded((90, 1, 5), (90, 1, 5), (90, 2, 5), (6, 8, 8)) == {}
    assert crowded((90, 1, 5), (20, 6, 7), (6, 8, 8), (6, 9, 9)) == {"2024-01": 5}
    assert crowded((90, 1, 5), (6, 8, 8), (None, 9, 9)) == {"2024-01": None}


def due_rebuild(graph: Graph, identifier: tuple[str, str]) -> None:
    """A detachment is recorded; what it sets going waits for the next run."""
    place = Deciding(graph.lake, graph.engine, graph.state, "test", NOW, "ann")
    decide(place, "detach", ("users", *identifier), graph.rules)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["aliases merge", "windows"], ids=["whole", "component"])
def test_a_rebuild_killed_at_any_step(
    name: str,
    parts: list[list[Message]],
    new_graph: NewGraph,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Readers at the versions of before see the graph of before; the next run ends it."""
    rules = RULES[name]
    waiting, oracle = new_graph(rules), Oracle(rules)
    for part in parts:
        waiting.take(*part)
        oracle.take(part)
    crowded = [name for name, profile in oracle.holders.items() if len(profile.seen) > 3]
    (_, identifier) = min(name for name in crowded if name[0] == "users")
    oracle.decide("detach", "users", *identifier, NOW)
    before, versions = waiting.tables(), waiting.lake.versions()
    due_rebuild(waiting, identifier)
    step, finished = 0, False
    while not finished:
        step += 3
        graph = waiting.copy(tmp_path / str(step))
        with monkeypatch.context() as patched:
            fuse = Fuse(patched, graph)
            fuse.left, fuse.after = step, bool(step % 2)
            try:
                graph.run_due()
                finished = True
            except Killed:
                pass
        published = graph.copy(tmp_path / f"{step}-published")
        published.lake = published.lake.at(versions)
        assert published.tables() == before
        done = graph.run_due()
        assert finished == (done is None)
        assert_same(graph, oracle)
    assert step > 20
