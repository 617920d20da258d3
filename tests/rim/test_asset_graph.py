"""The asset graph is reviewed: asset_graph.txt has it, PERSONAS_UPDATE_GOLDEN=1 writes it anew."""

import os
from pathlib import Path

import dagster as dg
import pytest
from dagster import AssetKey

from personas_dagster.definitions import build
from personas_dagster.project.loader import load_project
from personas_dagster.spaces import open_space
from tests.rim.project import ROOT

GOLDEN = Path(__file__).parent / "asset_graph.txt"


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build(ROOT, "development")


@pytest.fixture(scope="module")
def specs(definitions: dg.Definitions) -> dict[AssetKey, dg.AssetSpec]:
    return {spec.key: spec for spec in definitions.resolve_all_asset_specs()}


def drawn(specs: dict[AssetKey, dg.AssetSpec]) -> str:
    lines = []
    for key, spec in sorted(specs.items()):
        lines.append(f"{key.to_user_string()}  [{spec.group_name}]")
        lines += [f"    {dep}" for dep in sorted(d.asset_key.to_user_string() for d in spec.deps)]
    return "\n".join(lines) + "\n"


def above(specs: dict[AssetKey, dg.AssetSpec], key: AssetKey) -> set[AssetKey]:
    found: set[AssetKey] = set()
    new = {key}
    while new:
        found |= new
        new = {dep.asset_key for one in new for dep in specs[one].deps} - found
    return found - {key}


def test_graph_as_reviewed(specs: dict[AssetKey, dg.AssetSpec]) -> None:
    if os.environ.get("PERSONAS_UPDATE_GOLDEN"):
        GOLDEN.write_text(drawn(specs), encoding="utf-8")
    assert drawn(specs) == GOLDEN.read_text(encoding="utf-8")


def test_everything_is_labelled(specs: dict[AssetKey, dg.AssetSpec]) -> None:
    for key, spec in specs.items():
        assert spec.description, key
        assert spec.group_name not in (None, "default"), key
        assert spec.owners, key
        assert spec.kinds, key


def test_definitions_lead_to_their_files(specs: dict[AssetKey, dg.AssetSpec]) -> None:
    spec = specs[AssetKey(["development", "audiences", "big_spenders"])]
    references = spec.metadata["dagster/code_references"].code_references
    assert references[0].file_path == str(ROOT / "assets/audiences/big_spenders.yaml")


def test_lineage_reaches_back_to_sources(specs: dict[AssetKey, dg.AssetSpec]) -> None:
    space = open_space(load_project(ROOT), "development")
    ends = [key for key in specs if key.path[1] in ("computed_traits", "audiences", "destinations")]
    assert len(ends) >= len(space.computed_keys) + len(space.audience_keys) + 1
    roots = {
        AssetKey(["development", *path])
        for path in (["landing"], ["raw_events"], *(["sources", s] for s in space.sources))
    }
    for key in ends:
        assert roots <= above(specs, key), key


def test_references_are_lineage(specs: dict[AssetKey, dg.AssetSpec]) -> None:
    win_back = specs[AssetKey(["development", "audiences", "win_back"])]
    deps = {dep.asset_key.to_user_string() for dep in win_back.deps}
    assert "development/computed_traits/lifetime_revenue" in deps
    assert "development/audiences/lapsed_customers" in deps


def test_destination_depends_on_what_is_connected(specs: dict[AssetKey, dg.AssetSpec]) -> None:
    space = open_space(load_project(ROOT), "development")
    webhook = specs[AssetKey(["development", "destinations", "webhook"])]
    chosen = [c for c in space.connections.values() if c.destination == "webhook"]
    deps = {tuple(dep.asset_key.path[1:]) for dep in webhook.deps}
    assert deps == {("connections", one.name) for one in chosen}
    for one in chosen:
        connection = specs[AssetKey(["development", "connections", one.name])]
        assert [dep.asset_key.path[-1] for dep in connection.deps] == [one.key.split(".")[0]]


def test_spaces_share_no_key(specs: dict[AssetKey, dg.AssetSpec]) -> None:
    other = {spec.key for spec in build(ROOT, "production").resolve_all_asset_specs()}
    assert {key.path[0] for key in specs} == {"development"}
    assert {key.path[0] for key in other} == {"production"}
    assert {tuple(key.path[1:]) for key in specs} == {tuple(key.path[1:]) for key in other}


def test_merge_guard_blocks(definitions: dg.Definitions) -> None:
    graph = definitions.resolve_asset_graph()
    (check,) = [one for one in graph.asset_check_keys if graph.get(one).blocking]
    assert check.asset_key == AssetKey(["development", "merge_candidates"])


def test_landing_comes_first(definitions: dg.Definitions) -> None:
    """A refresh leaves raw_events out, so that the order must not hang on it."""
    job = definitions.resolve_job_def("refresh")
    for node, deps in job.dependencies.items():
        if node.name != "development__landing":
            assert deps, f"{node.name} may run before landing"
