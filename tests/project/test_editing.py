"""Definition files written by the platform keep what people wrote."""

from __future__ import annotations

import pytest
import yaml

from personas_dagster.project.editing import changed

FILE = """\
# Who spends much.
name: Big spenders   # as the shop says
tags:
  - money
  - "quoted"
query: |
  # since last year
  event('Order Completed')
    .sum(property('revenue')) >= 500

enabled: true
"""


def test_only_the_field_changes() -> None:
    assert changed(FILE, {"enabled": False}) == FILE.replace("enabled: true", "enabled: false")


def test_same_values_change_nothing() -> None:
    same = {"name": "Big spenders", "tags": ["money", "quoted"], "enabled": True}
    assert changed(FILE, same) == FILE


def test_query_of_several_lines_is_a_block() -> None:
    query = "event('A')\n  .count() >= 1"
    text = changed(FILE, {"query": query})
    assert "query: |\n  event('A')\n    .count() >= 1\n" in text
    assert text.startswith(FILE.split("query")[0])


def test_fields_go_and_come() -> None:
    text = changed(FILE, {"tags": None, "owner": "team:crm", "spaces": ["production"]})
    assert yaml.safe_load(text) == {
        **{k: v for k, v in yaml.safe_load(FILE).items() if k != "tags"},
        "owner": "team:crm",
        "spaces": ["production"],
    }
    assert "spaces: [production]\n" in text and "# as the shop says" in text


@pytest.mark.parametrize("indent", ["", "  "])
def test_lists_stay_as_they_are_indented(indent: str) -> None:
    text = f"tags:\n{indent}- a\n{indent}- b\nname: x\n"
    assert changed(text, {"name": "y"}) == text.replace("x", "y")


def test_new_file() -> None:
    assert changed("", {"name": "A", "query": "x"}) == "name: A\nquery: x\n"
