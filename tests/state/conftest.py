from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from personas_dagster.state import State


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def state_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty database, on each of the servers that are supported."""
    if request.param == "postgres":
        return str(request.getfixturevalue("postgres_url"))
    return f"sqlite:///{tmp_path}/state.db"


@pytest.fixture
def open_state(state_url: str) -> Iterator[Callable[[], State]]:
    """Opens the state, as each process does; closed at the end."""
    opened: list[State] = []

    def open_it() -> State:
        opened.append(State(state_url))
        return opened[-1]

    yield open_it
    for state in opened:
        state.close()


@pytest.fixture
def state(open_state: Callable[[], State]) -> State:
    return open_state()
