"""How commands explain themselves, and how they end."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
import typer

from personas_dagster.cli.main import app
from tests.cli.running import Personas
from tests.place import Place


def commands(group: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    inner = getattr(group, "commands", None)
    if inner is None:
        yield path
        return
    for name, command in sorted(inner.items()):
        yield from commands(command, (*path, name))


COMMANDS = list(commands(typer.main.get_command(app)))


def test_commands_start_without_loading_dagster() -> None:
    said = "import sys, personas_dagster.cli.main; print('dagster' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", said], capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_has_an_example(personas: Personas, command: tuple[str, ...]) -> None:
    ended = personas(*command, "--help")
    assert ended.code == 0
    assert f"Example: personas {' '.join(command)}" in ended.out


@pytest.mark.parametrize("command", [c for c in COMMANDS if c != ("init",)], ids=" ".join)
def test_common_options(personas: Personas, command: tuple[str, ...]) -> None:
    out = personas(*command, "--help").out
    wanted = ["--project", "--quiet", "--verbose", *([] if command == ("dev",) else ["--space"])]
    assert [option for option in wanted if option not in out] == []


def test_docs_have_every_command() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    missing = [" ".join(c) for c in COMMANDS if f"\n## personas {' '.join(c)}\n" not in text]
    assert missing == []


@pytest.mark.parametrize(
    "arguments",
    [
        "nothing",
        "ingest",
        "check --nothing",
        "refresh --as-of yesterday",
        "query",
        "query x --file y",
        "query x --format pdf",
        "query x --as-of 2024-13-01",
        "export audience x",
        "sync --allow x",
        "init",
    ],
)
def test_wrong_usage(personas: Personas, arguments: str) -> None:
    ended = personas(*arguments.split())
    assert ended.code == 2, ended
    assert ended.out == "" and "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("ingest nowhere.jsonl", "personas: nowhere.jsonl: nothing is there"),
        ("ingest . --source shop", "personas: no source `shop` in space main; expected one of"),
        ("check --space moon", "personas: no space is named `moon`; expected one of: main"),
        ("check --project moon", "found no resources/spaces/, expected a project"),
        ("refresh --only moon", "personas: no trait or audience `moon` in space main"),
        ("sync moon", "personas: no connection `moon` in space main"),
        ("query --file moon", "personas: moon is not a file"),
        ("query event(", "personas: 1:7: "),
        ("profile user_id:1", "personas: no profile holds user_id:1"),
        ("export audience moon --out x.csv", "personas: no audience `moon` in main"),
        ("init .", "is there already; choose an empty folder, nothing was written"),
    ],
)
def test_failure_in_one_line(personas: Personas, arguments: str, told: str) -> None:
    personas.folder.joinpath("assets", "audiences").mkdir(parents=True)
    ended = personas(*arguments.split())
    assert ended.code == 1, ended
    assert ended.out == "" and len(ended.lines) == 1, ended
    assert told in ended.err


def test_trace_on_request(personas: Personas) -> None:
    assert "Traceback" in personas("ingest", "nowhere.jsonl", "-v").err


def test_quiet(personas: Personas) -> None:
    assert personas("check", "-q").err == ""
    assert personas("check").err.startswith("ok: 1 sources")


def test_version(personas: Personas) -> None:
    assert personas("--version").out.count(".") >= 1


def test_check_tells_everything(personas: Personas, place: Place) -> None:
    place.write("assets/audiences/a.yaml", "qery: x\n")
    place.write("resources/destinations/d.yaml", "type: webhook\nsettings: {batch_size: 1}\n")
    ended = personas("check")
    assert ended.code == 1 and ended.out == ""
    assert [line.split(" found")[0] for line in ended.lines] == [
        "assets/audiences/a.yaml:1:1: qery:",
        "resources/destinations/d.yaml:2:1: settings.url:",
    ]


def test_new_project_holds(personas: Personas, tmp_path: Path) -> None:
    target = tmp_path / "new"
    assert personas("init", target).code == 0
    assert personas("check", "--project", target).code == 0
    again = personas("init", target)
    assert again.code == 1 and "nothing was written" in again.err
