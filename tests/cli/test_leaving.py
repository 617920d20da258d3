"""A command's process ends at once, and leaves nothing undone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.place import COMMAND

# What others ask for at the process's end, in a thread that it waits for as well.
SAID = """
import sys
from personas_dagster.cli import main
import atexit, threading, time
class Late:
    def __del__(self):
        print("taken down")
late = Late()
atexit.register(lambda: print("asked for"))
threading.Thread(target=lambda: (time.sleep(0.2), print("waited for"))).start()
sys.argv = ["personas", *sys.argv[1:]]
main.main()
"""


@pytest.mark.parametrize(("arguments", "code"), [(["--version"], 0), (["no-such-command"], 2)])
def test_ends_at_once(arguments: list[str], code: int) -> None:
    ended = subprocess.run([sys.executable, "-c", SAID, *arguments], capture_output=True, text=True)
    assert ended.returncode == code
    assert ended.stdout.splitlines()[-2:] == ["waited for", "asked for"]
    assert ("no-such-command" in ended.stderr) == (code == 2)


def test_without_a_command_python_ends_as_ever() -> None:
    said = "import personas_dagster.cli.main; raise SystemExit(3)"
    assert subprocess.run([sys.executable, "-c", said]).returncode == 3


def test_whoever_read_the_output_has_gone() -> None:
    done = subprocess.run(
        f"{COMMAND} --help | head -c 1; exit ${{PIPESTATUS[0]}}",
        shell=True, executable="/bin/bash", capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "U", "")
