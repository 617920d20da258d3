"""What HubSpot lists can be told; the table of docs/destinations/hubspot_lists.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field, SecretStr

from personas_dagster.destinations.hubspot.settings import HOST
from personas_dagster.destinations.settings import ListSettings, bearer


class HubSpotListsSettings(ListSettings):
    """Settings of one account's lists."""

    default_host = HOST

    access_token: Annotated[SecretStr, Field(description="Token of a private app.")]
    batch_size: Annotated[int, Field(ge=1, le=100, description="People per request.")] = 100
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Cap on requests in any one second.")
    ] = 10

    @property
    def credentials(self) -> Mapping[str, SecretStr]:
        return bearer(self.access_token)
