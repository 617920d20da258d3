from collections.abc import Iterator

import pytest
from loopback import Loopback

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
