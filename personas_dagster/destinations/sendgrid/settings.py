"""What a SendGrid destination can be told; the table of docs/destinations/sendgrid.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from personas_dagster.activation.destination import Abilities
from personas_dagster.destinations.settings import ToolSettings, bearer

HOSTS = {"global": "https://api.sendgrid.com", "eu": "https://api.eu.sendgrid.com"}


class SendGridSettings(ToolSettings):
    """Settings of one account."""

    api_key: Annotated[SecretStr, Field(description="API key with the scope Marketing.")]
    region: Annotated[Literal["global", "eu"], Field(description="Where the account is.")] = (
        "global"
    )
    create_fields: Annotated[bool, Field(description="Make a custom field that is missing.")] = True
    batch_size: Annotated[int, Field(ge=1, le=30_000, description="Contacts per request.")] = 5_000
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

    @property
    def abilities(self) -> Abilities:
        return Abilities(
            kind="event",
            matches_on=("email",),
            deletes_by=("email",),
            deletes_at_once=100,
            forms=("identify",),
            batch_size=self.batch_size,
            max_batch_bytes=5_000_000,
            requests_per_second=self.requests_per_second,
            concurrency=self.concurrency,
        )
