"""What SendGrid lists can be told; the table of docs/destinations/sendgrid_lists.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from personas_dagster.destinations.sendgrid.settings import HOSTS
from personas_dagster.destinations.settings import ListSettings, bearer


class SendGridListsSettings(ListSettings):
    """Settings of one account's lists."""

    api_key: Annotated[SecretStr, Field(description="API key with the scope Marketing.")]
    region: Annotated[Literal["global", "eu"], Field(description="Where the account is.")] = (
        "global"
    )
    batch_size: Annotated[int, Field(ge=1, le=30_000, description="People per batch.")] = 1_000
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Cap on requests in any one second.")
    ] = 100
    upserts_per_second: Annotated[
        float, Field(gt=0, description="Cap on upserts of contacts in any one second.")
    ] = 1.5

    @property
    def host(self) -> str:
        return HOSTS[self.region]

    @property
    def credentials(self) -> Mapping[str, SecretStr]:
        return bearer(self.api_key)
