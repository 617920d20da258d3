"""What an Amplitude destination can be told; the table of docs/destinations/amplitude.md."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, SecretStr

from personas_dagster.activation.destination import Abilities
from personas_dagster.destinations.settings import Text, ToolSettings

HOSTS = {"us": "https://api2.amplitude.com", "eu": "https://api.eu.amplitude.com"}


class AmplitudeSettings(ToolSettings):
    """Settings of one project."""

    api_key: Annotated[SecretStr, Field(description="The project's API key.")]
    region: Annotated[Literal["us", "eu"], Field(description="Where the project is.")] = "us"
    group_type: Annotated[Text, Field(description="Group type that accounts are kept under.")] = (
        "company"
    )
    min_id_length: Annotated[
        int | None, Field(ge=1, description="Shortest user id that is taken.")
    ] = None
    batch_size: Annotated[int, Field(ge=1, le=2000, description="Messages per request.")] = 500
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
    def abilities(self) -> Abilities:
        return Abilities(
            kind="event",
            matches_on=("user_id",),
            takes_anonymous=True,
            batch_size=self.batch_size,
            max_batch_bytes=900_000,
            requests_per_second=self.requests_per_second,
            concurrency=self.concurrency,
        )
