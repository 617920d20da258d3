"""The real event libraries, a fixed scenario through each: every call arrives once, with its ids.

They are installed from their registries: the Python ones with the extra `dev`, the others by npm.
Between library and server stands a proxy that answers 429 and 500, loses answers, cuts connections
and kills the server.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.place import Place
from tests.serving.fault_proxy import FAULTS, FaultProxy
from tests.serving.server_process import ServerProcess
from tests.serving.serving_place import KEY, stored, take_in, web_place

pytestmark = pytest.mark.slow
SCRIPTS = Path(__file__).parent / "libraries"
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
NO_FAULTS: dict[int, str] = {}
EVERY_SECOND = {1 + 2 * index: fault for index, fault in enumerate(FAULTS)}
SCENARIO: set[tuple[str | None, ...]] = {
    ("identify", None, "u1", None, None),
    ("track", "Order Completed", "u1", None, None),
    ("track", "Product Viewed", None, None, None),
    ("page", "Page Viewed", "u1", None, None),
    ("screen", "Screen Viewed", "u1", None, None),
    ("group", None, "u1", "g1", None),
    ("alias", None, "u1", None, "a1"),
}


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the npm packages, and the scripts that use them."""
    folder = tmp_path_factory.mktemp("npm")
    for path in SCRIPTS.iterdir():
        shutil.copy(path, folder) if path.is_file() else None
    npm = shutil.which("npm")
    assert npm, "the libraries of Node need npm: install nodejs and npm"
    subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error"],
        cwd=folder,
        check=True,
        timeout=300,
        capture_output=True,
    )
    return folder


@pytest.fixture
def served(new_place: Callable[[], Place]) -> Iterator[tuple[Place, ServerProcess]]:
    place = web_place(new_place)
    with ServerProcess(place.root) as server:
        yield place, server


def run(command: list[str], folder: Path | None = None) -> None:
    """A script, with nothing but its host changed."""
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def check(
    place: Place,
    server: ServerProcess,
    proxy: FaultProxy,
    faults: dict[int, str],
    scenario: set[tuple[str | None, ...]] = SCENARIO,
) -> None:
    """Every call of the scenario is there, once."""
    assert proxy.done == list(faults.values())
    assert set(proxy.answers) <= {200, 429, 500}
    assert server.stop() == 0
    report = take_in(place)
    assert report.rejected == 0
    rows = stored(place)
    found = [
        (
            row["type"],
            row["event"],
            row["user_id"],
            row["group_id"] if row["type"] == "group" else None,  # browsers remember the group
            row["previous_id"],
        )
        for row in rows
    ]
    assert sorted(map(str, found)) == sorted(map(str, scenario))
    assert all(row["message_id"] for row in rows)
    assert len({row["message_id"] for row in rows}) == len(scenario)
    viewed = next(row for row in rows if row["event"] == "Product Viewed")
    assert viewed["anonymous_id"] == "a1"
    assert "é" in viewed["properties"]
    if "lost" in faults.values():
        assert report.duplicates > 0


@pytest.mark.parametrize("faults", [NO_FAULTS, EVERY_SECOND], ids=["well", "faults"])
@pytest.mark.parametrize("packed", ["plain", "gzip"])
@pytest.mark.parametrize("module", ["segment.analytics", "rudderstack.analytics"])
def test_python(
    served: tuple[Place, ServerProcess], module: str, packed: str, faults: dict[int, str]
) -> None:
    place, server = served
    with FaultProxy(server, faults) as proxy:
        script = str(SCRIPTS / "analytics_python.py")
        run([sys.executable, script, module, proxy.url, KEY, packed])
    check(place, server, proxy, faults)


@pytest.mark.parametrize("faults", [NO_FAULTS, EVERY_SECOND], ids=["well", "faults"])
@pytest.mark.parametrize("script", ["segment_node.js", "rudder_node.js"])
def test_node(
    served: tuple[Place, ServerProcess], packages: Path, script: str, faults: dict[int, str]
) -> None:
    place, server = served
    with FaultProxy(server, faults) as proxy:
        run(["node", script, proxy.url, KEY], packages)
    check(place, server, proxy, faults)


@pytest.fixture
def page_origin(packages: Path) -> Iterator[str]:
    """A site of another origin, with the page and the library's bundle."""
    for library, name in (
        ("@segment/analytics-next/dist/umd", "analytics-next"),
        ("@rudderstack/analytics-js/dist/npm/modern", "rudder"),
    ):
        shutil.copytree(packages / "node_modules" / library, packages / name, dirs_exist_ok=True)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(packages))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as site:
        thread = threading.Thread(target=site.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{site.server_address[1]}"
        site.shutdown()


# What is sent before `identify` must arrive before it: the library adds the user to what it sends
# again. Batches hold all that waits, so there are few.
AFTER_THE_FIRST = {1 + number: fault for number, fault in EVERY_SECOND.items()}
SEGMENT, RUDDER = "segment_browser.html?batching=", "rudder_browser.html?"
BROWSER = {
    "segment": (SEGMENT, NO_FAULTS, 7),
    "segment with faults": (SEGMENT, AFTER_THE_FIRST, 7),
    "segment in batches": (f"{SEGMENT}yes", NO_FAULTS, 7),
    "segment in batches with faults": (
        f"{SEGMENT}yes",
        {1: "429", 2: "500", 3: "killed", 4: "lost"},
        7,
    ),
    "rudder": (RUDDER, NO_FAULTS, 6),
    "rudder with faults": (RUDDER, EVERY_SECOND, 6),
}


@pytest.mark.parametrize("name", BROWSER)
def test_browser(served: tuple[Place, ServerProcess], page_origin: str, name: str) -> None:
    from playwright.sync_api import sync_playwright

    place, server = served
    page_name, faults, calls = BROWSER[name]
    with FaultProxy(server, faults) as proxy, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        page.goto(f"{page_origin}/{page_name}&host={proxy.url}&key={KEY}")
        assert page.evaluate("scenario()") == "done"
        expected = 1 if "batches" in name else calls
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and (
            len(proxy.done) < len(faults) or proxy.answers.count(200) < expected
        ):
            page.wait_for_timeout(200)
        page.wait_for_timeout(5_000)
        browser.close()
    # RudderStack's browser library has no `screen`.
    check(
        place, server, proxy, faults, {one for one in SCENARIO if calls == 7 or "screen" not in one}
    )
