"""SQL traits of accounts at a destination: whom they speak of is known from their results."""

import json
from collections.abc import Iterator

import pytest

from personas_dagster import deliver, refresh, warehousing
from personas_dagster.activation.report import SyncReport
from personas_dagster.errors import PersonasError
from personas_dagster.samples.receiver import Receiver
from tests.place import NOW, Place

AT = "2026-01-01T00:00:00Z"
GROUP = {"type": "group", "messageId": "1", "groupId": "acme", "userId": "u1", "receivedAt": AT,
         "timestamp": AT}  # fmt: skip


@pytest.fixture
def tool(place: Place) -> Iterator[Receiver]:
    """A webhook, told of the seats of the one account that is known."""
    with Receiver() as receiver:
        settings = {"type": "webhook", "settings": {"url": receiver.url}}
        place.write("resources/destinations/hook.yaml", json.dumps(settings))
        place.write("assets/sql_traits/licences.sql", "SELECT 'acme' AS group_id, 7 AS seats")
        connect(place)
        place.refresh(GROUP)
        yield receiver


def connect(place: Place, **more: object) -> None:
    declared = {"trait": "licences.seats", "destination": "hook", **more}
    place.write("sensors/connections/seats.yaml", json.dumps(declared))


def run_sql_traits(place: Place) -> None:
    space = place.space
    this = refresh.begin(space, run_id="sql", now=NOW, as_of=NOW)
    warehousing.refresh_sql_traits(space, this)
    refresh.finish(space, this, now=NOW)


def sync(place: Place) -> SyncReport:
    return deliver.deliver(place.space, "hook", owner="test", now=lambda: NOW)


@pytest.mark.parametrize("send", [None, ["group"], ["identify"]])
def test_sent_as_asked(place: Place, tool: Receiver, send: list[str] | None) -> None:
    if send:
        connect(place, send=send)
    run_sql_traits(place)
    assert sync(place).confirmed == 1
    (message,) = tool.messages
    assert message["type"] == (send or ["group"])[0] and message["userId"] == "u1"
    assert message.get("groupId") == ("acme" if send != ["identify"] else None)
    assert message["traits"] == {"seats": 7}
    assert sync(place).requests == 0


def test_a_group_of_users_is_said(place: Place, tool: Receiver) -> None:
    place.write("assets/sql_traits/licences.sql", "SELECT 'u1' AS user_id, 7 AS seats")
    connect(place, send=["group"])
    run_sql_traits(place)
    with pytest.raises(PersonasError, match="cannot take group of users"):
        sync(place)
