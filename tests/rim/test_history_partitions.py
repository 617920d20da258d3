"""The history of traits and audiences, backfilled as from the UI: a range in one run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg
import pytest

from personas_dagster.assets.keys import Names
from personas_dagster.definitions import build
from tests.rim.conftest import New
from tests.rim.project import Project, order

FIRST, LAST = "2026-02-01", "2026-02-12"
BIG = "event('Order Completed').within(5 days).sum(property('revenue')) >= 100"


@pytest.fixture(scope="module")
def shop(new_project: New) -> Iterator[Project]:
    project = new_project()
    project.write("assets/audiences/big.yaml", f"query: {BIG}\n")
    project.write(
        "assets/computed_traits/total.yaml",
        "aggregation: {event: Order Completed, property: revenue, function: sum}\n",
    )
    project.put(
        *(order(user, revenue=revenue, day=day)
          for user, revenue, day in (("a", 150, 2), ("b", 60, 3), ("b", 60, 4), ("c", 500, 9))),
        name="messages.jsonl",
    )  # fmt: skip
    assert project.run().success
    yield project


def backfill(project: Project, config: dict[str, Any], *select: str) -> dg.ExecuteInProcessResult:
    names = Names(project.space())
    keys = [names.key(one) for one in select]
    job = build(project.root, "development").get_repository_def()
    found = job.get_implicit_job_def_for_assets(keys)
    assert found is not None
    return found.execute_in_process(
        instance=project.instance,
        asset_selection=keys,
        tags={"dagster/asset_partition_range_start": FIRST,
              "dagster/asset_partition_range_end": LAST},
        run_config={"ops": {"development__history": {"config": config}},
                    "loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        raise_on_error=False,
    )  # fmt: skip


def test_a_range_in_one_run(shop: Project) -> None:
    names = Names(shop.space())
    result = backfill(shop, {}, "trait_history", "audience_history")
    assert result.success
    sizes, plots = {}, {}
    for event in result.get_asset_materialization_events():
        if event.asset_key == names.key("audience_history"):
            metadata = event.materialization.metadata
            sizes[event.partition] = metadata["sizes"].value["big"]
            plots[event.partition] = "over_time" in metadata
    wanted = [0, 0, 1, 1, 2, 2, 2, 1, 0, 1, 1, 1]
    assert sizes == {f"2026-02-{day:02}": n for day, n in enumerate(wanted, start=1)}
    assert [day for day, there in plots.items() if there] == [LAST]
    days = shop.instance.get_materialized_partitions(names.key("trait_history"))
    assert len(days) == 12


def test_one_of_the_two(shop: Project) -> None:
    result = backfill(shop, {"keys": ["big"], "knowledge": "then"}, "audience_history")
    assert result.success
    keys = {event.asset_key for event in result.get_asset_materialization_events()}
    assert keys == {Names(shop.space()).key("audience_history")}
