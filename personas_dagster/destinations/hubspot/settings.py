"""What a HubSpot destination can be told; the table of docs/destinations/hubspot.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, SecretStr

from personas_dagster.activation.destination import Abilities
from personas_dagster.destinations.settings import Text, ToolSettings, bearer

HOST = "https://api.hubapi.com"


class HubSpotSettings(ToolSettings):
    """Settings of one account."""

    default_host = HOST

    access_token: Annotated[SecretStr, Field(description="Token of a private app.")]
    create_properties: Annotated[bool, Field(description="Make a property that is missing.")] = (
        False
    )
    property_group: Annotated[Text, Field(description="Group of contact properties made.")] = (
        "contactinformation"
    )
    company_property: Annotated[
        str | None, Field(description="Unique property of companies that holds the account's id.")
    ] = None
    batch_size: Annotated[int, Field(ge=1, le=100, description="Objects per request.")] = 100
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Cap on requests in any one second.")
    ] = 10

    @property
    def credentials(self) -> Mapping[str, SecretStr]:
        return bearer(self.access_token)

    @property
    def abilities(self) -> Abilities:
        return Abilities(
            kind="event",
            matches_on=("email",),
            deletes_by=("email",),
            forms=("identify", "group") if self.company_property else ("identify",),
            batch_size=self.batch_size,
            requests_per_second=self.requests_per_second,
            concurrency=self.concurrency,
        )
