"""What the query package is given: one trait or audience, as data."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal


@dataclass(frozen=True)
class Definition:
    """A trait or an audience.

    `include_anonymous` is only looked at for audiences of users: True takes profiles that hold a
    known identifier or an anonymous id, False those with a known one, None every profile (an ad
    hoc query). `lookback` bounds each event stream that has no window of its own, parents of
    funnels included. `received_after` leaves out events that were received up to then.
    """

    key: str
    kind: Literal["trait", "audience"]
    collection: Literal["users", "accounts"]
    query: str
    include_anonymous: bool | None = True
    lookback: timedelta | None = None
    received_after: datetime | None = None
