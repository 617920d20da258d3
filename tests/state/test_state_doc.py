"""docs/state.md names every table."""

import re
from pathlib import Path

from personas_dagster.state.schema import metadata


def test_every_table_is_described() -> None:
    text = (Path(__file__).parents[2] / "docs" / "state.md").read_text()
    section = text.split("## Tables")[1].split("## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE) == list(metadata.tables)
