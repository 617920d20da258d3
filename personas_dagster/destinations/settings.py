"""What every tool over HTTP can be told: its address, its patience and its pace.

What belongs here: settings that all tools share, and the checks of them. What does not: a tool's
own settings, which its folder's `settings.py` adds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, ClassVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from personas_dagster.activation.destination import Abilities

_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

Text = Annotated[str, Field(min_length=1)]


class ToolSettings(BaseModel, ABC):
    """Settings of one account at a tool. `host` is where it is when `base_url` does not say."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    base_url: Annotated[
        str | None, Field(description="Another address to send to, such as a simulator's.")
    ] = None
    timeout: Annotated[float, Field(gt=0, le=300, description="Seconds to wait for an answer.")] = (
        10.0
    )
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Cap on requests in any one second.")
    ] = None
    concurrency: Annotated[int, Field(ge=1, le=256, description="Requests in flight at once.")] = 4

    default_host: ClassVar[str] = ""

    @field_validator("base_url")
    @classmethod
    def _is_safe(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError("expected an address such as https://api.example.com")
        if parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            raise ValueError("expected https:// (http:// is for this machine only)")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("expected scheme, host and path only; credentials have own settings")
        try:
            _ = parts.port
        except ValueError:
            raise ValueError("expected a number from 0 to 65535 as the port") from None
        return url.rstrip("/")

    @property
    def host(self) -> str:
        """The tool's own address; settings that choose a region override this."""
        return self.default_host

    @property
    def url(self) -> str:
        """Where requests go: scheme, host, and what stands before each path."""
        return self.base_url or self.host

    @property
    def headers(self) -> Mapping[str, str]:
        """Headers of every request that are no secret."""
        return {}

    @property
    def credentials(self) -> Mapping[str, SecretStr]:
        """Headers of every request that are secret."""
        return {}

    @property
    def body_key(self) -> SecretStr | None:
        """The key that bodies carry, for tools that want it there."""
        return None

    @property
    def secrets(self) -> list[SecretStr]:
        """Everything that must not be shown."""
        own = [getattr(self, name) for name in type(self).model_fields]
        return [*(one for one in own if isinstance(one, SecretStr)), *self.credentials.values()]

    @property
    @abstractmethod
    def abilities(self) -> Abilities:
        """What the tool takes, with these settings."""


class ListSettings(ToolSettings):
    """Settings of a list destination."""

    lists: Annotated[
        dict[str, str], Field(description="Audience to list id, for lists that are there.")
    ] = {}
    list_prefix: Annotated[str, Field(description="Stands before an audience's key.")] = ""
    create_lists: Annotated[bool, Field(description="False: lists are never made.")] = True
    interval_hours: Annotated[
        float, Field(ge=1, description="Hours between two syncs, at least.")
    ] = 1

    batch_size: Annotated[int, Field(ge=1, description="People per request.")] = 1_000

    @property
    def matches_on(self) -> tuple[str, ...]:
        """Identifier types that the tool knows people by, best first."""
        return ("email",)

    @property
    def interval(self) -> timedelta:
        return timedelta(hours=self.interval_hours)

    @property
    def abilities(self) -> Abilities:
        return Abilities(
            kind="list",
            accepts=("audience",),
            forms=("add", "remove"),
            matches_on=self.matches_on,
            batch_size=self.batch_size,
            requests_per_second=self.requests_per_second,
            concurrency=self.concurrency,
            interval=self.interval,
        )


def bearer(key: SecretStr) -> dict[str, SecretStr]:
    """`Authorization: Bearer KEY`."""
    return {"Authorization": SecretStr(f"Bearer {key.get_secret_value()}")}


def basic(user: str, password: str) -> dict[str, SecretStr]:
    """`Authorization: Basic ...` of a user and a password."""
    token = b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": SecretStr(f"Basic {token}")}
