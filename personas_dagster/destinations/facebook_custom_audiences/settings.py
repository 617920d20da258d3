"""What Facebook Custom Audiences can be told; docs/destinations/facebook_custom_audiences.md."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from personas_dagster.activation.destination import Abilities
from personas_dagster.destinations.settings import ListSettings, bearer

Identifier = Literal["user_id", "email", "phone", "ios.idfa", "android.idfa"]
Source = Literal["USER_PROVIDED_ONLY", "PARTNER_PROVIDED_ONLY", "BOTH_USER_AND_PARTNER_PROVIDED"]


class FacebookSettings(ListSettings):
    """Settings of one ad account."""

    default_host = "https://graph.facebook.com"

    access_token: Annotated[
        SecretStr, Field(description="Token of a system user, with ads_management.")
    ]
    app_secret: Annotated[
        SecretStr | None, Field(description="The app's secret, when it wants calls to be proved.")
    ] = None
    ad_account_id: Annotated[
        str, Field(pattern=r"^act_[0-9]+$", description="The ad account, with or without act_.")
    ]
    api_version: Annotated[str, Field(pattern=r"^v[0-9]+\.[0-9]+$", description="Graph API.")] = (
        "v25.0"
    )
    identifiers: Annotated[
        tuple[Identifier, ...], Field(min_length=1, description="What people are matched on.")
    ] = ("email", "phone", "ios.idfa", "android.idfa")
    country_code: Annotated[
        str | None,
        Field(pattern=r"^[1-9][0-9]{0,2}$", description="For phone numbers that have none."),
    ] = None
    customer_file_source: Annotated[
        Source, Field(description="Where the people come from, of lists that are made.")
    ] = "USER_PROVIDED_ONLY"
    data_processing_options: Annotated[
        tuple[Literal["LDU"], ...], Field(description="[LDU]: limited data use.")
    ] = ()
    data_processing_country: Annotated[
        Literal[0, 1] | None, Field(description="1: the USA; 0: Facebook finds out.")
    ] = None
    data_processing_state: Annotated[
        int | None, Field(ge=0, description="Facebook's number of the state; 0: it finds out.")
    ] = None
    customer_consent: Annotated[
        bool | None, Field(description="Sent along with entries when set.")
    ] = None
    historical: Annotated[
        bool, Field(description="False: who was in before the connection was made is not sent.")
    ] = True
    sessions: Annotated[bool, Field(description="Each request as an upload session.")] = False
    transient_codes: Annotated[
        tuple[int, ...], Field(description="Error codes after which it is tried again.")
    ] = (1, 2)
    batch_size: Annotated[int, Field(ge=1, le=10_000, description="People per request.")] = 1_000
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Cap on requests in any one second.")
    ] = 1

    @field_validator("ad_account_id", mode="before")
    @classmethod
    def _has_its_prefix(cls, value: object) -> object:
        text = str(value)
        return f"act_{text}" if text.isdigit() else value

    @field_validator("lists")
    @classmethod
    def _are_numbers(cls, lists: dict[str, str]) -> dict[str, str]:
        for audience, number in lists.items():
            if not number.isdigit():
                raise ValueError(f'expected the id of {audience} as digits, such as "1234"')
        return lists

    @property
    def matches_on(self) -> tuple[str, ...]:
        return self.identifiers

    @property
    def credentials(self) -> Mapping[str, SecretStr]:
        return bearer(self.access_token)

    @property
    def proof(self) -> SecretStr | None:
        """The token signed with the app's secret."""
        if self.app_secret is None:
            return None
        token = self.access_token.get_secret_value().encode()
        key = self.app_secret.get_secret_value().encode()
        return SecretStr(hmac.new(key, token, hashlib.sha256).hexdigest())

    @property
    def secrets(self) -> list[SecretStr]:
        return [*super().secrets, *([self.proof] if self.proof else [])]

    @property
    def abilities(self) -> Abilities:
        return replace(super().abilities, takes_historical=self.historical)
