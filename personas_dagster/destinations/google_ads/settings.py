"""What Google Ads audiences can be told; the table of docs/destinations/google_ads.md."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from personas_dagster.destinations.settings import ListSettings, Text, ToolSettings

Consent = Literal["granted", "denied"]
_MATCHES = {"contact": ("email", "phone"), "user_id": ("user_id",)}
_DEVICES = {"IOS": ("ios.idfa",), "ANDROID": ("android.idfa",)}


class GoogleAdsSettings(ListSettings):
    """Settings of one account."""

    default_host = "https://datamanager.googleapis.com"

    client_id: Annotated[Text, Field(description="Of an OAuth client of the Cloud project.")]
    client_secret: Annotated[SecretStr, Field(description="Its secret.")]
    refresh_token: Annotated[
        SecretStr, Field(description="Of somebody with access, for the scope datamanager.")
    ]
    account_id: Annotated[
        str, Field(pattern=r"^[0-9]+$", description="The Google Ads account, hyphens or not.")
    ]
    login_account_id: Annotated[
        str | None, Field(pattern=r"^[0-9]+$", description="Its manager account, to sign in by.")
    ] = None
    account_type: Annotated[
        str, Field(pattern=r"^[A-Z_]+$", description="Kind of both accounts, as Google names it.")
    ] = "GOOGLE_ADS"
    match_by: Annotated[
        Literal["contact", "mobile", "user_id"], Field(description="What the lists hold.")
    ] = "contact"
    app_id: Annotated[
        Text | None, Field(description="App that mobile ids come from, of lists that are made.")
    ] = None
    key_space: Annotated[
        Literal["IOS", "ANDROID"] | None, Field(description="Kind of mobile ids.")
    ] = None
    ad_user_data: Annotated[Consent, Field(description="Consent to use of their data for ads.")]
    ad_personalization: Annotated[Consent, Field(description="Consent to personalised ads.")]
    accept_terms: Annotated[
        bool | None, Field(description="Customer Match terms; sent along when set.")
    ] = None
    country_code: Annotated[
        str | None,
        Field(pattern=r"^[1-9][0-9]{0,2}$", description="For phone numbers that have none."),
    ] = None
    membership_days: Annotated[
        int, Field(ge=1, le=540, description="How long people stay on lists that are made.")
    ] = 540
    token_url: Annotated[str, Field(description="Where tokens are given.")] = (
        "https://oauth2.googleapis.com/token"
    )
    interval_hours: Annotated[
        float, Field(ge=6, description="Hours between two syncs, at least.")
    ] = 6
    batch_size: Annotated[int, Field(ge=1, le=10_000, description="People per request.")] = 5_000
    timeout: Annotated[float, Field(gt=0, le=300, description="Seconds to wait for an answer.")] = (
        30.0
    )
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Cap on requests in any one second.")
    ] = 5

    @field_validator("account_id", "login_account_id", mode="before")
    @classmethod
    def _without_hyphens(cls, number: object) -> object:
        return None if number is None else str(number).replace("-", "")

    @field_validator("token_url")
    @classmethod
    def _token_url_is_safe(cls, url: str) -> str:
        found = ToolSettings._is_safe(url)
        assert found is not None
        return found

    @model_validator(mode="after")
    def _knows_its_devices(self) -> Self:
        if self.match_by == "mobile" and self.key_space is None:
            raise ValueError("expected `key_space: IOS` or `ANDROID` with `match_by: mobile`")
        if self.match_by == "mobile" and self.create_lists and self.app_id is None:
            raise ValueError("expected `app_id` with `match_by: mobile`, for lists that are made")
        return self

    @property
    def matches_on(self) -> tuple[str, ...]:
        if self.match_by == "mobile":
            return _DEVICES[self.key_space or "IOS"]
        return _MATCHES[self.match_by]

    @property
    def account(self) -> str:
        """The account's resource name."""
        return self.resource(self.account_id)

    def resource(self, account_id: str) -> str:
        return f"accountTypes/{self.account_type}/accounts/{account_id}"

    @property
    def headers(self) -> dict[str, str]:
        """Methods of lists want the manager here; those of members in the body."""
        return {"login-account": self.resource(self.login_account_id or self.account_id)}
