"""Findings are judged by the suite, in a process of its own that is started ahead of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from personas_dagster.errors import PersonasError
from personas_dagster.identity.guard import Finding, Verdict

# Our path comes after its own: a file in some folder of ours hides no module of Python's.
_PROGRAM = (
    "-P",
    "-c",
    "import json, sys; sys.path += json.loads(sys.argv[1]); "
    "from personas_dagster.identity.suite import main; main()",
)
_PATIENCE = 600  # seconds
# What it may see of our environment, which can hold secrets.
_PASSED = (
    "PATH", "HOME", "TMPDIR", "TEMP", "TMP", "LANG", "LC_ALL", "LC_CTYPE", "TZ",
    "PYTHONHOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "USERPROFILE",
)  # fmt: skip


@dataclass(frozen=True)
class _Suite:
    """The suite's process, which ends when it was asked once or when we end."""

    process: subprocess.Popen[str]
    complaints: IO[str]

    @classmethod
    def start(cls) -> _Suite:
        """PersonasError where the system does not start it."""
        path = json.dumps([str(Path(one).absolute()) for one in sys.path])
        with ExitStack() as opened:
            try:
                complaints = tempfile.TemporaryFile("w+", errors="replace")
                opened.enter_context(complaints)
                process = subprocess.Popen(
                    [sys.executable or "python3", *_PROGRAM, path],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=complaints,
                    text=True,
                    env={name: os.environ[name] for name in _PASSED if name in os.environ},
                )
            except OSError as error:
                raise _not_judged(f"did not start: {error}") from error
            opened.pop_all()
        return cls(process, complaints)

    def ask(self, counts: Mapping[str, int]) -> bool:
        """PersonasError where no answer comes."""
        with self.complaints, self.process:
            try:
                told, _ = self.process.communicate(json.dumps(counts) + "\n", timeout=_PATIENCE)
                passed = json.loads(told)
            except (OSError, ValueError, subprocess.TimeoutExpired) as error:
                raise _not_judged(self._end(error)) from error
            finally:
                self.process.kill()
        return passed is True

    def close(self) -> None:
        self.process.kill()
        with self.complaints, self.process:
            pass

    def _end(self, error: Exception) -> str:
        if isinstance(error, subprocess.TimeoutExpired):
            return f"gave no answer in {_PATIENCE} seconds"
        self.complaints.seek(0)
        lines = [line.strip() for line in self.complaints if line.strip()]
        told = f": {lines[-1]}" if lines else ""
        return f"ended with {self.process.wait()}{told}"


def _not_judged(why: str) -> PersonasError:
    return PersonasError(
        "the checks of the merge candidates were not judged: the process that runs Great "
        f"Expectations {why}; mend that and refresh again"
    )


_started: list[_Suite] = []


def warm() -> None:
    """Start the suite's process, so that it is ready when there is something to judge."""
    with suppress(PersonasError):  # `judge` meets it too, and tells it
        _started.append(_take() or _Suite.start())


def judge(load_id: int, findings: Sequence[Finding]) -> Verdict:
    """Run the suite over the findings' counts: every count must be 0."""
    counts = {one.check: 0 if one.let_pass else one.offending for one in findings}
    suite = _take() or _Suite.start()
    return Verdict(load_id, suite.ask(counts), tuple(findings))


def _take() -> _Suite | None:
    """The process that was started and still waits; None if there is none."""
    while True:
        try:
            suite = _started.pop()
        except IndexError:
            return None
        if suite.process.poll() is None:
            return suite
        suite.close()
