"""What a webhook can be told. The table in docs/destinations/webhook.md is made of these."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from personas_dagster.activation.destination import Abilities
from personas_dagster.destinations.http import MASK

_TAKEN = frozenset({"content-type", "content-length", "host", "x-signature"})


class WebhookSettings(BaseModel):
    """Settings of one webhook."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    url: Annotated[SecretStr, Field(description="Where to send; may hold a secret.")]
    method: Annotated[
        Literal["POST", "PUT", "PATCH"], Field(description="The method of each request.")
    ] = "POST"
    headers: Annotated[
        dict[str, SecretStr], Field(description="More headers, such as `Authorization`.")
    ] = {}
    secret: Annotated[
        SecretStr | None, Field(description="Shared secret that signs each body; see below.")
    ] = None
    batch_size: Annotated[
        int,
        Field(ge=1, le=10_000, description="Messages per request; 1 sends each by itself."),
    ] = 1
    max_batch_bytes: Annotated[
        int, Field(ge=1_000, description="Bytes per request, at most (one message may be larger).")
    ] = 4_000_000
    timeout: Annotated[float, Field(gt=0, le=300, description="Seconds to wait for an answer.")] = (
        10.0
    )
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Cap in any one second; none by default.")
    ] = None
    concurrency: Annotated[int, Field(ge=1, le=256, description="Requests in flight at once.")] = 8

    @field_validator("url")
    @classmethod
    def _is_http(cls, url: SecretStr) -> SecretStr:
        parts = urlsplit(url.get_secret_value())
        if parts.scheme not in ("https", "http") or not parts.hostname:
            raise ValueError("expected an address such as https://example.com/hook")
        if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "localhost", "::1"):
            raise ValueError("expected https:// (http:// is for this machine only)")
        return url

    @field_validator("headers")
    @classmethod
    def _can_be_sent(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, value in headers.items():
            if name.lower() in _TAKEN:
                raise ValueError(f"header {name} is set by the platform; remove it")
            text = value.get_secret_value()
            if not (name.isascii() and text.isascii() and text.isprintable()):
                raise ValueError(f"header {name} must be printable ASCII, in name and value")
        return headers

    @property
    def shown_url(self) -> str:
        """The address as people may see it: scheme and host."""
        parts = urlsplit(self.url.get_secret_value())
        port = f":{parts.port}" if parts.port else ""
        return f"{parts.scheme}://{parts.hostname}{port}/{MASK}"

    @property
    def secrets(self) -> list[SecretStr]:
        """Everything that must not be shown."""
        return [self.url, *self.headers.values(), *([self.secret] if self.secret else [])]

    @property
    def abilities(self) -> Abilities:
        matches_on = ("user_id", "email", "phone", "ios.idfa", "android.idfa")
        return Abilities(
            kind="event",
            matches_on=matches_on,
            deletes_by=(*matches_on, "anonymous_id"),
            deletes_at_once=self.batch_size,
            takes_anonymous=True,
            batch_size=self.batch_size,
            max_batch_bytes=self.max_batch_bytes if self.batch_size > 1 else None,
            requests_per_second=self.requests_per_second,
            concurrency=self.concurrency,
        )
