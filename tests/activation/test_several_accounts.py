"""Two accounts of one tool are two destinations: each with its own ledger, pace and credentials."""

import pytest

from personas_dagster import deliver
from personas_dagster.errors import Unauthorized
from personas_dagster.samples.receiver import Receiver
from tests.place import NOW, Place

ORDER = {"type": "track", "event": "Order", "messageId": "m", "userId": "u1",
         "receivedAt": "2026-01-01T00:00:00Z"}  # fmt: skip


def test_one_fails_and_the_other_does_not(place: Place) -> None:
    place.define({"audiences/buyers": "event('Order').count() >= 1"})
    with Receiver() as europe, Receiver() as america:
        for name, account in (("europe", europe), ("america", america)):
            place.write(f"resources/destinations/{name}.yaml",
                        f"type: webhook\nsettings: {{url: '{account.url}'}}\n")  # fmt: skip
            place.write(f"sensors/connections/to_{name}.yaml",
                        f"audience: buyers\ndestination: {name}\n")  # fmt: skip
        space = place.refresh(ORDER)
        europe.fail_next(9, status=401)
        with pytest.raises(Unauthorized, match="destination europe"):
            deliver.deliver(space, "europe", owner="test", now=lambda: NOW)
        assert deliver.deliver(space, "america", owner="test", now=lambda: NOW).confirmed == 1
        assert len(america.messages) == 2 and not europe.messages
        europe.clear()
        assert deliver.deliver(space, "europe", owner="test", now=lambda: NOW).confirmed == 1
        assert {m["userId"] for m in europe.messages} == {"u1"}
