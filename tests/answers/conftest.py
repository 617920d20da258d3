import datetime as dt
from collections.abc import Callable

import pytest

from tests.place import NOW, Place

DAY = dt.timedelta(days=1)


def at(days: float) -> str:
    """So many days before now."""
    return (NOW - days * DAY).isoformat()


@pytest.fixture(scope="module")
def shop(new_place: Callable[[], Place]) -> Place:
    """Ann with two orders, Bob with one, Cleo who only looked, a stranger, and an account."""
    place = new_place()
    place.define({
        "computed_traits/revenue": "event('Order').sum(property('revenue'))",
        "computed_traits/favourite": "event('Viewed').mode(property('category'), 1)",
        "computed_traits/seats": "collection: accounts\nquery: event('Order').count()\n",
        "audiences/buyers": "event('Order').count() >= 1",
        "audiences/regulars": "trait('buyers') = true AND event('Order').count() >= 2",
        "audiences/viewers": "query: event('Viewed').count() >= 1\ninclude_anonymous: true\n",
        "audiences/firms": "collection: accounts\n"
                           "query: ANY (event('Order').count() >= 2)\n",
    })  # fmt: skip
    rows = [
        {"type": "identify", "userId": "ann", "anonymousId": "a1", "timestamp": at(40),
         "traits": {"email": "Ann@Example.com", "plan": "pro"}},
        {"type": "identify", "userId": "ann", "anonymousId": "a2", "timestamp": at(30),
         "traits": {"email": "ann@work.example"}},
        {"type": "identify", "userId": "bob", "timestamp": at(30), "traits": {"name": 'B "ob", x'}},
        {"type": "group", "userId": "ann", "groupId": "acme", "timestamp": at(20)},
        {"type": "group", "userId": "bob", "groupId": "acme", "timestamp": at(20)},
        *(
            {"type": "track", "event": "Order", "userId": user, "timestamp": at(days),
             "properties": {"revenue": revenue}, "messageId": f"{user}-order-{days}"}
            for user, days, revenue in (("ann", 9, 30), ("ann", 3, 12.5), ("bob", 5, 10))
        ),
        *(
            {"type": "track", "event": "Viewed", "timestamp": at(2), "messageId": f"viewed-{n}",
             "properties": {"category": "shoes, \"red\""}, **who}
            for n, who in enumerate(({"userId": "ann"}, {"userId": "cleo"}, {"anonymousId": "x"}))
        ),
    ]  # fmt: skip
    place.refresh(*rows)
    return place
