"""What the README says is there: commands, files, links, and the audience that it shows."""

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from personas_dagster.cli.main import app

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted(ROOT.glob("docs/**/*.md")) + [ROOT / "README.md"]


def commands() -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [
        part.strip()
        for line in lines
        for part in line.split("&&")
        if part.strip().startswith("personas ")
    ]


@pytest.mark.parametrize("line", commands())
def test_commands_exist_with_their_options(line: str) -> None:
    words = shlex.split(line)[1:]
    group = typer.main.get_command(app)
    command = group.commands[words[0]]  # type: ignore[attr-defined]
    options = {name for one in command.params for name in one.opts}
    assert {word for word in words if word.startswith("--")} <= options


def test_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"`?make ([a-z-]+)", README))
    assert {"demo", "test", "dev"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def test_the_audience_shown_is_the_one_declared() -> None:
    (shown,) = re.findall(r"^```yaml\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    declared = (ROOT / "assets/audiences/win_back.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(shown) == yaml.safe_load(declared)


def test_every_page_is_listed() -> None:
    listed = set(re.findall(r"\(docs/([^)]+\.md)\)", README))
    assert {str(p.relative_to(ROOT / "docs")) for p in ROOT.glob("docs/**/*.md")} <= listed
