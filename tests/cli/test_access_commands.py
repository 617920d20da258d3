"""Tokens and the permission `pii` on the command line."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from personas_dagster import access
from tests.cli.running import Personas
from tests.place import SPACE, Place

ANN = {
    "type": "identify",
    "userId": "u1",
    "traits": {"email": "ann@example.com", "phone": "0151 1234567", "city": "Ulm"},
    "receivedAt": "2026-02-01T00:00:00Z",
}
ORDER = {
    "type": "track",
    "event": "Order",
    "userId": "u1",
    "properties": {"contact": "ann@example.com", "sku": "a"},
    "receivedAt": "2026-02-02T00:00:00Z",
}
SECRETS = ("ann@example.com", "0151 1234567")


@pytest.fixture
def shop(place: Place) -> Place:
    """A person with an e-mail and a phone; the operator was granted nothing."""
    place.write("resources/spaces/main.yaml", SPACE.replace("operator: [pii]\n", "# why: x\n"))
    place.define({"audiences/everyone": "trait('city') = 'Ulm'"})
    place.refresh(ANN, ORDER)
    return place


def answers(personas: Personas) -> dict[str, str]:
    """What each command shows."""
    out = personas.folder / "out.csv"
    commands = {
        "profile": ("profile", "email:ann@example.com"),
        "query": ("query", "trait('city') = 'Ulm'"),
        "value": ("query", "trait('phone')"),
        "contact": ("query", "trait('email')"),
        "graph": ("identity", "export"),
    }
    shown = {name: personas(*command).out for name, command in commands.items()}
    assert personas("export", "audience", "everyone", "--out", out).code == 0
    return {**shown, "csv": out.read_text()}


def test_masked_unless_granted(shop: Place, personas: Personas) -> None:
    for name, text in answers(personas).items():
        assert not any(secret in text for secret in SECRETS), name
        assert "***" in text, name


def test_granted_and_taken_back(shop: Place, personas: Personas) -> None:
    assert personas("grant", "pii").rows[0]["operator"] == ["pii"]
    shown = answers(personas)
    assert all(any(secret in text for secret in SECRETS) for text in shown.values())
    assert json.loads(shown["profile"])["traits"]["phone"]["value"] == "0151 1234567"
    rows = list(csv.DictReader(shown["csv"].splitlines()))
    assert {"type": "email", "id": "ann@example.com"} in json.loads(rows[0]["external_ids"])
    assert personas("grant", "pii", "--revoke").rows[0]["operator"] == []
    assert "***" in answers(personas)["profile"]


def test_grant_touches_one_line(shop: Place, personas: Personas) -> None:
    path = shop.root / "resources/spaces/main.yaml"
    before = path.read_text()
    personas("grant", "pii")
    assert path.read_text() == before + "operator: [pii]\n"
    personas("grant", "pii", "--revoke")
    assert path.read_text() == before


def test_token_is_shown_once(shop: Place, personas: Personas) -> None:
    made = personas("token", "create", "shop/production", "--role", "read", "--role", "sync")
    (row,) = made.rows
    assert row["roles"] == ["read", "sync"] and row["pii"] is False and row["space"] == "main"
    assert access.find(shop.space.state, "main", row["token"]) is not None
    listed = personas("token", "list")
    assert [one["name"] for one in listed.rows] == ["shop/production"]
    assert row["token"].split("_", 2)[2] not in listed.out + listed.err
    assert personas("token", "revoke", "shop/production").code == 0
    assert access.find(shop.space.state, "main", row["token"]) is None
    assert personas("token", "list").rows[0]["revoked_at"] is not None


def test_samples_grant_it_in_development_only() -> None:
    root = Path(__file__).parents[2]
    for folder in (root, root / "personas_dagster" / "samples" / "project"):
        spaces = folder / "resources" / "spaces"
        assert "\noperator: [pii]\n" in (spaces / "development.yaml").read_text()
        assert "operator" not in (spaces / "production.yaml").read_text()
