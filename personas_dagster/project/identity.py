"""What `assets/identity.yaml` may say, and a space in its place, and the rules that it becomes."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator

from personas_dagster.identity.rules import DEFAULT_BLOCKED, IdentityRules, TypeRule
from personas_dagster.project.fields import Model


class LimitModel(Model):
    """`limit: 5` or `limit: {count: 5, per: week}`."""

    count: int = Field(ge=1)
    per: Literal["ever", "day", "week", "month", "year"] = "ever"


class TypeModel(Model):
    """The rules of one external ID type."""

    priority: int | None = Field(default=None, ge=1)
    limit: LimitModel | None = None
    blocked: tuple[str, ...] = ()
    keys: tuple[str, ...] = Field(
        default=(), description="traits and properties that carry this identifier"
    )

    @field_validator("limit", mode="before")
    @classmethod
    def _count(cls, value: object) -> object:
        return {"count": value} if isinstance(value, int) else value

    @field_validator("blocked")
    @classmethod
    def _patterns(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            _blocked(value)
        return values


class Identity(Model):
    """assets/identity.yaml, and `identity:` of a space, which overrides it field by field."""

    types: dict[str, TypeModel] = {}
    blocked: tuple[str, ...] | None = Field(
        default=None, description="for every type, instead of the defaults; /.../ is a regex"
    )
    cross_domain_id: bool = False
    alias: Literal["ignore", "merge"] = "ignore"
    max_merges: int = Field(default=100, ge=1)
    max_identifiers: int = Field(default=1_000, ge=1)
    hub_degree: int = Field(default=20, ge=1)
    max_profile_identifiers: int = Field(default=200, ge=1)
    conflicts: dict[str, Literal["newest", "oldest", "parent"]] = Field(
        default={}, description="which value of a custom trait a merged profile has, by key"
    )

    @field_validator("blocked")
    @classmethod
    def _patterns(cls, values: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for value in values or ():
            _blocked(value)
        return values

    def rules(self) -> IdentityRules:
        """These settings as the rules that the core works with."""
        types, blocked, keys = {}, {}, {}
        default = IdentityRules()
        blocked["*"] = (
            DEFAULT_BLOCKED
            if self.blocked is None
            else tuple(_blocked(value) for value in self.blocked)
        )
        for kind, model in self.types.items():
            base = default.rule(kind)
            limit = model.limit or LimitModel(count=base.limit)
            types[kind] = TypeRule(
                priority=model.priority if model.priority is not None else base.priority,
                limit=limit.count,
                per=limit.per,
            )
            if model.blocked:
                blocked[kind] = tuple(_blocked(value) for value in model.blocked)
            if model.keys:
                keys[kind] = model.keys
        return IdentityRules(
            types=types,
            blocked=blocked,
            keys=keys,
            cross_domain_id=self.cross_domain_id,
            alias=self.alias,
            max_merges=self.max_merges,
            max_identifiers=self.max_identifiers,
            hub_degree=self.hub_degree,
            max_profile_identifiers=self.max_profile_identifiers,
        )


def _blocked(value: str) -> str | re.Pattern[str]:
    """`/.../` is a regular expression, anything else an exact value."""
    if len(value) > 1 and value.startswith("/") and value.endswith("/"):
        try:
            return re.compile(value[1:-1])
        except re.error as error:
            raise ValueError(f"found `{value}`, expected a regular expression: {error}") from error
    return value
