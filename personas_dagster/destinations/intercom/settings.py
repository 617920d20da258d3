"""What an Intercom destination can be told; the table of docs/destinations/intercom.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from personas_dagster.activation.destination import Abilities
from personas_dagster.destinations.settings import Text, ToolSettings, bearer

HOSTS = {
    "us": "https://api.intercom.io",
    "eu": "https://api.eu.intercom.io",
    "au": "https://api.au.intercom.io",
}


class IntercomSettings(ToolSettings):
    """Settings of one workspace."""

    access_token: Annotated[SecretStr, Field(description="Access token of an app.")]
    region: Annotated[Literal["us", "eu", "au"], Field(description="Where the data is.")] = "us"
    api_version: Annotated[Text, Field(description="`Intercom-Version` of each request.")] = "2.10"
    create_attributes: Annotated[
        bool, Field(description="Make a custom attribute that is missing.")
    ] = True
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Cap on requests in any one second.")
    ] = 8

    @property
    def host(self) -> str:
        return HOSTS[self.region]

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Accept": "application/json", "Intercom-Version": self.api_version}

    @property
    def credentials(self) -> Mapping[str, SecretStr]:
        return bearer(self.access_token)

    @property
    def abilities(self) -> Abilities:
        return Abilities(
            kind="event",
            matches_on=("user_id", "email"),
            deletes_by=("user_id", "email"),
            requests_per_second=self.requests_per_second,
            concurrency=self.concurrency,
        )
