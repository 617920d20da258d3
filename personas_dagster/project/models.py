"""What a definition file may say: one pydantic model for each kind of file.

The models hold facts as written. What spans files (references, unknown names) is checked in
`loader`; what they become in a running space is decided in `spaces`.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import (
    Field,
    field_validator,
    model_validator,
)

from personas_dagster.project import forms
from personas_dagster.project.fields import (
    AtMostHourly,
    Collection,
    Cron,
    Duration,
    Key,
    Model,
    Secret,
    Text,
)


class Described(Model):
    """What every asset may say about itself."""

    description: str = ""
    owner: str | None = None
    tags: tuple[str, ...] = ()
    spaces: tuple[str, ...] | None = Field(default=None, description="only in these spaces")


class Source(Described):
    """assets/sources/: where messages come from."""

    name: str
    id: Key | None = None
    kind: Literal["library", "file", "cloud app", "warehouse", "sql_trait"] = "library"
    write_keys: dict[str, Secret] = Field(
        default={}, description="what libraries show when they send to a space, by space"
    )
    expect_every: Duration | None = Field(
        default=None, description="overdue when nothing has come for this long; holds audiences"
    )
    enabled: bool = True


_HISTORICAL = "false: only events received after the definition was created count"


class ExpectModel(Model):
    """What a case's definition must give."""

    members: tuple[str, ...] | None = Field(default=None, description="exactly these are in")
    value: Any = Field(default=None, description="the value of the one person of the case")
    values: dict[str, Any] | None = Field(default=None, description="of these people")

    @model_validator(mode="after")
    def _one(self) -> ExpectModel:
        if len(self.model_fields_set) != 1:
            raise ValueError("expected exactly one of `members`, `value` and `values`")
        return self


class CaseModel(Model):
    """A test in a definition: given these messages, at this instant, expect that."""

    name: str = ""
    given: tuple[dict[str, Any], ...]
    at: dt.datetime = Field(description="the instant; UTC where no zone is given")
    expect: ExpectModel

    @field_validator("at", mode="before")
    @classmethod
    def _midnight(cls, value: object) -> object:
        if isinstance(value, dt.date) and not isinstance(value, dt.datetime):
            return dt.datetime.combine(value, dt.time(), dt.UTC)
        return value

    @field_validator("at")
    @classmethod
    def _utc(cls, value: dt.datetime) -> dt.datetime:
        return value.replace(tzinfo=dt.UTC) if value.tzinfo is None else value.astimezone(dt.UTC)


class Computed(Described):
    """What computed traits and audiences have in common."""

    key: Key
    collection: Collection = "users"
    query: str | None = None
    lookback: Duration | None = None
    include_historical: bool = Field(default=True, description=_HISTORICAL)
    schedule: Cron | None = Field(default=None, description="a cron expression, in UTC")
    tests: tuple[CaseModel, ...] = ()
    enabled: bool = True

    ready_made: ClassVar[tuple[str, ...]] = ()

    @model_validator(mode="after")
    def _one(self) -> Computed:
        given = [name for name in ("query", *self.ready_made) if getattr(self, name) is not None]
        if len(given) != 1:
            there = " and ".join(f"`{name}`" for name in given) or "neither"
            either = ", ".join(f"`{name}`" for name in self.ready_made)
            raise ValueError(f"found {there}, expected exactly one of `query`, {either}")
        return self

    @property
    def form(self) -> tuple[str, forms.Form] | None:
        """The ready-made form and its name, where one stands in place of a query."""
        found: list[tuple[str, forms.Form]] = [
            (name, getattr(self, name))
            for name in self.ready_made
            if getattr(self, name) is not None
        ]
        return found[0] if found else None

    @property
    def text(self) -> str:
        """The query, written out where it is a ready-made form."""
        return self.query if self.query is not None else self.form[1].query()  # type: ignore[index]


class ComputedTrait(Computed):
    """assets/computed_traits/: a value per profile, by a query or a ready-made form."""

    ready_made: ClassVar[tuple[str, ...]] = tuple(forms.TRAIT_FORMS)

    name: str = ""
    event_counter: forms.EventCounter | None = None
    aggregation: forms.Aggregation | None = None
    most_frequent: forms.MostFrequent | None = None
    first: forms.First | None = None
    last: forms.Last | None = None
    unique_list: forms.UniqueList | None = None
    unique_list_count: forms.UniqueListCount | None = None


class Audience(Computed):
    """assets/audiences/: a set of profiles, by a boolean query or a ready-made form."""

    ready_made: ClassVar[tuple[str, ...]] = tuple(forms.AUDIENCE_FORMS)

    name: str
    include_anonymous: bool = False
    first_time: forms.FirstTime | None = None
    regularly: forms.Regularly | None = None
    stopped: forms.Stopped | None = None
    came_back: forms.CameBack | None = None


class SqlTrait(Described):
    """assets/sql_traits/: traits from a query against a warehouse."""

    name: str = ""
    key: Key
    warehouse: str = "lake"
    query: str
    enabled: bool = True


class LakeModel(Model):
    location: str = Field(description="a folder, or a URL (s3://, gs://, az://)")
    storage_options: dict[str, Text] = {}


class EngineModel(Model):
    type: Literal["duckdb"] = "duckdb"
    threads: int | None = Field(default=None, ge=1)
    memory_limit: str | None = Field(
        default=None, pattern=r"^(\d+(\.\d+)? ?(MB|GB|MiB|GiB)|[1-9]\d?%|100%)$"
    )
    temp_directory: str = Field(
        default=".personas/spill", description="for what memory cannot hold"
    )


class StateModel(Model):
    url: Text


class PartitionsModel(Model):
    """How `raw_events` is partitioned in the UI."""

    by: Literal["day", "hour"] = "day"
    start: dt.date = dt.date(2015, 1, 1)


class PromotionModel(Model):
    """An event property that is kept as a custom trait."""

    event: str
    property: str
    key: str = Field(alias="as")


class ProfileApiModel(Model):
    """What the Profile API and the Definitions API of a space allow."""

    rate: int = Field(default=100, ge=1, description="requests a second")


class Space(Model):
    """resources/spaces/: an environment of its own."""

    name: Key
    description: str = ""
    default: bool = False
    automation: bool = Field(default=False, description="schedules and sensors run by themselves")
    lake: LakeModel
    engine: EngineModel = EngineModel()
    state: StateModel
    landing: Path
    partitions: PartitionsModel = PartitionsModel()
    dedupe_days: int = Field(default=7, ge=0)
    identity: dict[str, Any] = Field(default={}, description="overrides assets/identity.yaml")
    profile_api: ProfileApiModel = ProfileApiModel()
    operator: tuple[Literal["pii"], ...] = Field(
        default=(), description="what the command line may show besides (`personas grant`)"
    )
    promote: tuple[PromotionModel, ...] = ()
    sources: tuple[str, ...] | None = None
    destinations: tuple[str, ...] | None = None


class Warehouse(Model):
    """resources/warehouses/: a database that SQL traits read from."""

    name: Key
    url: Text
    description: str = ""


class Destination(Model):
    """resources/destinations/: an account at a tool. `settings` are the tool's own."""

    name: Key
    type: str
    description: str = ""
    settings: dict[str, Any] = {}
    every: Duration | None = Field(
        default=None, description="not synced more often; default: what the tool allows"
    )
    spaces: tuple[str, ...] | None = None
    enabled: bool = True


class EventNames(Model):
    entered: str = "Audience Entered"
    exited: str = "Audience Exited"
    computed: str = "Trait Computed"


class Connection(Model):
    """sensors/connections/: one trait or audience, to one destination."""

    name: str
    audience: str | None = None
    trait: str | None = None
    destination: str
    send: tuple[Literal["identify", "track", "group"], ...] | None = Field(
        default=None, min_length=1, description="default: identify and track; group for accounts"
    )
    email: Literal["all", "first", "last"] = "all"
    enrich: tuple[str, ...] = ()
    backfill: bool = True
    resend_new_identifiers: bool = True
    alias: bool = Field(default=False, description="tell merges to a tool that knows `alias`")
    events: EventNames = EventNames()
    max_change: float = Field(default=0.5, gt=0)
    list_id: str | None = Field(
        default=None, min_length=1, description="a list that is there, at a list destination"
    )
    spaces: tuple[str, ...] | None = None
    enabled: bool = True

    @model_validator(mode="after")
    def _one(self) -> Connection:
        if (self.audience is None) == (self.trait is None):
            raise ValueError("expected exactly one of `audience` and `trait`")
        return self

    @property
    def key(self) -> str:
        """The key of the trait or audience that is connected."""
        return self.audience or self.trait or ""


class Schedules(Model):
    """sensors/schedules.yaml: cron expressions, in UTC."""

    refresh: Cron = "0 * * * *"
    sql_traits: AtMostHourly = "0 */12 * * *"
    retries: int = Field(default=1, ge=0, description="how often a failed run is started again")


class Alerts(Model):
    """sensors/alerts.yaml: where failures are told, and what else is worth telling."""

    urls: tuple[Text, ...] = Field(default=(), description="Apprise URLs")
    when: Literal["failure", "every_attempt"] = "failure"
    changes: float = Field(
        default=1.0, gt=0, description="share by which a sync's changes may differ from the usual"
    )
    size: float = Field(
        default=0.5, gt=0, description="share by which an audience may grow or shrink in one sync"
    )
    at_least: int = Field(default=100, ge=0, description="rows below which nothing is unusual")
    late_after: Duration = Field(
        default=dt.timedelta(minutes=30), description="how late a scheduled refresh may be"
    )
