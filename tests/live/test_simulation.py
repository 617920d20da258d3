"""`personas dev --simulate`: a sync to a tool that works with no account, and touches nothing."""

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import httpx
import pytest
import sqlalchemy as sa

from personas_dagster.simulated import VARIABLE
from personas_dagster.state.schema import audit, connections, intents, syncs
from tests.live.messages import message, write
from tests.live.running import Running, copy_declarations

pytestmark = pytest.mark.dagster_ui

SPACE = "production"
KEY = "BRAZE_KEY_NOBODY_HAS"
BRAZE = {
    "type": "braze",
    "settings": {"base_url": "https://rest.example.com", "api_key": {"env": KEY}},
}
_DESCRIPTION = """
query ($key: AssetKeyInput!) { assetNodeOrError(assetKey: $key) {
  ... on AssetNode { description kinds } } }
"""


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("simulated")
    copy_declarations(root)
    (root / "resources/destinations/braze.yaml").write_text(json.dumps(BRAZE))
    for path in (root / "sensors/connections").iterdir():
        path.unlink()
    connection = "audience: big_spenders\ndestination: braze\n"
    (root / "sensors/connections/big_spenders_to_braze.yaml").write_text(connection)
    space = root / "resources/spaces/production.yaml"
    space.write_text(space.read_text().replace("automation: true", "automation: false"))
    with Running(root, {}, "--simulate") as ui:
        yield ui


def test_braze_with_no_account(simulated: Running) -> None:
    at = f"{dt.datetime.now(dt.UTC) - dt.timedelta(days=1):%Y-%m-%dT%H:%M:%SZ}"
    rows = [message(f"rich-{n}", n, at, properties={"revenue": 9_000})
            for n in range(30)]  # fmt: skip
    write(simulated.space(SPACE).landing.incoming / "web_shop" / "rich.jsonl", rows)
    simulated.succeeded(simulated.launch(SPACE, "refresh"))
    run_id = simulated.launch(SPACE, "sync_braze")
    simulated.succeeded(run_id)
    materialised = simulated.instance.all_logs(
        run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION
    )
    assert len(materialised) == 2
    url = _metadata(simulated, run_id)["simulated"].value
    held = httpx.get(str(url)).json()
    assert held["type"] == "braze"
    assert len(held["people"]) == 30
    assert all(person["big_spenders"] is True for person in held["people"].values())


def _metadata(simulated: Running, run_id: str) -> dict[str, dg.MetadataValue]:  # type: ignore[type-arg]
    of_type = dg.DagsterEventType.ASSET_MATERIALIZATION
    for entry in simulated.instance.all_logs(run_id, of_type=of_type):
        event = entry.dagster_event
        if event and event.asset_key and event.asset_key.path[-2] == "destinations":
            return dict(event.step_materialization_data.materialization.metadata)
    raise AssertionError("the destination was not materialised")


def test_the_space_itself_knows_nothing_of_it(simulated: Running) -> None:
    space = simulated.space(SPACE)
    for table in (syncs, connections, intents):
        assert space.state.rows(sa.select(table)) == []
    assert space.state.rows(sa.select(audit).where(audit.c.what == "sync")) == []
    assert space.lake.version("ledger") is None
    declared = json.loads((simulated.root / "resources/destinations/braze.yaml").read_text())
    assert declared == BRAZE
    holding = [path for path in simulated.root.rglob("*")
               if path.is_file() and b"simulated-key" in path.read_bytes()]  # fmt: skip
    assert holding == []


def test_it_is_told_loudly(simulated: Running) -> None:
    assert "SIMULATED: no destination of this project is reached" in simulated.log
    assert f"{VARIABLE}=" in simulated.log
    for part in ("destinations", "connections"):
        name = "braze" if part == "destinations" else "big_spenders_to_braze"
        key = {"path": [SPACE, part, name]}
        node = simulated.graphql(_DESCRIPTION, key=key)["assetNodeOrError"]
        assert "SIMULATED: nothing reaches the tool" in node["description"]
        assert "simulated" in node["kinds"]


def test_it_ends_with_the_ui(tmp_path: Path) -> None:
    from personas_dagster.errors import PersonasError
    from personas_dagster.simulated import read_simulation

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(tmp_path / "gone" / "simulation.json"))
        with pytest.raises(PersonasError, match=f"the simulation has ended: unset {VARIABLE}"):
            read_simulation()
