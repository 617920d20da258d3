"""What Iterable lists can be told; the table of docs/destinations/iterable_lists.md."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator

from personas_dagster.destinations.iterable.settings import HOSTS, MATCHES, Project
from personas_dagster.destinations.settings import ListSettings


class IterableListsSettings(ListSettings):
    """Settings of one project's lists."""

    api_key: Annotated[SecretStr, Field(description="Server-side API key.")]
    region: Annotated[Literal["us", "eu"], Field(description="Where the project is.")] = "us"
    project: Annotated[Project, Field(description="What the project identifies users by.")] = (
        "hybrid"
    )
    batch_size: Annotated[int, Field(ge=1, le=1000, description="People per request.")] = 1000
    requests_per_second: Annotated[
        float | None, Field(gt=0, description="Cap on requests in any one second.")
    ] = 5

    @field_validator("lists")
    @classmethod
    def _are_numbers(cls, lists: dict[str, str]) -> dict[str, str]:
        for audience, number in lists.items():
            if not number.isdigit():
                raise ValueError(f'expected the id of {audience} as digits, such as "1234"')
        return lists

    @property
    def host(self) -> str:
        return HOSTS[self.region]

    @property
    def credentials(self) -> Mapping[str, SecretStr]:
        return {"Api-Key": self.api_key}

    @property
    def matches_on(self) -> tuple[str, ...]:
        return MATCHES[self.project]
