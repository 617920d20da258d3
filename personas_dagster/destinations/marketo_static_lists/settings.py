"""What Marketo static lists can be told; the table of docs/destinations/marketo_static_lists.md."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from personas_dagster.destinations.marketo.settings import MarketoAccount
from personas_dagster.destinations.settings import ListSettings, Text


class MarketoStaticListsSettings(MarketoAccount, ListSettings):
    """Settings of one instance's static lists."""

    folder: Annotated[
        Text | None, Field(description="Name of the folder or program that lists are made in.")
    ] = None
    interval_hours: Annotated[
        float, Field(ge=6, description="Hours between two syncs, at least.")
    ] = 6

    @field_validator("lists")
    @classmethod
    def _are_numbers(cls, lists: dict[str, str]) -> dict[str, str]:
        for audience, number in lists.items():
            if not number.isdigit():
                raise ValueError(f'expected the id of {audience} as digits, such as "1021"')
        return lists

    @model_validator(mode="after")
    def _knows_where(self) -> Self:
        if self.create_lists and self.folder is None:
            raise ValueError("expected `folder`, where lists are made, or `create_lists: false`")
        return self
