"""Graphs in temporary folders. Great Expectations judges only where a test asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from personas_dagster.identity import loads
from personas_dagster.identity.guard import Finding, Verdict
from personas_dagster.identity.rules import IdentityRules
from tests.identity.graph import Graph


def plain_judge(load_id: int, findings: Sequence[Finding]) -> Verdict:
    """What the suite says, without the seconds it takes to load."""
    return Verdict(load_id, all(finding.passed for finding in findings), tuple(findings))


@pytest.fixture(autouse=True)
def judge(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "great_expectations" not in request.keywords:
        monkeypatch.setattr(loads, "judge", plain_judge)


NewGraph = Callable[..., Graph]


@pytest.fixture
def new_graph(tmp_path_factory: pytest.TempPathFactory, empty_state: Path) -> NewGraph:
    """A new space's graph, with these rules."""

    def new(rules: IdentityRules | None = None) -> Graph:
        return Graph(tmp_path_factory.mktemp("graph"), rules, state=empty_state)

    return new


@pytest.fixture
def graph(new_graph: NewGraph) -> Graph:
    return new_graph()
