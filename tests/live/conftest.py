from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from personas_dagster.samples.receiver import Receiver
from tests.live.running import Running, copy_declarations

WRITE_KEY = "live-write-key"


@dataclass(frozen=True)
class Live:
    """What runs: the UI with its daemon, the tool that is synced to, the channel of alerts."""

    ui: Running
    tool: Receiver
    alerts: Receiver


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One running project for all tests here: development runs by itself, production does not."""
    root = tmp_path_factory.mktemp("live")
    copy_declarations(root)
    (root / "sensors" / "alerts.yaml").write_text("urls: [{env: PERSONAS_ALERT_URL}]\n")
    for space, automation, limit in (("development", "true", 200), ("production", "false", 6)):
        path = root / "resources" / "spaces" / f"{space}.yaml"
        kept = [
            line
            for line in path.read_text().splitlines()
            if not line.startswith(("automation:", "identity:", "  max_profile_identifiers:"))
        ]
        kept += [f"automation: {automation}", "identity:", f"  max_profile_identifiers: {limit}"]
        path.write_text("\n".join(kept) + "\n")
    with Receiver() as tool, Receiver() as alerts:
        env = {
            "PERSONAS_WEBHOOK_URL": tool.url,
            "WEB_SHOP_WRITE_KEY_DEVELOPMENT": WRITE_KEY,
            "PERSONAS_ALERT_URL": alerts.url.replace("http://", "json://"),
        }
        with Running(root, env) as ui:
            yield Live(ui, tool, alerts)
