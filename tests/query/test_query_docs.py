"""The documentation and the language name the same things."""

import re
from pathlib import Path

import pytest

from personas_dagster.query import parse
from personas_dagster.query.names import COMPARATORS, EXTRACTORS, FILTERS, REDUCERS

DOCS = Path(__file__).parents[2].joinpath("docs", "query-language.md").read_text("utf-8")


@pytest.mark.parametrize("name", [*EXTRACTORS, *FILTERS, *REDUCERS, *COMPARATORS])
def test_every_name_has_a_heading(name: str) -> None:
    assert f"\n### {name}\n" in DOCS


@pytest.mark.parametrize("name", [*FILTERS, *REDUCERS, *COMPARATORS])
def test_every_section_has_an_example(name: str) -> None:
    section = DOCS.split(f"\n### {name}\n")[1].split("\n#")[0]
    assert re.search(r"`(event|trait)\('", section)


def test_examples_parse() -> None:
    blocks = [block for block in re.findall(r"```\n(.*?)```", DOCS, re.S) if "did you" not in block]
    assert len(blocks) >= 5
    for block in blocks:
        parse(block)
    for example in re.findall(r"`(trait\('[^`]*)`", DOCS):
        parse(example)
