"""The checks that guard merges: what SQL found, judged by a Great Expectations suite.

SQL (`findings.py`) reduces the candidates and the part of the graph that they touch to one small
row of counts and a list of offending identifiers; the suite says what each count may be. Great
Expectations takes seconds to import, so it is imported only when there is something to judge.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

CHECKS: Mapping[str, str] = {
    "above_limit": "No profile holds more identifiers of a type than its limit allows.",
    "shared_identifier": "No identifier is on two profiles.",
    "cycle": "No profile is its own ancestor.",
    "missing_profile": "Every message's profile exists.",
    "blob": "No profile grows past `max_profile_identifiers` in one load.",
    "merge_share": "The share of merged profiles is at most 5 times the median of earlier loads.",
    "bad_value": "No identifier is null, empty or blocked.",
}


@dataclass(frozen=True)
class Finding:
    """One check's outcome: how many offenders, which (the first 20), and what was observed."""

    check: str
    offending: int
    sample: tuple[str, ...] = ()
    observed: str = ""
    let_pass: bool = False  # a person recorded that these may pass once

    @property
    def passed(self) -> bool:
        return self.offending == 0 or self.let_pass


@dataclass(frozen=True)
class Verdict:
    """All findings for one load; `passed` is what the suite said."""

    load_id: int
    passed: bool
    findings: tuple[Finding, ...]

    @property
    def notes(self) -> dict[str, list[str]]:
        """What is kept with the load: the checks that failed, and those that were let pass."""
        return {
            "failed_checks": [f.check for f in self.findings if not f.passed],
            "let_pass": [f.check for f in self.findings if f.let_pass],
        }

    @property
    def reason(self) -> str:
        """One line that names the rules that failed and their offenders."""
        return "; ".join(
            f"{CHECKS[f.check]} Found {f.offending}"
            + (f" ({', '.join(f.sample)})" if f.sample else "")
            + (f", {f.observed}" if f.observed else "")
            for f in self.findings
            if not f.passed
        )


# What guards the shape of the graph is never let pass: such candidates would break it for good.
MAY_PASS = ("above_limit", "blob", "merge_share")


def excused(findings: Sequence[Finding], checks: Collection[str]) -> tuple[Finding, ...]:
    """The findings, with those of `checks` let pass."""
    return tuple(
        replace(one, let_pass=True) if one.offending and one.check in checks else one
        for one in findings
    )


def warm() -> None:
    """Begin to import Great Expectations, beside work that leaves the interpreter free."""
    threading.Thread(target=_warm, name="great_expectations").start()


def _warm() -> None:
    with suppress(ImportError):  # `judge` meets it too, and tells it
        _great_expectations()


def _great_expectations() -> Any:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    # Its loggers and progress bars speak to somebody at a notebook.
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    import great_expectations

    return great_expectations


def judge(load_id: int, findings: Sequence[Finding]) -> Verdict:
    """Run the suite over the findings' counts: every count must be 0."""
    gx = _great_expectations()
    import pandas as pd
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    frame = pd.DataFrame({f.check: [0 if f.let_pass else f.offending] for f in findings})
    batch = (
        context.data_sources.add_pandas("merge_candidates")
        .add_dataframe_asset("findings")
        .add_batch_definition_whole_dataframe("load")
        .get_batch({"dataframe": frame})
    )
    suite = gx.ExpectationSuite(
        name="merge_guard",
        expectations=[
            gx.expectations.ExpectColumnValuesToBeBetween(
                column=finding.check, min_value=0, max_value=0, notes=CHECKS[finding.check]
            )
            for finding in findings
        ],
    )
    result = batch.validate(suite)
    return Verdict(load_id, bool(result.success), tuple(findings))
