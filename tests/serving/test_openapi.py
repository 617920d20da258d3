"""The OpenAPI description is true: schemathesis finds no 500 and no answer that is not declared."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.place import Place
from tests.serving.server_process import ServerProcess
from tests.serving.serving_place import KEY, web_place

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"


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
        done = subprocess.run(
            [
                *(str(SCHEMATHESIS), "run", f"{server.url}/openapi.json", "--no-color"),
                *("--auth", f"{KEY}:", "--max-examples", "20", *RUNS[run]),
            ],
            cwd=server.root,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-5_000:] + done.stderr
        assert '"status":500' not in server.log.read_text()
