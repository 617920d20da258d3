"""The HTTP application of `personas dev` knows where Dagster's webserver is."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from personas_dagster.cli.serve import serving
from personas_dagster.cli.shell import Shell
from personas_dagster.serving.reloading import URL
from tests.place import Place


def test_webserver_is_handed_over(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[dict[str, str]] = []

    class Process:
        def __init__(self, _command: list[str], *, env: dict[str, str], **_: Any) -> None:
            started.append(env)

        def terminate(self) -> None: ...

        def wait(self) -> None: ...

    monkeypatch.delenv(URL, raising=False)
    monkeypatch.setattr(subprocess, "Popen", Process)
    shell = Shell(place.root, quiet=True)
    with serving(shell, "127.0.0.1", 0, webserver="http://127.0.0.1:3000"):
        pass
    assert [env[URL] for env in started] == ["http://127.0.0.1:3000"]
