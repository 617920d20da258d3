"""`personas serve`: the README's example, what it refuses to start with, how it ends."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from personas_dagster.project.loader import load_project
from personas_dagster.serving.server import Settings, prepare
from personas_dagster.spaces import open_space
from tests.place import COMMAND, NOW, Place
from tests.serving.server_process import ServerProcess, free_port
from tests.serving.serving_place import ENV, KEY, METRICS_TOKEN, stored, take_in, web_place

ROOT = Path(__file__).parents[2]


def test_missing_keys_are_all_named(
    new_place: Callable[[], Place], monkeypatch: pytest.MonkeyPatch
) -> None:
    place = web_place(new_place)
    for name in ENV:
        monkeypatch.delenv(name, raising=False)
    ended = place.personas("serve", "--port", str(free_port()))
    assert ended.returncode == 1
    for name, space in (("WEB_KEY", "main"), ("WEB_KEY_ELSEWHERE", "elsewhere")):
        assert f"write key of source web in space {space}: environment variable {name}" in (
            ended.stderr
        )
    missing = prepare(Settings(str(place.root), ("main",), allow_missing_keys=True))
    assert len(missing) == 1 and "WEB_KEY is not set" in missing[0]


def test_one_key_for_two_sources_is_refused(new_place: Callable[[], Place]) -> None:
    place = web_place(new_place)
    both = dict.fromkeys(ENV, "the-same")
    ended = place.personas("serve", "--port", str(free_port()), env=both)
    assert ended.returncode == 1
    assert "is also that of web in elsewhere" in ended.stderr
    assert "the-same" not in ended.stderr


def test_a_key_in_the_file_is_refused(new_place: Callable[[], Place]) -> None:
    place = web_place(new_place)
    place.write("assets/sources/web.yaml", "name: Web\nwrite_keys: {main: secret-in-file}\n")
    ended = place.personas("check")
    assert ended.returncode == 1
    assert ended.stderr.startswith("assets/sources/web.yaml:2:")
    place.write("assets/sources/web.yaml", "name: Web\nwrite_keys: {mian: {env: X}}\n")
    assert "did you mean `main`?" in place.personas("check").stderr


@pytest.mark.slow
@pytest.mark.parametrize("workers", [1, 2])
def test_what_was_accepted_is_finished_before_the_end(
    new_place: Callable[[], Place], workers: int
) -> None:
    place, accepted, ending = web_place(new_place), list[str](), threading.Event()

    def send(name: str) -> None:
        for number in range(100_000):
            message = {"userId": "u", "event": "e", "messageId": f"{name}-{number}"}
            body = json.dumps({**message, "writeKey": KEY}).encode()
            request = urllib.request.Request(f"{server.url}/v1/track", body, method="POST")
            try:
                with urllib.request.urlopen(request, timeout=30) as answer:
                    assert json.load(answer) == {"success": True}
            except OSError:
                if ending.is_set():
                    return
                raise
            accepted.append(message["messageId"])

    with ServerProcess(place.root, workers=workers) as server:
        senders = [threading.Thread(target=send, args=(str(n),), daemon=True) for n in range(8)]
        for sender in senders:
            sender.start()
        while len(accepted) < 200:
            threading.Event().wait(0.01)
        numbers = httpx.get(f"{server.url}/metrics", auth=(METRICS_TOKEN, "")).text
        found = re.search(
            r'^personas_messages_total{source="web",space="main"} (.+)', numbers, re.M
        )
        assert found and float(found[1]) >= 200  # of all workers
        ending.set()
        assert server.stop() == 0
        for sender in senders:
            sender.join(60)
    assert list((place.root / ".personas/landing/incoming").rglob("*.part")) == []
    take_in(place)
    assert set(accepted) <= {row["message_id"] for row in stored(place)}
    for line in server.log.read_text().splitlines()[1:]:
        facts = json.loads(line)
        assert facts["level"] == "info", facts
    assert KEY not in server.log.read_text()


@pytest.mark.slow
def test_the_readme_s_example_is_true(tmp_path: Path) -> None:
    readme = (ROOT / "README.md").read_text()
    (block,) = [
        found
        for found in re.findall(r"^```\n(.*?)^```", readme, re.MULTILINE | re.DOTALL)
        if "personas serve" in found
    ]
    subprocess.run([COMMAND, "init", str(tmp_path / "shop"), "-q"], check=True)
    port = free_port()
    lines = block.replace("8080", str(port)).replace("\\\n", " ").splitlines()
    export, serve, curl = lines
    name, value = export.removeprefix("export ").split("=")
    words = shlex.split(serve.removesuffix("&"))
    env: dict[str, Any] = {name: value, "PATH": f"{COMMAND.parent}:/usr/bin:/bin"}
    with subprocess.Popen(words, cwd=tmp_path / "shop", env=env) as server:
        try:
            ready = f"http://127.0.0.1:{port}/readyz"
            wait = f"until curl -fs {ready} > /dev/null; do sleep 0.1; done"
            subprocess.run(["bash", "-c", wait], timeout=60, check=True)
            answer = subprocess.run(
                ["bash", "-c", curl], env=env, capture_output=True, text=True, check=True
            )
        finally:
            server.terminate()
    assert json.loads(answer.stdout) == {"success": True}
    assert f"`{answer.stdout}`" in readme
    space = open_space(load_project(tmp_path / "shop"), "development")
    (landed,) = space.landing.discover(now=NOW)
    assert landed.source_id == "website"
    assert json.loads(landed.path.read_text())["userId"] == "42"
