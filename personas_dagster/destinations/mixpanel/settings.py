"""What a Mixpanel destination can be told; the table of docs/destinations/mixpanel.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, model_validator

from personas_dagster.activation.destination import Abilities
from personas_dagster.destinations.settings import Text, ToolSettings, basic

HOSTS = {
    "us": "https://api.mixpanel.com",
    "eu": "https://api-eu.mixpanel.com",
    "in": "https://api-in.mixpanel.com",
}


class MixpanelSettings(ToolSettings):
    """Settings of one project."""

    token: Annotated[SecretStr, Field(description="Project token.")]
    service_account: Annotated[str | None, Field(description="User name of a service account.")] = (
        None
    )
    service_secret: Annotated[
        SecretStr | None, Field(description="The service account's secret.")
    ] = None
    project_id: Annotated[
        str | None, Field(description="Project id; goes with a service account.")
    ] = None
    region: Annotated[Literal["us", "eu", "in"], Field(description="Where the project is.")] = "us"
    group_key: Annotated[Text, Field(description="Group key that accounts are kept under.")] = (
        "company"
    )
    alias_by: Annotated[
        Literal["create_alias", "merge"], Field(description="The event that says an alias.")
    ] = "create_alias"
    batch_size: Annotated[int, Field(ge=1, le=2000, description="Messages per request.")] = 2000

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        parts = (self.service_account, self.service_secret, self.project_id)
        if any(parts) and not all(parts):
            raise ValueError("service_account, service_secret and project_id go together")
        return self

    @property
    def host(self) -> str:
        return HOSTS[self.region]

    @property
    def credentials(self) -> Mapping[str, SecretStr]:
        if self.service_account and self.service_secret:
            return basic(self.service_account, self.service_secret.get_secret_value())
        return basic(self.token.get_secret_value(), "")

    @property
    def body_key(self) -> SecretStr:
        return self.token

    @property
    def abilities(self) -> Abilities:
        return Abilities(
            kind="event",
            matches_on=("user_id",),
            takes_anonymous=True,
            deletes_by=("user_id", "anonymous_id"),
            deletes_at_once=self.batch_size,
            forms=("identify", "track", "group", "alias"),
            knows_alias=True,
            batch_size=self.batch_size,
            max_batch_bytes=9_000_000,
            requests_per_second=self.requests_per_second,
            concurrency=self.concurrency,
        )
