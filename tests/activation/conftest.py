from collections.abc import Iterator
from pathlib import Path

import pytest
from world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    """An empty world with a lake and a state of its own."""
    made = World(tmp_path)
    yield made
    made.state.close()
