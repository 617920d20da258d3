"""The Great Expectations suite over the findings' counts, as a program of its own.

Great Expectations takes seconds to import, and holds Python while it does: so it is done in a
process beside the refresh (`judging.py`). It reads one line, `{check: count}`, and answers with
one, whether the suite passed. Identifiers never get here.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from typing import TextIO

from personas_dagster.identity.guard import CHECKS


def load() -> Callable[[Mapping[str, int]], bool]:
    """Import Great Expectations; returns what says whether counts pass: each must be 0."""
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    # Its loggers and progress bars speak to somebody at a notebook.
    logging.getLogger("great_expectations").setLevel(logging.ERROR)
    _leave_out_statistics()
    import great_expectations as gx
    import pandas as pd
    from great_expectations.data_context.types.base import ProgressBarsConfig

    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = ProgressBarsConfig(globally=False)
    batches = (
        context.data_sources.add_pandas("merge_candidates")
        .add_dataframe_asset("findings")
        .add_batch_definition_whole_dataframe("load")
    )

    def passes(counts: Mapping[str, int]) -> bool:
        suite = gx.ExpectationSuite(
            name="merge_guard",
            expectations=[
                gx.expectations.ExpectColumnValuesToBeBetween(
                    column=check, min_value=0, max_value=0, notes=CHECKS[check]
                )
                for check in counts
            ],
        )
        frame = pd.DataFrame({check: [count] for check, count in counts.items()})
        return bool(batches.get_batch({"dataframe": frame}).validate(suite).success)

    return passes


def _leave_out_statistics() -> None:
    """Let `scipy.stats` be read when something of it is asked for: Great Expectations imports it
    for expectations that are not in the suite, which is a quarter of the time its import takes."""
    scipy, spec = importlib.import_module("scipy"), importlib.util.find_spec("scipy.stats")
    if spec is None or spec.loader is None:
        return
    spec.loader = importlib.util.LazyLoader(spec.loader)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    setattr(scipy, "stats", module)  # noqa: B010 - mypy knows of no such attribute


def answer(asked: TextIO, answers: TextIO) -> None:
    """Judge the one line that is asked; nothing where the asker has gone."""
    passes = load()
    passes(dict.fromkeys(CHECKS, 0))  # the first time takes longest, and nobody waits yet
    line = asked.readline()
    if line:
        answers.write(json.dumps(passes(json.loads(line))) + "\n")
        answers.flush()


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    answer(sys.stdin, answers)
    os._exit(0)  # the asker waits for our end, and Python takes its time
