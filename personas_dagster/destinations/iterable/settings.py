"""What an Iterable destination can be told; the table of docs/destinations/iterable.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from personas_dagster.activation.destination import Abilities
from personas_dagster.destinations.settings import ToolSettings

HOSTS = {"us": "https://api.iterable.com", "eu": "https://api.eu.iterable.com"}
Project = Literal["hybrid", "user_id", "email"]
# what a project knows people by
MATCHES: dict[Project, tuple[str, ...]] = {
    "hybrid": ("user_id", "email"),
    "user_id": ("user_id",),
    "email": ("email",),
}


class IterableSettings(ToolSettings):
    """Settings of one project."""

    api_key: Annotated[SecretStr, Field(description="Server-side API key.")]
    region: Annotated[Literal["us", "eu"], Field(description="Where the project is.")] = "us"
    project: Annotated[Project, Field(description="What the project identifies users by.")] = (
        "hybrid"
    )
    batch_size: Annotated[int, Field(ge=1, le=1000, description="Messages per batch.")] = 1000
    bulk_users_per_second: Annotated[
        float, Field(gt=0, description="Cap on users/bulkUpdate in any one second.")
    ] = 5
    bulk_events_per_second: Annotated[
        float, Field(gt=0, description="Cap on events/trackBulk in any one second.")
    ] = 10
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Cap on requests in any one second.")
    ] = 500

    @property
    def host(self) -> str:
        return HOSTS[self.region]

    @property
    def credentials(self) -> Mapping[str, SecretStr]:
        return {"Api-Key": self.api_key}

    @property
    def abilities(self) -> Abilities:
        return Abilities(
            kind="event",
            matches_on=MATCHES[self.project],
            forms=("identify", "track"),
            deletes_by=MATCHES[self.project],
            batch_size=self.batch_size,
            max_batch_bytes=3_500_000,
            requests_per_second=self.requests_per_second,
            concurrency=self.concurrency,
        )
