"""The types of single fields in definition files, and the model that all files share.

What belongs here: what one value may be. What a kind of file may say is `models`.
"""

from __future__ import annotations

import datetime as dt
import os
import re
from itertools import islice, pairwise
from pathlib import Path
from typing import Annotated, Literal

from cronsim import CronSim, CronSimError
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    SecretStr,
    model_validator,
)

from personas_dagster.errors import PersonasError

_KEY = re.compile(r"^[a-z][a-z0-9_]{0,99}$")
_DURATION = re.compile(r"^\s*(\d+)\s*(second|minute|hour|day)s?\s*$")
_CRON_FIELDS = 5
# Such as L for the last day of a month.
_NOT_IN_DAGSTER = re.compile(r"[#@]|(?<![a-z])l(?![a-z])|lw", re.IGNORECASE)
_PASSWORD = re.compile(r"://[^/@\s:]*:[^/@\s]+@")


def _key(value: str) -> str:
    if not _KEY.match(value):
        raise ValueError("expected snake_case: a small letter, then letters, digits and _")
    return value


PASSWORD_FOUND = (
    "found a password in the file, expected none; put the whole URL into the environment and "
    "write {env: NAME} here"
)


def has_password(text: str) -> bool:
    """Whether a URL with a password stands in a text."""
    return bool(_PASSWORD.search(text))


def _no_password(value: object) -> object:
    if isinstance(value, str) and has_password(value):
        raise ValueError(PASSWORD_FOUND)
    return value


def _duration(value: object) -> object:
    if isinstance(value, str):
        found = _DURATION.match(value)
        if not found:
            raise ValueError("expected a duration such as `30 days` or `12 hours`")
        return dt.timedelta(**{f"{found.group(2)}s": int(found.group(1))})
    return value


def _cron(text: str) -> str:
    try:
        CronSim(text, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    except CronSimError:
        text = ""
    if len(text.split()) != _CRON_FIELDS or _NOT_IN_DAGSTER.search(text):
        raise ValueError("expected a cron expression of five fields, such as `0 * * * *`")
    return text


def _hourly(text: str) -> str:
    """At most once an hour, over the ticks of a week."""
    ticks = list(islice(CronSim(text, dt.datetime(2026, 1, 1, tzinfo=dt.UTC)), 24 * 7))
    if any(after - before < dt.timedelta(hours=1) for before, after in pairwise(ticks)):
        raise ValueError("expected at most once an hour, such as `0 * * * *`")
    return text


Key = Annotated[str, AfterValidator(_key)]
Cron = Annotated[str, AfterValidator(_cron)]
AtMostHourly = Annotated[Cron, AfterValidator(_hourly)]
Duration = Annotated[dt.timedelta, BeforeValidator(_duration)]
Collection = Literal["users", "accounts"]


class Model(BaseModel):
    """Unknown fields are errors: a typo must not become a default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Secret(Model):
    """Where a value is to be read from when it is needed: the environment, or a file."""

    env: str | None = None
    file: Path | None = None

    @model_validator(mode="after")
    def _one(self) -> Secret:
        if (self.env is None) == (self.file is None):
            raise ValueError("expected exactly one of `env` and `file`")
        return self

    def read(self) -> SecretStr:
        """The value; a PersonasError that names the variable or file when there is none."""
        if self.file is not None:
            try:
                return SecretStr(self.file.read_text(encoding="utf-8").strip())
            except OSError as error:
                raise PersonasError(
                    f"secret file {self.file} cannot be read: {error.strerror}"
                ) from error
        value = os.environ.get(self.env or "")
        if not value:
            raise PersonasError(f"environment variable {self.env} is not set; export it first")
        return SecretStr(value)


Text = Annotated[Secret | str, BeforeValidator(_no_password)]


def resolve(value: Text) -> str:
    """A text as written, or as its secret says."""
    return value if isinstance(value, str) else value.read().get_secret_value()
