"""`personas serve` in a process group of its own, that can be killed and started again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Self

from tests.place import COMMAND
from tests.serving.serving_place import ENV, METRICS_TOKEN


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


class ServerProcess:
    """A server of a project; its log is in `log`."""

    def __init__(self, root: Path, *options: str, workers: int = 1) -> None:
        self.root, self.workers, self.port = root, workers, free_port()
        self.options = options
        self.log = root / "serve.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def launch(self) -> None:
        """Start it, and leave it to itself."""
        command = [str(COMMAND), "serve", "--port", str(self.port), "--workers", str(self.workers)]
        command += self.options
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command,
                cwd=self.root,
                env={**os.environ, **ENV, "PERSONAS_METRICS_TOKEN": METRICS_TOKEN},
                stderr=log,
                start_new_session=True,
            )

    def start(self) -> None:
        """Start it, and come back when it is ready."""
        self.launch()
        assert self.process is not None
        for _ in range(1_200):
            if self.process.poll() is not None:
                raise AssertionError(self.log.read_text()[-2_000:])
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.05)
        raise AssertionError("the server does not get ready")

    def kill(self) -> None:
        """As if the power went: parent and workers at once."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """As an operator does it; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()
