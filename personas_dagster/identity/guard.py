"""The checks that guard merges: what SQL found, and what became of it.

SQL (`findings.py`) reduces the candidates and the part of the graph that they touch to one small
row of counts and a list of offending identifiers; a Great Expectations suite (`suite.py`) says
what each count may be.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

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
