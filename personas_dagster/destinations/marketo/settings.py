"""What a Marketo destination can be told; the table of docs/destinations/marketo.md."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, SecretStr

from personas_dagster.activation.destination import Abilities, Form
from personas_dagster.destinations.settings import Text, ToolSettings

FieldName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class MarketoAccount(ToolSettings):
    """How an instance is reached, and what its leads are known by."""

    munchkin_id: Annotated[
        str,
        Field(pattern=r"^\d{3}-[A-Z]{3}-\d{3}$", description="The instance: `123-ABC-456`."),
    ]
    client_id: Annotated[SecretStr, Field(description="Client id of a custom service.")]
    client_secret: Annotated[SecretStr, Field(description="Its client secret.")]
    user_id_field: Annotated[
        FieldName | None,
        Field(description="Lead field that holds the user id; leads are known by it, not e-mail."),
    ] = None
    partition: Annotated[
        Text | None, Field(description="Lead partition that new leads are made in.")
    ] = None
    batch_size: Annotated[int, Field(ge=1, le=300, description="Leads per request.")] = 300
    throttle_pause: Annotated[
        float, Field(ge=0, description="Seconds to wait after error 606, which names no time.")
    ] = 20
    timeout: Annotated[float, Field(gt=0, le=300, description="Seconds to wait for an answer.")] = (
        60.0
    )
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Cap on requests in any one second.")
    ] = 5
    concurrency: Annotated[int, Field(ge=1, le=10, description="Requests in flight at once.")] = 4

    @property
    def host(self) -> str:
        return f"https://{self.munchkin_id.lower()}.mktorest.com"

    @property
    def lookup_field(self) -> str:
        """The lead field that people are found by."""
        return self.user_id_field or "email"

    @property
    def matches_on(self) -> tuple[str, ...]:
        return ("user_id",) if self.user_id_field else ("email",)


class MarketoSettings(MarketoAccount):
    """Settings of one instance's leads."""

    fields: Annotated[
        dict[str, FieldName], Field(description="Trait or audience to field, where names differ.")
    ] = {}
    create_fields: Annotated[bool, Field(description="Make a lead field that is missing.")] = False
    activity_type: Annotated[
        FieldName | None, Field(description="Custom activity type that events are kept as.")
    ] = None
    companies: Annotated[bool, Field(description="Take accounts, as companies.")] = False

    @property
    def abilities(self) -> Abilities:
        forms: list[Form] = ["identify"]
        if self.activity_type:
            forms.append("track")
        if self.companies:
            forms.append("group")
        return Abilities(
            kind="event",
            matches_on=self.matches_on,
            deletes_by=self.matches_on,
            forms=tuple(forms),
            batch_size=self.batch_size,
            max_batch_bytes=900_000,
            requests_per_second=self.requests_per_second,
            concurrency=self.concurrency,
        )
