"""The suite's process: what it says, what it is told, and how its failures are told."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from personas_dagster.errors import PersonasError
from personas_dagster.identity import judging
from personas_dagster.identity.guard import CHECKS, Finding
from personas_dagster.identity.judging import judge, warm

CLEAN = [Finding(check, 0) for check in CHECKS]
ANSWERS = "import sys; sys.stdin.readline(); print('true')"


@pytest.fixture(autouse=True)
def none_waits(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[judging._Suite]]:
    started: list[judging._Suite] = []
    monkeypatch.setattr(judging, "_started", started)
    yield started
    for suite in started:
        suite.close()


def program(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(judging, "_PROGRAM", ("-c", text))


@pytest.mark.slow
def test_the_suite_says_what_the_findings_say() -> None:
    assert judge(1, CLEAN).passed
    for check in CHECKS:
        found = [Finding(f.check, 3 * (f.check == check), ("x:y",)) for f in CLEAN]
        warm()
        verdict = judge(1, found)
        assert not verdict.passed and CHECKS[check] in verdict.reason and "x:y" in verdict.reason
    assert judge(1, [Finding("blob", 3, let_pass=True)]).passed


@pytest.mark.slow
def test_the_suite_ends_when_nobody_asks() -> None:
    suite = judging._Suite.start()
    assert suite.process.communicate() == ("", None)
    suite.complaints.seek(0)
    assert (suite.process.returncode, suite.complaints.read()) == (0, "")
    suite.close()


def test_it_is_told_counts_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOOL_API_KEY", "secret")
    asked = '{"blob": 0, "cycle": 0}'
    program(
        monkeypatch,
        "import os, sys; line = sys.stdin.readline().strip(); "
        f"print('true' if line == {asked!r} and 'secret' not in str(os.environ) else 'false')",
    )
    findings = [Finding("blob", 7, ("email:ann@example.org",), let_pass=True), Finding("cycle", 0)]
    assert judge(1, findings).passed


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("raise ImportError('no such module')", "ended with 1: ImportError: no such module"),
        ("import os; os.kill(os.getpid(), 9)", "ended with -9"),
        ("print('?')", "ended with 0"),
    ],
)
@pytest.mark.parametrize("ahead", [False, True])
def test_no_answer_is_one_error(
    monkeypatch: pytest.MonkeyPatch, text: str, told: str, ahead: bool
) -> None:
    program(monkeypatch, text)
    if ahead:
        warm()
    with pytest.raises(PersonasError, match=f"were not judged.* {told}; mend that") as raised:
        judge(1, CLEAN)
    assert "\n" not in str(raised.value)


def test_one_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    warm()
    with pytest.raises(PersonasError, match="did not start: .*No such file"):
        judge(1, CLEAN)


def test_one_that_gives_no_answer_is_ended(
    monkeypatch: pytest.MonkeyPatch, none_waits: list[judging._Suite]
) -> None:
    program(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr(judging, "_PATIENCE", 0.1)
    warm()
    process = none_waits[0].process
    with pytest.raises(PersonasError, match=r"gave no answer in 0\.1 seconds"):
        judge(1, CLEAN)
    assert process.poll() == -9


def test_one_waits_and_another_takes_its_place(
    monkeypatch: pytest.MonkeyPatch, none_waits: list[judging._Suite]
) -> None:
    program(monkeypatch, ANSWERS)
    warm()
    warm()
    (waiting,) = none_waits
    assert judge(1, CLEAN).passed and not none_waits and waiting.process.poll() == 0
    warm()
    none_waits[0].process.kill()
    none_waits[0].process.wait()
    assert judge(1, CLEAN).passed and not none_waits


def test_a_process_that_ends_takes_it_along(tmp_path: Path) -> None:
    """Also one that ends at once, as commands do."""
    ended = tmp_path / "ended"
    waits = f"import sys; sys.stdin.read(); open({str(ended)!r}, 'w').close()"
    text = (
        "import os, personas_dagster.identity.judging as j; "
        f"j._PROGRAM = ('-c', {waits!r}); j.warm(); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", text], timeout=60, check=True)
    until = time.monotonic() + 30
    while not ended.exists():
        assert time.monotonic() < until, "it waits on, with nobody to ask"
        time.sleep(0.05)


def test_no_folder_for_what_it_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    warm()
    with pytest.raises(PersonasError, match="did not start: .*No such file"):
        judge(1, CLEAN)


@pytest.mark.slow
def test_our_files_hide_no_modules_of_python(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "queue.py").write_text("raise RuntimeError('not the queue')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert judge(1, CLEAN).passed


@pytest.mark.slow
def test_statistics_are_read_when_something_of_them_is_asked_for() -> None:
    program = (
        "import sys; from personas_dagster.identity.suite import load; load(); "
        "print('scipy.stats._stats_py' in sys.modules); "
        "from scipy import stats; print(stats.norm.cdf(0))"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (ended.stdout.split(), ended.returncode) == (["False", "0.5"], 0), ended.stderr
