"""Every error that the platform raises on purpose, in one tree.

PersonasError
├── DefinitionError          a definition file that does not hold; carries `problems`
├── QueryError               a query that does not parse or type-check
├── InputError               a file of messages that cannot be read at all
├── NotFound                 what was named is not there
├── Busy                     somebody else holds the lease; wait or stop them
├── StoreError
│   ├── StateUnavailable     the state database is locked or out of reach
│   └── LakeUnavailable      a table of the lake cannot be read or written
├── CheckFailed              a check that guards a merge refused a load
├── WarehouseError           a SQL trait's query or result breaks a rule
└── DeliveryError            whether to try again is a property of the error
    ├── Rejected             the tool refuses these rows for good
    ├── Throttled            try again after `retry_after` seconds
    ├── Unavailable          try again later
    ├── NeedsSetup           something must exist at the tool first; a person must make it
    └── Unauthorized         the credentials do not work; a person must act

Facts are attributes; the message names what was found, and ends with what to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


class PersonasError(Exception):
    """Base of the tree. `str(error)` is one line that a person can act on."""


class NotFound(PersonasError):
    """What was named is not there: a profile, an identifier."""


@dataclass(frozen=True, order=True)
class Problem:
    """One thing wrong in one place of a definition file; lines and columns start at 1."""

    path: Path
    line: int
    column: int
    message: str
    field: str = ""

    def __str__(self) -> str:
        field = f"{self.field}: " if self.field else ""
        return f"{self.path}:{self.line}:{self.column}: {field}{self.message}"


class DefinitionError(PersonasError):
    """One or more definition files do not hold. `problems` lists every one, in file order."""

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = sorted(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class QueryError(PersonasError):
    """A query that does not parse or type-check.

    `line` and `column` start at 1 and count inside the query's own text.
    """

    def __init__(
        self,
        message: str,
        *,
        line: int = 1,
        column: int = 1,
        found: str | None = None,
        expected: str | None = None,
        suggestion: str | None = None,
    ) -> None:
        self.line, self.column = line, column
        self.found, self.expected, self.suggestion = found, expected, suggestion
        self.reason = message
        hint = f"; did you mean `{suggestion}`?" if suggestion else ""
        super().__init__(f"{line}:{column}: {message}{hint}")


class InputError(PersonasError):
    """A path of messages that cannot be read at all; single bad messages are never errors."""


class Busy(PersonasError):
    """A lease is held by somebody else."""


class StoreError(PersonasError):
    """A store did not answer. Never to be read as «nothing there»."""


class StateUnavailable(StoreError):
    """The state database is locked or out of reach."""


class LakeUnavailable(StoreError):
    """A table of the lake cannot be read or written."""


class CheckFailed(PersonasError):
    """A load whose merge candidates did not pass their checks."""


class WarehouseError(PersonasError):
    """A SQL trait's query or result breaks a rule; nothing of it was stored."""


class DeliveryError(PersonasError):
    """A request to a destination that was not confirmed."""


class Rejected(DeliveryError):
    """The tool refuses these rows for good; they are not tried again until the value changes."""


class Throttled(DeliveryError):
    """The tool asks to slow down. `retry_after` is in seconds, or None when it does not say."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class Unavailable(DeliveryError):
    """The tool did not answer, or answered that it cannot now."""


class NeedsSetup(DeliveryError):
    """Something must exist at the tool first and does not: a list, a column, a permission.

    Trying again is pointless until a person made it; the message says what to make.
    """


class Unauthorized(DeliveryError):
    """The tool does not accept the credentials."""
