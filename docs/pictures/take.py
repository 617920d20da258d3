"""Take the README's pictures from the running UI, with Chromium: `make pictures`.

Needs the demo's results (`make demo`) and Chromium (`CHROMIUM`, default /usr/bin/chromium). A
folder as argument takes them there instead.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
CHROMIUM = os.environ.get("CHROMIUM", "/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
_LAST_RUN = '{ runsOrError(limit: 1, filter: {pipelineName: "refresh"}) { ... on Runs '
_LAST_RUN += "{ results { runId } } } }"


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_for(url: str) -> None:
    """Until both code locations are loaded."""
    query = "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }"
    for _ in range(240):
        try:
            answer = httpx.post(f"{url}/graphql", json={"query": query}, timeout=5).json()
            entries = answer["data"]["workspaceOrError"]["locationEntries"]
            if len(entries) == 2 and all(entry["loadStatus"] == "LOADED" for entry in entries):
                return
        except httpx.HTTPError:
            pass
        time.sleep(0.5)
    raise SystemExit(f"the UI at {url} did not load its code locations")


def last_run(url: str) -> str:
    answer = httpx.post(f"{url}/graphql", json={"query": _LAST_RUN}, timeout=30).json()
    runs = answer["data"]["runsOrError"]["results"]
    if not runs:
        raise SystemExit("no refresh has run yet; run `make demo` first")
    return str(runs[0]["runId"])


def picture(page: Page, url: str, name: str, *, settle: float) -> None:
    page.goto(url)
    page.wait_for_load_state("networkidle")
    newsletter = page.get_by_role("button", name="Skip")
    if newsletter.count():  # the UI asks once per browser
        newsletter.first.click()
    time.sleep(settle)  # the graph is laid out by a worker after the data is there
    target = Path(sys.argv[1] if len(sys.argv) > 1 else HERE) / f"{name}.png"
    page.screenshot(path=target)
    sys.stderr.write(f"wrote {target}\n")


def main() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "personas_dagster.cli", "dev", "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--project", str(ROOT)],
        cwd=ROOT,
        # A background shell makes its children deaf to Ctrl-C, which is what stops the UI.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_for(url)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
            page = browser.new_page(viewport={"width": 1800, "height": 1000})
            asset = f"{url}/assets/development/destinations/webhook"
            lineage = f"{asset}?view=lineage&lineageScope=upstream&lineageDepth=12"
            picture(page, lineage, "lineage", settle=8)
            picture(page, f"{url}/runs/{last_run(url)}", "run", settle=4)
            browser.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)


if __name__ == "__main__":
    main()
