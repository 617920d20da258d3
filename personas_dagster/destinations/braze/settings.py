"""What a Braze destination can be told; the table of docs/destinations/braze.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, SecretStr

from personas_dagster.activation.destination import Abilities
from personas_dagster.destinations.settings import ToolSettings, bearer

# instance -> REST host, as the vendor lists them
HOSTS = {
    **{f"US-{n:02}": f"https://rest.iad-{n:02}.braze.com" for n in range(1, 9)},
    **{f"US-{n}": f"https://rest.us-{n}.braze.com" for n in ("09", "10")},
    **{f"EU-{n:02}": f"https://rest.fra-{n:02}.braze.eu" for n in (1, 2)},
    **{f"{c}-01": f"https://rest.{c.lower()}-01.braze.com" for c in ("AU", "ID", "JP")},
}
Instance = Literal[
    "US-01", "US-02", "US-03", "US-04", "US-05", "US-06", "US-07", "US-08", "US-09", "US-10",
    "EU-01", "EU-02", "AU-01", "ID-01", "JP-01",
]  # fmt: skip


class BrazeSettings(ToolSettings):
    """Settings of one workspace."""

    api_key: Annotated[
        SecretStr, Field(description="REST API key with `users.track`, and `users.delete`.")
    ]
    instance: Annotated[Instance, Field(description="The instance, as the dashboard names it.")] = (
        "US-01"
    )
    app_id: Annotated[str | None, Field(description="App identifier that events carry.")] = None
    batch_size: Annotated[
        int, Field(ge=1, le=75, description="Attributes and events per request, together.")
    ] = 75
    update_existing_only: Annotated[
        bool, Field(description="True: people whom Braze does not know are not created.")
    ] = False
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Cap on requests in any one second.")
    ] = 100

    @property
    def host(self) -> str:
        return HOSTS[self.instance]

    @property
    def credentials(self) -> Mapping[str, SecretStr]:
        return bearer(self.api_key)

    @property
    def abilities(self) -> Abilities:
        return Abilities(
            kind="event",
            matches_on=("user_id", "email", "phone"),
            forms=("identify", "track"),
            deletes_by=("user_id", "email"),
            deletes_at_once=50,
            batch_size=self.batch_size,
            max_batch_bytes=3_500_000,
            requests_per_second=self.requests_per_second,
            concurrency=self.concurrency,
        )
