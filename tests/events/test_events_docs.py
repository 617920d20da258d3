"""What docs/events.md must name, and what the package offers."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from personas_dagster import events
from personas_dagster.events import REASONS, EventSettings

DOCS = (Path(__file__).parents[2] / "docs" / "events.md").read_text()


def test_reasons_are_documented() -> None:
    section = DOCS.split("## Reasons")[1].split("\n## ")[0]
    rows = [line.split("`")[1] for line in section.splitlines() if line.startswith("| `")]
    assert sorted(rows) == sorted(REASONS)


def test_settings_are_documented() -> None:
    section = DOCS.split("## Settings")[1]
    assert all(f"| `{field.name}` |" in section for field in dataclasses.fields(EventSettings))


def test_public_names() -> None:
    assert events.__all__ == [
        "REASONS",
        "EventSettings",
        "LandedFile",
        "Landing",
        "LoadReport",
        "RebuildReport",
        "load",
        "rebuild",
    ]
