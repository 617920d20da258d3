"""Keys that definitions read and that no profile has are told of, with what was probably meant."""

from __future__ import annotations

import pytest

from personas_dagster import unset
from personas_dagster.answers.preview import of_text
from tests.answers.conftest import DAY
from tests.place import NOW, Place


def told(place: Place, query: str) -> list[str]:
    space = place.space
    return unset.warnings(space, [of_text(space, query)]).get("preview", [])


@pytest.mark.parametrize(
    ("query", "warning"),
    [
        ("trait('plan') = 'pro'", None),
        ("trait('plan.name') = 'pro'", None),
        ("trait('buyers') = true", None),  # an audience, also one that is defined and empty
        ("trait('revenue') > 1 AND event('Order').count() > 1", None),
        ("trait('plam') = 'pro'", "`plam` has no definition and is read as a custom trait, which "
                                  "no profile has; did you mean `plan`?"),
        ("event('Order').where(property('x') = trait('zzz')).count() > 1",
         "`zzz` has no definition and is read as a custom trait, which no profile has"),
    ],
)  # fmt: skip
def test_keys_that_no_profile_has(shop: Place, query: str, warning: str | None) -> None:
    assert told(shop, query) == ([warning] if warning else [])


def test_keys_of_deleted_definitions_are_there(place: Place) -> None:
    place.define({
        "computed_traits/orders": "event('Order').count()",
        "audiences/buyers": "event('Order').count() >= 1",
        "audiences/reader": "trait('orders') > 0 OR trait('buyers') = true OR trait('nobody') = 1",
    })  # fmt: skip
    place.refresh({"type": "track", "event": "Order", "userId": "a", "timestamp": str(NOW - DAY)})
    for path in ("computed_traits/orders", "audiences/buyers"):
        (place.root / f"assets/{path}.yaml").unlink()
    space = place.space
    (texts,) = unset.warnings(space, space.definitions).values()
    assert [text.split(" has")[0] for text in texts] == ["`nobody`"]
