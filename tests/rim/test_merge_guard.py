"""Candidates that did not pass their checks stay out of the graph, also run by run."""

from typing import Any

import dagster as dg
import pytest

from personas_dagster import curating, intake
from personas_dagster.identity.guard import CHECKS
from personas_dagster.identity.loads import GRAPH_TABLES
from tests.rim.conftest import New
from tests.rim.project import DAY, Project, materialised, order, orders, reason

SPACE = "resources/spaces/development.yaml"
STRICT = "identity:\n  max_profile_identifiers: 2\n"
GRAPH = ["identity_graph"]


@pytest.fixture(scope="module")
def project(new_project: New) -> Project:
    made = new_project()
    made.put(*orders(range(10)), name="first.jsonl")
    assert not reason(made.run())
    return made


@pytest.fixture(scope="module")
def refused(project: Project) -> Project:
    """A second load, of somebody with three identifiers, under rules that allow two."""
    before = (project.root / SPACE).read_text()
    project.write(SPACE, before + STRICT)
    project.put(
        order("user-50", revenue=1000, anonymousId="a-50", context={"traits": {"email": "x@y.z"}}),
        order("user-1", revenue=1000, day=3),
        name="second.jsonl",
    )
    return project


def graph_size(project: Project) -> int:
    with project.space().session(project.space().lake) as session:
        found = session.fetch("SELECT count(*) FROM graph_profiles")
    return int(found.column(0)[0].as_py())


def test_unchecked(refused: Project) -> None:
    intake.take_in(refused.space(), now=DAY)
    assert not reason(refused.run(hours=1, select=["merge_candidates"], checks=False))
    result = refused.run(hours=1, select=GRAPH)
    assert "has not been checked; run the checks of merge_candidates" in reason(result)
    assert graph_size(refused) == 10


def test_refused(refused: Project) -> None:
    result = refused.run(hours=1)
    assert not result.success
    assert materialised(result) == ["landing", "merge_candidates", "raw_events"]
    check: Any
    (check,) = [
        one for one in result.get_asset_check_evaluations() if one.check_name == "merge_guard"
    ]
    assert not check.passed
    assert "a-50" in str(check.description)
    failed, *others = [row.data for row in check.metadata["expectations"].value.records]
    assert (failed["ok"], failed["rule"], failed["offending"]) == (False, CHECKS["blob"], 1)
    assert "a-50" in failed["identifiers"]  # an offending identifier, in a table of all rules
    assert [row["ok"] for row in others] == [True] * (len(CHECKS) - 1)
    assert graph_size(refused) == 10
    assert refused.leases() == []


def test_refused_is_not_retried(refused: Project) -> None:
    run = refused.instance.get_runs(limit=1)[0]
    assert run.tags["dagster/max_retries"] == "0"


def test_graph_alone_is_refused_too(refused: Project) -> None:
    result = refused.run(hours=1, select=GRAPH)
    assert "stays out of the graph" in reason(result)
    assert "mend the identity rules" in reason(result)
    assert materialised(result) == []
    assert refused.leases() == []


def test_nothing_is_published(refused: Project) -> None:
    last = refused.space().last_refresh()
    assert last is not None
    assert last["as_of"] == DAY
    assert refused.members("big_spenders") == 0


def test_mended_rules_take_the_messages_up(refused: Project) -> None:
    refused.amend(SPACE, STRICT, "")
    assert not reason(refused.run(hours=2))
    assert graph_size(refused) == 11
    assert refused.members("big_spenders") == 2


def test_what_a_run_made_of_the_graph_is_shown_with_it(refused: Project) -> None:
    """New rows and digests of a load; what a decision and a rebuild replayed and left."""
    both = [order(f"user-{n}", revenue=1, day=3 + n, anonymousId="tab") for n in (1, 2)]
    refused.put(*both, name="third.jsonl")
    loaded = shown(refused.run(hours=3), "merge_candidates", "identity_graph")
    assert (loaded["new_identifiers"], loaded["new_dropped_identifiers"]) == (1, 1)
    assert "data:image/" in str(loaded["merges_prevented"])
    assert set(loaded["digests"]) == {*GRAPH_TABLES}
    space, name = refused.space(), ("users", "anonymous_id", "tab")
    curating.settle(space, "detach", name, now=DAY, by="ann", reason="shared")
    decided = shown(refused.run(hours=4), "merge_candidates")
    assert decided["rebuilt_because"] == "detach an identifier"
    assert decided["messages_replayed"] == 5  # those of the two people, of 14
    curating.rebuild(space, now=DAY, by="ann", in_time=False)
    rebuilt = shown(refused.run(hours=5), "merge_candidates")
    assert (rebuilt["rebuilt_because"], rebuilt["messages_replayed"]) == ("rebuild", 14)
    assert rebuilt["digests_after_rebuild"] == decided["digests_after_rebuild"]
    assert rebuilt["dropped_identifiers_after_rebuild"] == 1  # of user-1's; user-2 has it now


def shown(result: dg.ExecuteInProcessResult, *assets: str) -> dict[str, Any]:
    """The metadata of these assets of a run."""
    assert not reason(result)
    events = result.get_asset_materialization_events()
    return {
        key: value.value
        for event in events
        if event.asset_key is not None and event.asset_key.path[-1] in assets
        for key, value in event.materialization.metadata.items()
    }
