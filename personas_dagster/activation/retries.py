"""How often and how long to try again. Whether to is a property of the error."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from tenacity import (
    AsyncRetrying,
    RetryCallState,
    retry_if_exception,
    stop_after_attempt,
    wait_random_exponential,
)

from personas_dagster.activation.pace import SharedPace
from personas_dagster.errors import Throttled, Unavailable

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True)
class Retries:
    """Up to `again` tries after the first, exponential back-off with full jitter between them.

    A `Retry-After` is obeyed, by all batches of the destination, up to `patience` seconds; when
    a tool asks for more, the rows are left to a later sync. `sleep` is there for tests.
    """

    again: int = 5
    initial: float = 0.5
    maximum: float = 60.0
    patience: float = 900.0
    sleep: Sleep = asyncio.sleep

    def attempts(self, pace: SharedPace) -> AsyncRetrying:
        """The tries of one batch: `async for attempt in ...: with attempt: ...`."""
        backoff = wait_random_exponential(multiplier=self.initial, max=self.maximum)
        told = False

        def wait(state: RetryCallState) -> float:
            nonlocal told
            asked = _asked(state.outcome.exception() if state.outcome else None)
            told = asked is not None
            return backoff(state) if asked is None else asked

        async def sleep(seconds: float) -> None:
            await (pace.hold(seconds) if told else self.sleep(seconds))

        return AsyncRetrying(
            stop=stop_after_attempt(1 + self.again),
            wait=wait,
            retry=retry_if_exception(self._is_worth_it),
            sleep=sleep,
            reraise=True,
        )

    def _is_worth_it(self, error: BaseException) -> bool:
        asked = _asked(error)
        return isinstance(error, Throttled | Unavailable) and (asked or 0.0) <= self.patience


def _asked(error: BaseException | None) -> float | None:
    return error.retry_after if isinstance(error, Throttled) else None
