"""Ready-made forms of traits and audiences: a few fields in YAML that stand for a query.

Each form is a model that writes its query; nothing else knows that there are forms. A condition
in `where` is put into the query as it is written, so that an error in it keeps its place.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from personas_dagster.query.printer import quoted

_DURATION = re.compile(r"^\s*(\d+)\s*(second|minute|hour|day)s?\s*$")
_SECONDS = {"second": 1, "minute": 60, "hour": 3_600, "day": 86_400}
_PERIODS = 24


def _duration(value: str) -> str:
    found = _DURATION.match(value)
    if not found or int(found.group(1)) < 1:
        raise ValueError("expected a duration such as `30 days` or `12 hours`")
    return f"{int(found.group(1))} {found.group(2)}s"


Span = Annotated[str, AfterValidator(_duration)]


def times(span: str, count: int) -> str:
    """A duration so many times.

    >>> times("7 days", 3)
    '21 days'
    """
    amount, unit = span.split()
    return f"{int(amount) * count} {unit}"


def plus(first: str, second: str) -> str:
    """Two durations together, in the smaller unit of the two.

    >>> plus("7 days", "30 days"), plus("1 days", "12 hours")
    ('37 days', '36 hours')
    """
    units = [span.split()[1].rstrip("s") for span in (first, second)]
    unit = min(units, key=_SECONDS.__getitem__)
    total = sum(
        int(span.split()[0]) * _SECONDS[one]
        for span, one in zip((first, second), units, strict=True)
    )
    return f"{total // _SECONDS[unit]} {unit}s"


class Form(BaseModel, ABC):
    """Which events count."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    kind: ClassVar[Literal["trait", "audience"]] = "trait"

    event: str = Field(min_length=1, description="the event's name")
    where: str | None = Field(default=None, description="a condition on the event")

    @property
    def stream(self) -> str:
        """The events, as the query language has them, without a window."""
        base = f"event({quoted(self.event)})"
        if self.where is None:
            return base
        end = "\n" if "--" in self.where else ""  # a comment must not take the parenthesis
        return f"{base}.where({self.where}{end})"

    @property
    def before_where(self) -> str:
        """What stands in front of the condition in the query."""
        return f"event({quoted(self.event)}).where("

    @abstractmethod
    def query(self) -> str:
        """The query that the form stands for."""


class Windowed(Form):
    within: Span | None = Field(default=None, description="only events of this time")

    @property
    def events(self) -> str:
        return self.stream + (f".within({self.within})" if self.within else "")


class EventCounter(Windowed):
    """How often an event happened."""

    def query(self) -> str:
        return f"{self.events}.count()"


class OfProperty(Windowed):
    property: str = Field(min_length=1, description="the property's name")

    def field(self) -> str:
        return f"property({quoted(self.property)})"


class Aggregation(OfProperty):
    """A number out of a property."""

    function: Literal["sum", "average", "minimum", "maximum"] = Field(
        description="`sum`, `average`, `minimum` or `maximum`"
    )

    def query(self) -> str:
        names = {"sum": "sum", "average": "avg", "minimum": "min", "maximum": "max"}
        return f"{self.events}.{names[self.function]}({self.field()})"


class MostFrequent(OfProperty):
    """The value seen most often, seen at least so often."""

    at_least: int = Field(default=2, ge=1, description="seen at least so often")

    def query(self) -> str:
        return f"{self.events}.mode({self.field()}, {self.at_least})"


class First(OfProperty):
    """The value of the earliest event that has one."""

    def query(self) -> str:
        return f"{self.events}.first({self.field()})"


class Last(OfProperty):
    """The value of the latest event that has one."""

    def query(self) -> str:
        return f"{self.events}.last({self.field()})"


class UniqueList(OfProperty):
    """The distinct values."""

    def query(self) -> str:
        return f"{self.events}.unique({self.field()})"


class UniqueListCount(OfProperty):
    """How many distinct values."""

    def query(self) -> str:
        return f"{self.events}.unique({self.field()}).count()"


class FirstTime(Form):
    """Did it within this time, and never before."""

    kind = "audience"
    within: Span = Field(description="the time in which the first one lies")

    def query(self) -> str:
        recent = f"{self.stream}.within({self.within}).count()"
        return f"{recent} >= 1 AND {self.stream}.count() = {recent}"


class Regularly(Form):
    """Did it in each of the last periods."""

    kind = "audience"
    every: Span = Field(description="how long a period is")
    periods: int = Field(ge=2, le=_PERIODS, description="how many periods, 2 to 24")
    times: int = Field(default=1, ge=1, description="at least so often in each")

    def query(self) -> str:
        windows = [f"within({self.every})"]
        windows += [
            f"between({times(self.every, n)}, {times(self.every, n + 1)})"
            for n in range(1, self.periods)
        ]
        return " AND ".join(f"{self.stream}.{one}.count() >= {self.times}" for one in windows)


class Stopped(Form):
    """Did it before, and not for this time."""

    kind = "audience"
    silent: Span = Field(description="not within this time")
    active: Span | None = Field(default=None, description="but within this time before; else ever")
    times: int = Field(default=1, ge=1, description="at least so often before")

    def query(self) -> str:
        window = f".between({self.silent}, {plus(self.silent, self.active)})" if self.active else ""
        return (
            f"{self.stream}{window}.count() >= {self.times} "
            f"AND {self.stream}.within({self.silent}).count() = 0"
        )


class CameBack(Form):
    """Did it before, then not for this time, and again within that."""

    kind = "audience"
    silent: Span = Field(description="how long they had not done it")
    within: Span = Field(description="the time in which they did it again")

    def query(self) -> str:
        until = plus(self.within, self.silent)
        return (
            f"{self.stream}.within({self.within}).count() >= 1 "
            f"AND {self.stream}.between({self.within}, {until}).count() = 0 "
            f"AND {self.stream}.count() > {self.stream}.within({until}).count()"
        )


TRAIT_FORMS: dict[str, type[Form]] = {
    "event_counter": EventCounter,
    "aggregation": Aggregation,
    "most_frequent": MostFrequent,
    "first": First,
    "last": Last,
    "unique_list": UniqueList,
    "unique_list_count": UniqueListCount,
}
AUDIENCE_FORMS: dict[str, type[Form]] = {
    "first_time": FirstTime,
    "regularly": Regularly,
    "stopped": Stopped,
    "came_back": CameBack,
}
