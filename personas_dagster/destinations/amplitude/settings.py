"""What an Amplitude destination can be told; the table of docs/destinations/amplitude.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from personas_dagster.activation.destination import Abilities
from personas_dagster.destinations.settings import Text, ToolSettings, basic

HOSTS = {"us": "https://api2.amplitude.com", "eu": "https://api.eu.amplitude.com"}
PRIVACY_HOSTS = {"us": "https://amplitude.com", "eu": "https://analytics.eu.amplitude.com"}


class AmplitudeSettings(ToolSettings):
    """Settings of one project."""

    api_key: Annotated[SecretStr, Field(description="The project's API key.")]
    region: Annotated[Literal["us", "eu"], Field(description="Where the project is.")] = "us"
    secret_key: Annotated[
        SecretStr | None,
        Field(description="The project's secret key, by which people are deleted."),
    ] = None
    group_type: Annotated[Text, Field(description="Group type that accounts are kept under.")] = (
        "company"
    )
    min_id_length: Annotated[
        int | None, Field(ge=1, description="Shortest user id that is taken.")
    ] = None
    batch_size: Annotated[int, Field(ge=1, le=2000, description="Messages per request.")] = 500
    deletion_batch_size: Annotated[
        int, Field(ge=1, description="People per request for deletion.")
    ] = 100
    throttle_pause: Annotated[
        float, Field(ge=0, description="Seconds to wait after 429, which names no time.")
    ] = 30

    @property
    def host(self) -> str:
        return HOSTS[self.region]

    @property
    def body_key(self) -> SecretStr:
        return self.api_key

    @property
    def privacy_url(self) -> str:
        """Where deletions are asked for: not where data goes."""
        return self.base_url or PRIVACY_HOSTS[self.region]

    @property
    def privacy_credentials(self) -> Mapping[str, SecretStr]:
        """Headers of a deletion that are secret."""
        if self.secret_key is None:
            return {}
        return basic(self.api_key.get_secret_value(), self.secret_key.get_secret_value())

    @property
    def secrets(self) -> list[SecretStr]:
        return [*super().secrets, *self.privacy_credentials.values()]

    @property
    def abilities(self) -> Abilities:
        return Abilities(
            kind="event",
            matches_on=("user_id",),
            takes_anonymous=True,
            deletes_by=("user_id",) if self.secret_key else (),
            deletes_at_once=self.deletion_batch_size,
            batch_size=self.batch_size,
            max_batch_bytes=900_000,
            requests_per_second=self.requests_per_second,
            concurrency=self.concurrency,
        )
