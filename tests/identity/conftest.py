"""Graphs in temporary folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from personas_dagster.identity.rules import IdentityRules
from personas_dagster.lake import indexes
from tests.identity.graph import Graph

NewGraph = Callable[..., Graph]


@pytest.fixture(autouse=True)
def indexed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs as small as these have indexes, and rows that none covers."""
    monkeypatch.setattr(indexes, "WORTH_ROWS", 10)


@pytest.fixture
def new_graph(tmp_path_factory: pytest.TempPathFactory, empty_state: Path) -> NewGraph:
    """A new space's graph, with these rules."""

    def new(rules: IdentityRules | None = None) -> Graph:
        return Graph(tmp_path_factory.mktemp("graph"), rules, state=empty_state)

    return new


@pytest.fixture
def graph(new_graph: NewGraph) -> Graph:
    return new_graph()
