"""The wheel, in an empty environment and another folder: init, check, ingest, refresh."""

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.wheel, pytest.mark.slow]

MESSAGES = [
    {
        "messageId": f"m{n}",
        "type": "track",
        "event": "Order Completed",
        "userId": f"u{n % 3}",
        "properties": {"revenue": 300},
        "timestamp": "2026-02-01T00:00:00Z",
        "receivedAt": f"2026-02-01T00:00:{n:02d}Z",
    }
    for n in range(6)
]


def run(*command: str | Path, cwd: Path) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "DAGSTER_HOME")}
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def personas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The installed command, in an environment that holds nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    (wheel,) = folder.glob("*.whl")
    venv.create(folder / "env", with_pip=True)
    constraints = ROOT / "constraints.txt"
    pip = (folder / "env/bin/python", "-m", "pip", "install", "-q", "-c", constraints, wheel)
    run(*pip, cwd=folder)
    return folder / "env/bin/personas"


def test_a_new_project_runs(personas: Path, tmp_path: Path) -> None:
    run(personas, "init", "shop", cwd=tmp_path)
    shop = tmp_path / "shop"
    run(personas, "check", cwd=shop)
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(m) + "\n" for m in MESSAGES))
    taken = json.loads(run(personas, "ingest", tmp_path / "in.jsonl", cwd=shop))
    assert (taken["accepted"], taken["rejected"]) == (6, 0)
    refreshed = json.loads(run(personas, "refresh", "--as-of", "2026-03-01T00:00Z", cwd=shop))
    assert refreshed["identity"]["profiles"] == 3
    assert refreshed["entered"] == 6  # three repeat buyers, three big spenders


def test_the_wheel_holds_the_package_alone(personas: Path) -> None:
    names = run(
        personas.parent / "python",
        "-c",
        "import importlib.metadata as m;"
        "print({str(f).split('/')[0] for f in m.files('personas-dagster')})",
        cwd=personas.parent,
    )
    assert {part.split("-")[0] for part in eval(names)} - {".."} == {"personas_dagster"}
