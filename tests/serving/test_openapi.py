"""The OpenAPI description is true: schemathesis finds no 500 and no answer that is not declared."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.place import Place
from tests.serving.described import is_as_described
from tests.serving.server_process import ServerProcess
from tests.serving.serving_place import KEY, web_place

RUNS = {
    "tracking": ["--include-tag", "tracking", "--exclude-path-regex", "/sourceConfig"],
    # The library says much of itself in the query, which OpenAPI cannot describe.
    "config": ["--include-path-regex", "/sourceConfig", "--exclude-checks=negative_data_rejection"],
    "operations": ["--include-tag", "operations"],
}


@pytest.mark.slow
@pytest.mark.parametrize("run", RUNS)
def test_answers_are_as_described(new_place: Callable[[], Place], run: str) -> None:
    with ServerProcess(web_place(new_place).root) as server:
        is_as_described(server, "--auth", f"{KEY}:", *RUNS[run])
