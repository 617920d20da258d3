"""preview, export and check --print through the command line."""

from __future__ import annotations

import pytest

from tests.cli.running import Personas
from tests.place import Place


@pytest.fixture
def filled(place: Place) -> Place:
    place.define({
        "audiences/buyers": "event('Order').count() >= 1",
        "computed_traits/orders": "event('Order').count()",
    })  # fmt: skip
    place.write("assets/computed_traits/last_order.yaml", "last: {event: Order, property: id}\n")
    place.refresh(
        *({"type": "track", "event": "Order", "userId": user, "timestamp": "2026-02-01"}
          for user in ("ann", "bob"))
    )  # fmt: skip
    return place


def test_preview(filled: Place, personas: Personas) -> None:
    ended = personas("preview", "buyers", "--with", "buyers")
    assert ended.code == 0, ended.err
    (row,) = ended.rows
    assert (row["size"], row["identifiers"]) == (2, {"user_id": 1.0})
    assert row["overlap"] == {"audience": "buyers", "size": 2, "both": 2}
    assert "buyers: 2 members as of 2026-03-01 12:00 UTC" in ended.err
    sql = personas("preview", "buyers", "--sql")
    assert sql.out.startswith("CREATE OR REPLACE TEMPORARY TABLE") and not sql.err
    assert personas("preview", "byers").code == 1


def test_export(filled: Place, personas: Personas) -> None:
    ended = personas("export", "trait", "orders", "--format", "formatted", "--out", "o.csv")
    assert ended.code == 0, ended.err
    assert ended.rows[0]["rows"] == 2 and ended.rows[0]["as_of"].startswith("2026-03-01T12")
    lines = (filled.root / "o.csv").read_text().splitlines()
    assert lines[0] == "key,value,external_ids,user_id" and len(lines) == 3
    refused = personas("export", "audience", "buyers", "--format", "single", "--out", "o.csv")
    assert refused.code == 1 and "add --id-type" in refused.err


def test_long_export_tells_its_time(
    filled: Place, personas: Personas, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = "that takes about"
    assert told not in personas("export", "audience", "buyers", "--out", "o.csv").err
    monkeypatch.setattr("personas_dagster.answers.export.ROWS_A_SECOND", 0.05)
    assert f"2 profiles; {told} 40 s" in personas("export", "audience", "buyers", "--out", "o").err


def test_print_queries(filled: Place, personas: Personas) -> None:
    ended = personas("check", "--print")
    assert {row["key"]: (row["form"], row["query"]) for row in ended.rows} == {
        "buyers": (None, "event('Order').count() >= 1"),
        "orders": (None, "event('Order').count()"),
        "last_order": ("last", "event('Order').last(property('id'))"),
    }


def test_check_runs_the_tests_in_definitions(place: Place, personas: Personas) -> None:
    case = "  - {at: 2026-03-01, given: [{event: X, userId: ann}], expect: {members: [%s]}}\n"
    text = "query: event('X').count() >= 1\ntests:\n"
    place.write("assets/audiences/a.yaml", text + case % "ann")
    ended = personas("check")
    assert ended.code == 0 and "1 tests" in ended.err
    place.write("assets/audiences/a.yaml", text + case % "ann" + case % "")
    ended = personas("check")
    assert ended.code == 1
    assert ended.lines == [
        "assets/audiences/a.yaml:4:65: tests.1.expect.members: ann is in and should not be"
    ]


def test_explain(filled: Place, personas: Personas) -> None:
    ended = personas("explain", "audience", "buyers", "user_id:ann", "--at", "2026-03-01")
    assert ended.code == 0, ended.err
    (row,) = ended.rows
    assert (row["outcome"], row["tree"]["value"]) == (True, 1)
    assert ended.lines[0] == "user_id:ann is in buyers as of 2026-03-01 00:00 UTC"
    assert "yes event('Order').count() >= 1   (value: 1)" in ended.err
    ended = personas("explain", "audience", "buyers", "user_id:ann", "--at", "2026-01-01")
    assert "user_id:ann is not in buyers" in ended.err and not ended.rows[0]["outcome"]


def test_unset_keys_are_told(filled: Place, personas: Personas) -> None:
    why = "`orderz` has no definition and is read as a custom trait, which no profile has"
    draft = filled.write("draft.yaml", "query: trait('orderz') >= 1\n")
    ended = personas("preview", draft)
    assert ended.rows[0]["warnings"] == [f"{why}; did you mean `orders`?"]
    for said in (ended, personas("query", "trait('orderz') >= 1", "--format", "count")):
        assert f"warning: {why}; did you mean `orders`?" in said.err


def test_preview_of_a_sql_trait(filled: Place, personas: Personas) -> None:
    """Sample rows, and which ids the graph knows; of a key, and of a draft with a mistake."""
    query = "SELECT * FROM (VALUES ('ann', 1.50), ('who', NULL)) t(user_id, tickets)"
    filled.write("assets/sql_traits/support.sql", query)
    ended = personas("preview", "support")
    ann, who = ended.rows
    assert (ann["identifiers"], ann["values"]) == ({"user_id": "ann"}, {"tickets": 1.5})
    assert ann["profile_id"] and (who["profile_id"], who["values"]) == (None, {"tickets": None})
    assert "support: of the first 2 rows, the graph knows 1" in ended.err
    draft = filled.write("draft.sql", query.replace("'who'", "'ann'"))
    ended = personas("preview", draft)
    assert (ended.code, ended.rows) == (1, []) and "no duplicate identifiers" in ended.err


def test_stale_answers_say_so(filled: Place, personas: Personas) -> None:
    """The last refresh was long ago: preview, explain, profile and export all tell it."""
    why = "it is as of 2026-03-01 12:00 UTC, and due at `0 * * * *`"
    for arguments in (
        ("preview", "buyers"),
        ("explain", "audience", "buyers", "user_id:ann"),
        ("export", "audience", "buyers", "--out", "o.csv"),
    ):
        ended = personas(*arguments)
        (row,) = ended.rows
        assert (row["is_stale"], row["stale"]) == (True, [why]), arguments
        assert f"warning: buyers is stale: {why}" in ended.err
        assert row["as_of"].startswith("2026-03-01T12")
    ended = personas("profile", "user_id:ann")
    (row,) = ended.rows
    assert row["as_of"].startswith("2026-03-01T12")
    assert row["stale"] == {key: [why] for key in ("buyers", "orders", "last_order")}
    assert f"warning: buyers, last_order, orders are stale: {why}" in ended.err
    assert ended.err.count("stale") == 1


def test_the_past_is_not_stale(filled: Place, personas: Personas) -> None:
    ended = personas("preview", "buyers", "--as-of", "2026-02-20")
    assert (ended.rows[0]["is_stale"], ended.rows[0]["stale"]) == (False, [])
