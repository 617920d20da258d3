"""What a Mailchimp destination can be told; the table of docs/destinations/mailchimp.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from personas_dagster.activation.destination import Abilities
from personas_dagster.destinations.settings import Text, ToolSettings, basic

_LONGEST_TAG = 10


class MailchimpSettings(ToolSettings):
    """Settings of one audience at Mailchimp, which calls it a list."""

    api_key: Annotated[SecretStr, Field(description="API key.")]
    list_id: Annotated[Text, Field(description="Id of Mailchimp's audience.")]
    datacenter: Annotated[
        str | None, Field(pattern=r"^[a-z]{2,3}\d{1,3}$", description="End of the API key.")
    ] = None
    audiences_as: Annotated[
        Literal["tag", "merge_field"], Field(description="What an audience becomes.")
    ] = "tag"
    tag_prefix: Annotated[str, Field(description="Stands before an audience's key.")] = ""
    merge_fields: Annotated[
        dict[str, str], Field(description="Trait to merge tag, such as FNAME.")
    ] = {}
    create_merge_fields: Annotated[
        bool, Field(description="Make a merge field that is missing.")
    ] = True
    status_if_new: Annotated[
        Literal["subscribed", "pending", "unsubscribed", "transactional"],
        Field(description="What somebody becomes who is not there yet."),
    ] = "transactional"
    start_automations: Annotated[
        bool, Field(description="False: tags do not start automations.")
    ] = True
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Cap on requests in any one second.")
    ] = 10
    concurrency: Annotated[int, Field(ge=1, le=10, description="Requests in flight at once.")] = 4

    @field_validator("merge_fields")
    @classmethod
    def _are_tags(cls, tags: dict[str, str]) -> dict[str, str]:
        for trait, tag in tags.items():
            if not tag.isascii() or tag != tag.upper() or not 0 < len(tag) <= _LONGEST_TAG:
                raise ValueError(f"merge tag of {trait}: expected up to 10 capitals and digits")
        return tags

    @model_validator(mode="after")
    def _has_a_host(self) -> Self:
        if self.datacenter is None and self.base_url is None:
            raise ValueError("expected `datacenter`, such as us21: what follows the key's hyphen")
        return self

    @property
    def host(self) -> str:
        return f"https://{self.datacenter}.api.mailchimp.com"

    @property
    def credentials(self) -> Mapping[str, SecretStr]:
        return basic("personas", self.api_key.get_secret_value())

    @property
    def abilities(self) -> Abilities:
        return Abilities(
            kind="event",
            matches_on=("email",),
            deletes_by=("email",),
            forms=("identify",),
            requests_per_second=self.requests_per_second,
            concurrency=self.concurrency,
        )
