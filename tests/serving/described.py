"""Schemathesis asks a running server whether its description is true."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.serving.server_process import ServerProcess

SCHEMATHESIS = Path(sys.executable).parent / "schemathesis"


def is_as_described(server: ServerProcess, *run: str, globally: Sequence[str] = ()) -> None:
    """No 500, and no answer that is not declared. `run`: options of `schemathesis run`."""
    command = [str(SCHEMATHESIS), *globally, "run", f"{server.url}/openapi.json"]
    done = subprocess.run(
        [*command, "--no-color", "--max-examples", "20", *run],
        cwd=server.root,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-5_000:] + done.stderr
    assert '"status":500' not in server.log.read_text()
