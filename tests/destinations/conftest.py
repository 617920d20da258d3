from collections.abc import Iterator

import pytest
from loopback import Loopback

from personas_dagster.simulators.serving import Served

pytest.register_assert_rewrite("contract")


def pytest_addoption(parser: pytest.Parser) -> None:
    try:
        parser.addoption("--update", action="store_true", help="rewrite golden files")
    except ValueError:
        pass  # another folder's conftest has it


@pytest.fixture
def server() -> Iterator[Loopback]:
    with Loopback() as made:
        yield made


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    """One server for all simulators; each test adds the account that it needs."""
    with Served() as made:
        yield made
