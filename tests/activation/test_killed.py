"""`kill -9` at any moment: nothing lost, nobody left in who should be out."""

import os
from pathlib import Path

import pytest
from torture import MEMBERS, torture

HUNDREDS = int(os.environ.get("PERSONAS_TORTURE", "0"))


@pytest.mark.parametrize("rate", [0.0, 0.2], ids=["a tool that works", "a tool that does not"])
def test_killed_at_random_instants(tmp_path: Path, rate: float) -> None:
    assert torture(tmp_path, kills=3, rate=rate, people=2_000).kills == 3


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.0, 0.2], ids=["a tool that works", "a tool that does not"])
def test_many_members(tmp_path: Path, rate: float) -> None:
    assert torture(tmp_path, kills=25, rate=rate, people=MEMBERS).kills == 25


@pytest.mark.skipif(not HUNDREDS, reason="PERSONAS_TORTURE, how many kills, is not set")
@pytest.mark.parametrize("rate", [0.0, 0.2], ids=["a tool that works", "a tool that does not"])
def test_hundreds_of_kills(tmp_path: Path, rate: float) -> None:
    assert torture(tmp_path, kills=HUNDREDS, rate=rate, people=MEMBERS).kills == HUNDREDS
