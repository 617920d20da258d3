"""What a Zendesk destination can be told; the table of docs/destinations/zendesk.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Self

from pydantic import Field, SecretStr, model_validator

from personas_dagster.activation.destination import Abilities
from personas_dagster.destinations.settings import ToolSettings, basic, bearer


class ZendeskSettings(ToolSettings):
    """Settings of one account."""

    subdomain: Annotated[
        str,
        Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="The account's subdomain."),
    ]
    email: Annotated[str | None, Field(description="Agent to whom the API token belongs.")] = None
    api_token: Annotated[SecretStr | None, Field(description="API token.")] = None
    oauth_token: Annotated[SecretStr | None, Field(description="OAuth token, instead.")] = None
    create_fields: Annotated[bool, Field(description="Make a field that is missing.")] = True
    name_people: Annotated[
        bool, Field(description="Call who is new and has no name by e-mail or user id.")
    ] = True
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Cap on requests in any one second.")
    ] = 50

    @model_validator(mode="after")
    def _has_one_way_in(self) -> Self:
        by_token = self.email is not None and self.api_token is not None
        if by_token == (self.oauth_token is not None):
            raise ValueError("expected either `email` and `api_token`, or `oauth_token`")
        return self

    @property
    def host(self) -> str:
        return f"https://{self.subdomain}.zendesk.com"

    @property
    def credentials(self) -> Mapping[str, SecretStr]:
        if self.oauth_token is not None:
            return bearer(self.oauth_token)
        assert self.api_token is not None
        return basic(f"{self.email}/token", self.api_token.get_secret_value())

    @property
    def abilities(self) -> Abilities:
        return Abilities(
            kind="event",
            matches_on=("user_id", "email"),
            deletes_by=("user_id", "email"),
            forms=("identify", "group"),
            requires=("name",),
            requests_per_second=self.requests_per_second,
            concurrency=self.concurrency,
        )
