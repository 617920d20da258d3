from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.rim.project import Project

New = Callable[[], Project]


@pytest.fixture(scope="session")
def new_project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[New]:
    with ExitStack() as instances:

        def new() -> Project:
            made = Project(tmp_path_factory.mktemp("project"))
            instances.enter_context(made.instance)
            return made

        yield new


@pytest.fixture(autouse=True)
def webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens there: a test that syncs says where to."""
    monkeypatch.setenv("PERSONAS_WEBHOOK_URL", "http://127.0.0.1:9")
