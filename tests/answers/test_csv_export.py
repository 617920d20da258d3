"""CSV of audiences and traits, read back with Python's own csv module."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import pytest

from personas_dagster.answers import export as exporting
from personas_dagster.answers.export import Export, write
from personas_dagster.errors import PersonasError
from tests.place import Place

HASHES = [hashlib.sha256(b"ann@example.com").hexdigest(),
          hashlib.sha256(b"ann@work.example").hexdigest()]  # fmt: skip


def exported(place: Place, out: Path, chosen: Export) -> list[dict[str, str]]:
    written = write(place.space, chosen, out)
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert written.rows == len(rows)
    assert not list(out.parent.glob("*.part"))
    return rows


def test_unformatted(shop: Place, tmp_path: Path) -> None:
    rows = exported(shop, tmp_path / "a.csv", Export("buyers", "audience"))
    assert [list(row) for row in rows] == [["key", "external_ids"]] * 2
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    ids = sorted((json.loads(row["external_ids"]) for row in rows), key=len)
    assert ids == [
        [{"type": "user_id", "id": "bob"}],
        [
            {"type": "anonymous_id", "id": "a1"},
            {"type": "anonymous_id", "id": "a2"},
            {"type": "email", "id": "ann@example.com"},
            {"type": "email", "id": "ann@work.example"},
            {"type": "user_id", "id": "ann"},
        ],
    ]


def test_formatted(shop: Place, tmp_path: Path) -> None:
    rows = exported(shop, tmp_path / "a.csv", Export("buyers", "audience", "formatted"))
    named = {row["user_id"]: row for row in rows}
    assert list(rows[0]) == [
        "key", "external_ids", "user_id", "email", "email_1", "anonymous_id", "anonymous_id_1",
    ]  # fmt: skip
    assert list(named["ann"].values())[2:] == [
        "ann", "ann@example.com", "ann@work.example", "a1", "a2",
    ]  # fmt: skip
    assert list(named["bob"].values())[2:] == ["bob", "", "", "", ""]


def test_rows_of_their_own(shop: Place, tmp_path: Path) -> None:
    chosen = Export("buyers", "audience", "formatted", rows=True)
    rows = exported(shop, tmp_path / "a.csv", chosen)
    ann = [row for row in rows if "ann" in row["external_ids"]]
    assert list(rows[0]) == ["key", "external_ids", "user_id", "email", "anonymous_id"]
    assert [tuple(row.values())[2:] for row in ann] == [
        ("ann", "ann@example.com", "a1"),
        ("", "ann@work.example", "a2"),
    ]
    assert len({(row["key"], row["external_ids"]) for row in ann}) == 1
    assert len(rows) == 3


def test_single_column(shop: Place, tmp_path: Path) -> None:
    chosen = Export("buyers", "audience", "single", id_type="email")
    rows = exported(shop, tmp_path / "a.csv", chosen)
    assert sorted(row["email"] for row in rows) == sorted(HASHES)
    raw = Export("buyers", "audience", "single", id_type="email", raw=True)
    assert [row["email"] for row in exported(shop, tmp_path / "b.csv", raw)] == [
        "ann@example.com", "ann@work.example",
    ]  # fmt: skip


def test_traits(shop: Place, tmp_path: Path) -> None:
    rows = exported(shop, tmp_path / "a.csv", Export("revenue", "trait"))
    assert [list(row) for row in rows] == [["key", "value", "external_ids"]] * 2
    assert sorted(row["value"] for row in rows) == ["10", "42.5"]
    rows = exported(shop, tmp_path / "b.csv", Export("favourite", "trait", "formatted"))
    assert {row["value"] for row in rows} == {'shoes, "red"'}
    rows = exported(shop, tmp_path / "c.csv", Export("name", "trait"))
    assert [row["value"] for row in rows] == ['B "ob", x']
    rows = exported(shop, tmp_path / "d.csv", Export("seats", "trait", "formatted"))
    assert [(row["value"], row["group_id"]) for row in rows] == [("3", "acme")]


def test_without_pii(shop: Place, tmp_path: Path) -> None:
    path = shop.root / "resources/spaces/main.yaml"
    granted = path.read_text()
    try:
        path.write_text(granted.replace("operator: [pii]\n", ""))
        rows = exported(shop, tmp_path / "a.csv", Export("buyers", "audience", "formatted"))
        assert "ann@" not in str(rows) and "***" in str(rows)
        hashes = Export("buyers", "audience", "single", id_type="email")
        hashed = exported(shop, tmp_path / "b.csv", hashes)
        assert sorted(row["email"] for row in hashed) == sorted(HASHES)
        raw = Export("buyers", "audience", "single", id_type="email", raw=True)
        with pytest.raises(PersonasError, match="need the permission `pii`"):
            write(shop.space, raw, tmp_path / "c.csv")
    finally:
        path.write_text(granted)
    assert not (tmp_path / "c.csv").exists()


def test_odd_identifiers_in_many_slices(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values that JSON and CSV write otherwise, over the seams of slices."""
    monkeypatch.setattr(exporting, "_AT_ONCE", 3)
    users = ['a"b', "c,d", "e\\f", "g\nh", "ünï", "'", *(f"u{n}" for n in range(8))]
    place.define({"audiences/all": "event('X').count() >= 1"})
    place.refresh(
        *({"type": "track", "event": "X", "userId": user, "anonymousId": f"{user}-{n}",
           "timestamp": f"2026-01-0{n + 1}"} for user in users for n in range(3))
    )  # fmt: skip
    rows = exported(place, tmp_path / "a.csv", Export("all", "audience", "formatted"))
    found = {
        row["user_id"]: [row[f"anonymous_id{end}"] for end in ("", "_1", "_2")] for row in rows
    }
    assert found == {user: [f"{user}-{n}" for n in range(3)] for user in users}
    for row in rows:
        ids = json.loads(row["external_ids"])
        assert {"type": "user_id", "id": row["user_id"]} in ids and len(ids) == 4
    long = exported(place, tmp_path / "b.csv", Export("all", "audience", "formatted", rows=True))
    assert sorted(row["anonymous_id"] for row in long) == sorted(
        f"{user}-{n}" for user in users for n in range(3)
    )


def test_nobody(shop: Place, place: Place, tmp_path: Path) -> None:
    place.define({"audiences/none": "event('X').count() >= 1"})
    place.refresh()
    assert exported(place, tmp_path / "a.csv", Export("none", "audience", "formatted")) == []
    assert (tmp_path / "a.csv").read_text() == "key,external_ids\n"


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        (Export("byers", "audience"), "no audience `byers`.*expected one of: buyers"),
        (Export("buyers", "audience", "single"), "add --id-type"),
        (Export("buyers", "audience", id_type="email"), "go with --format single only"),
        (Export("buyers", "audience", rows=True), "--rows goes with --format formatted"),
        (Export("buyers", "audience", "single", "emial"), "there are: anonymous_id, email"),
        (Export("plann", "trait"), "has a trait `plann`; check its name"),
    ],
)
def test_refused(shop: Place, tmp_path: Path, chosen: Export, wanted: str) -> None:
    with pytest.raises(PersonasError, match=wanted):
        write(shop.space, chosen, tmp_path / "a.csv")
    assert list(tmp_path.iterdir()) == []


def test_later_refresh_changes_nothing(place: Place, tmp_path: Path) -> None:
    place.define({"audiences/all": "event('X').count() >= 1"})
    row = {"type": "track", "event": "X", "timestamp": "2026-01-01"}
    space = place.refresh({**row, "userId": "a"})
    out = tmp_path / "a.csv"

    def meanwhile(profiles: int, seconds: float) -> None:
        place.refresh({**row, "userId": "b"})

    assert write(space, Export("all", "audience"), out, expected=meanwhile).rows == 1
    assert write(space, Export("all", "audience"), out).rows == 2
