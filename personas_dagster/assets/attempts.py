"""Which failures are worth another attempt: a run that only a person can mend is not retried."""

import dagster as dg

from personas_dagster.errors import PersonasError
from personas_dagster.resources.space import Context

_MAX_RETRIES = "dagster/max_retries"
_BUSY_SECONDS = 10
_BUSY_TIMES = 360


def attempt(context: Context) -> int:
    """Which attempt of its run this is; the first is 1."""
    return int(context.run.tags.get("dagster/retry_number", "0")) + 1


def never_again(context: Context) -> None:
    """The daemon does not start this run again, however it ends."""
    context.instance.add_run_tags(context.run.run_id, {_MAX_RETRIES: "0"})


def for_good(context: Context, error: PersonasError) -> dg.Failure:
    """To be raised for an error that trying again does not mend."""
    never_again(context)
    return dg.Failure(str(error), allow_retries=False)


def when_free() -> dg.RetryRequested:
    """To be raised when somebody else is at it: the operation waits, and tries again."""
    return dg.RetryRequested(max_retries=_BUSY_TIMES, seconds_to_wait=_BUSY_SECONDS)
