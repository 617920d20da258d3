"""What a Customer.io destination can be told; the table of docs/destinations/customerio.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from personas_dagster.activation.destination import Abilities
from personas_dagster.destinations.settings import Text, ToolSettings, basic

HOSTS = {"us": "https://track.customer.io", "eu": "https://track-eu.customer.io"}


class CustomerIoSettings(ToolSettings):
    """Settings of one workspace."""

    site_id: Annotated[SecretStr, Field(description="Site id of the Track API.")]
    api_key: Annotated[SecretStr, Field(description="API key of the Track API.")]
    region: Annotated[Literal["us", "eu"], Field(description="Where the account is.")] = "us"
    batch_size: Annotated[int, Field(ge=1, le=1000, description="Messages per request.")] = 100
    object_type: Annotated[Text, Field(description="Object type id of accounts.")] = "1"
    event_ids: Annotated[
        bool, Field(description="Give events an id by which a repeated one is dropped.")
    ] = True
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Cap on requests in any one second.")
    ] = 30

    @property
    def host(self) -> str:
        return HOSTS[self.region]

    @property
    def credentials(self) -> Mapping[str, SecretStr]:
        return basic(self.site_id.get_secret_value(), self.api_key.get_secret_value())

    @property
    def abilities(self) -> Abilities:
        return Abilities(
            kind="event",
            matches_on=("user_id", "email"),
            deletes_by=("user_id", "email"),
            deletes_at_once=self.batch_size,
            batch_size=self.batch_size,
            max_batch_bytes=450_000,
            requests_per_second=self.requests_per_second,
            concurrency=self.concurrency,
        )
