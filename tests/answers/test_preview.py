"""Preview: what a definition would give, on stored data, with nothing written."""

from __future__ import annotations

import pytest

from personas_dagster.answers.preview import (
    of_file_or_key,
    of_text,
    preview,
    sql,
)
from personas_dagster.digests import digests
from personas_dagster.errors import PersonasError
from tests.answers.conftest import DAY
from tests.place import NOW, Place


def test_sizes_are_those_of_the_refresh(shop: Place) -> None:
    space = shop.space
    with space.session() as session:
        rows = session.fetch("SELECT audience, count(*) AS n FROM members GROUP BY ALL").to_pylist()
    stored = {row["audience"]: row["n"] for row in rows}
    found = {key: preview(space, of_file_or_key(space, key)).size for key in space.audience_keys}
    assert found == {"buyers": 2, "regulars": 1, "viewers": 3, "firms": 1} == stored


def test_sample_and_identifiers(shop: Place) -> None:
    found = preview(shop.space, of_file_or_key(shop.space, "viewers"))
    assert found.identifiers == {"user_id": 0.6667, "anonymous_id": 0.6667, "email": 0.3333}
    ids = [row["external_ids"] for row in found.sample]
    assert {"anonymous_id": ["x"]} in ids and {"user_id": ["cleo"]} in ids
    assert all(row["value"] is True for row in found.sample)
    assert found.as_of == NOW and found.seconds > 0


def test_at_most_twenty(place: Place) -> None:
    place.define({"audiences/all": "event('X').count() >= 1"})
    space = place.refresh(
        *({"type": "track", "event": "X", "userId": f"u{n}", "timestamp": "2026-02-01"}
          for n in range(25))
    )  # fmt: skip
    first = preview(space, of_file_or_key(space, "all"))
    assert (first.size, len({row["profile_id"] for row in first.sample})) == (25, 20)
    assert preview(space, of_file_or_key(space, "all")).sample == first.sample


def test_masked_without_pii(shop: Place) -> None:
    path = shop.root / "resources/spaces/main.yaml"
    granted = path.read_text()
    definition = of_file_or_key(shop.space, "regulars")
    assert "ann@work.example" in str(preview(shop.space, definition).sample)
    try:
        path.write_text(granted.replace("operator: [pii]\n", ""))
        (row,) = preview(shop.space, definition).sample
    finally:
        path.write_text(granted)
    assert row["external_ids"]["email"] == ["***", "***"]
    assert row["external_ids"]["user_id"] == ["ann"]


def test_overlap(shop: Place) -> None:
    found = preview(shop.space, of_file_or_key(shop.space, "viewers"), compare_with="buyers")
    assert found.overlap is not None
    assert (found.overlap.size, found.overlap.both) == (2, 1)
    with pytest.raises(PersonasError, match="no audience `byers`.*expected one of: buyers"):
        preview(shop.space, of_text(shop.space, "trait('a') = 1"), compare_with="byers")


def test_draft_that_references_others(shop: Place) -> None:
    draft = shop.write("draft.yaml", "query: trait('regulars') = true AND trait('plan') = 'pro'\n")
    assert preview(shop.space, of_file_or_key(shop.space, str(draft))).size == 1
    with pytest.raises(PersonasError, match="neither a file nor a key .*buyers"):
        of_file_or_key(shop.space, "drafft")


def test_trait(shop: Place) -> None:
    found = preview(shop.space, of_file_or_key(shop.space, "revenue"))
    assert sorted(row["value"] for row in found.sample) == [10, 42.5]


@pytest.mark.parametrize(("days", "size"), [(10, 0), (8, 1), (4, 2)])
def test_in_the_past(shop: Place, days: int, size: int) -> None:
    """What it references is evaluated at that instant too."""
    definition = of_text(shop.space, "trait('buyers') = true")
    assert preview(shop.space, definition, as_of=NOW - days * DAY).size == size


def test_past_custom_traits(shop: Place) -> None:
    definition = of_text(shop.space, "trait('plan') = 'pro'")
    assert preview(shop.space, definition, as_of=NOW - 41 * DAY).size == 0
    assert preview(shop.space, definition, as_of=NOW - 39 * DAY).size == 1


def test_sql_is_what_runs(shop: Place) -> None:
    text = sql(shop.space, of_file_or_key(shop.space, "regulars"), as_of=NOW)
    assert text.startswith("CREATE OR REPLACE TEMPORARY TABLE") and "'Order'" in text


def test_nothing_is_written(shop: Place) -> None:
    space = shop.space
    before = digests(space), space.lake.versions()
    preview(space, of_file_or_key(space, "regulars"), compare_with="buyers")
    assert (digests(space), space.lake.versions()) == before


def test_before_the_first_refresh(place: Place) -> None:
    with pytest.raises(PersonasError, match="no finished refresh; run `personas refresh`"):
        preview(place.space, of_text(place.space, "trait('a') = 1"))
