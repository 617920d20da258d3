"""The catalogue is whole: each tool that it names has everything that a tool must have."""

import ast
import re
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
import yaml
from contract import DOCS, GOLDEN, MARKER, case
from pydantic import SecretStr

import personas_dagster.activation
from personas_dagster.destinations import DESTINATIONS, open_destination
from personas_dagster.project import models
from personas_dagster.simulators import SIMULATORS, simulator
from personas_dagster.spaces import literal_secrets

_ENGINE = Path(personas_dagster.activation.__file__).parent
_README = _ENGINE.parents[1] / "README.md"

# part one of the catalogue: hours between two syncs of a list; None: an event destination
CATALOGUE: dict[str, float | None] = {
    "braze": None,
    "iterable": None,
    "iterable_lists": 1,
    "customerio": None,
    "hubspot": None,
    "hubspot_lists": 1,
    "intercom": None,
    "mailchimp": None,
    "sendgrid": None,
    "sendgrid_lists": 1,
    "zendesk": None,
    "mixpanel": None,
    "amplitude": None,
    "kinesis": None,
    "facebook_custom_audiences": 1,
    "google_ads": 6,
    "marketo": None,
    "marketo_static_lists": 6,
    "webhook": None,
}


def destination(name: str) -> Any:
    return open_destination(name, simulator(name, key=MARKER).settings("https://tool.example"))


@pytest.mark.parametrize("name", CATALOGUE)
def test_each_tool_is_there(name: str) -> None:
    """Its kind, a simulator, a page, and golden payloads of what it can be given.

    That the contract runs on it follows: `test_contract.py` goes through `DESTINATIONS`.
    """
    assert name in DESTINATIONS and name in SIMULATORS
    abilities = destination(name).abilities
    hours = CATALOGUE[name]
    assert abilities.kind == ("event" if hours is None else "list")
    assert abilities.interval == (None if hours is None else timedelta(hours=hours))
    assert (DOCS / f"{name}.md").is_file()
    assert f"(docs/destinations/{name}.md)" in _README.read_text(encoding="utf-8")
    for golden in ("audience_entered", "audience_exited", "trait", "several"):
        is_there = (GOLDEN / name / f"{golden}.json").is_file()
        assert is_there == bool(case(golden, abilities)), golden


@pytest.mark.parametrize("name", DESTINATIONS)
def test_each_setting_is_explained(name: str) -> None:
    """In its model, and where its default is a number or a flag, with that on its page."""
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    defaults = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", page, re.MULTILINE))
    for setting, field in type(destination(name).settings).model_fields.items():
        assert field.description, setting
        if isinstance(field.default, bool | int | float):
            shown = str(field.default).lower().removesuffix(".0")
            assert defaults[setting] == shown, setting


@pytest.mark.parametrize("name", DESTINATIONS)
def test_the_example_of_each_page_holds(name: str) -> None:
    """It opens once its secrets are there, and none of them stands in the file."""
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^ *# resources/destinations/.*?(?=^ *```)", page, re.M | re.S)
    declared = yaml.safe_load(dedent(example))
    model = models.Destination(name="example", **declared)
    assert model.type == name and literal_secrets(model) == []
    assert open_destination(name, _with_secrets(model.settings)).abilities.matches_on


def _with_secrets(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if set(value) in ({"env"}, {"file"}):
        return SecretStr("https://secret.invalid")
    return {key: _with_secrets(part) for key, part in value.items()}


def test_mixpanel_knows_aliases() -> None:
    assert destination("mixpanel").abilities.knows_alias


def test_the_engine_names_no_tool() -> None:
    tools = {name.partition("_")[0] for name in DESTINATIONS}
    for path in sorted(_ENGINE.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            said = {str(node.value)} if isinstance(node, ast.Constant) else set()
            said |= {node.id} if isinstance(node, ast.Name) else set()
            words = {word.lower() for text in said for word in re.findall(r"\w+", text)}
            assert not words & (tools - {"iterable"}), path  # which is also a kind of object
