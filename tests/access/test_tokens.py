"""Tokens: shown once, stored hashed, of one space, revoked at once."""

from __future__ import annotations

import datetime as dt
import hmac

import pytest
import sqlalchemy as sa

from personas_dagster import access
from personas_dagster.errors import PersonasError
from personas_dagster.state import State
from personas_dagster.state.schema import audit, tokens

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)


def create(state: State, name: str = "shop", **options: object) -> tuple[access.Token, str]:
    return access.create(state, "main", name, **{"roles": ["read"], "now": NOW, **options})  # type: ignore[arg-type]


def test_opens_its_own_space_only(state: State) -> None:
    token, text = create(state, has_pii=True)
    assert access.find(state, "main", text) == token
    assert token.has_pii and token.may("read") and not token.may("define")
    assert access.find(state, "other", text) is None


@pytest.mark.parametrize(
    "wrong", ["", "_", "x", "{0}x", "x{0}", "personas_{1}_", "personas_{1}_x", "other_{1}_{2}"]
)
def test_anything_else_opens_nothing(state: State, wrong: str) -> None:
    token, text = create(state)
    secret = text.split("_", 2)[2]
    assert access.find(state, "main", wrong.format(text, token.token_id, secret)) is None


def test_revoked_stops_at_once(state: State) -> None:
    _, text = create(state)
    access.revoke(state, "main", "shop", now=NOW)
    assert access.find(state, "main", text) is None
    with pytest.raises(PersonasError, match="no token `shop` is in use in space main"):
        access.revoke(state, "main", "shop", now=NOW)
    (token,) = access.all_tokens(state, "main")
    assert token.revoked_at == NOW


def test_name_is_free_again_after_revoking(state: State) -> None:
    _, first = create(state)
    with pytest.raises(PersonasError, match="token `shop` of space main is in use"):
        create(state)
    access.revoke(state, "main", "shop", now=NOW)
    _, second = create(state)
    assert access.find(state, "main", first) is None
    assert access.find(state, "main", second) is not None


def test_stored_without_the_secret(state: State) -> None:
    _, text = create(state)
    secret = text.split("_", 2)[2]
    stored = str(state.rows(sa.select(tokens))) + str(state.rows(sa.select(audit)))
    assert secret not in stored
    assert len(secret) >= 43  # 256 bits


def test_compared_in_constant_time(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []

    def digest(left: str, right: str) -> bool:
        compared.append((left, right))
        return left == right

    monkeypatch.setattr(hmac, "compare_digest", digest)
    create(state)
    access.find(state, "main", "personas_nobody_secret")
    assert len(compared) == 1  # also where there is no such token


@pytest.mark.parametrize("roles", [[], ["owner"], ["read", "pii"]])
def test_only_known_roles(state: State, roles: list[str]) -> None:
    with pytest.raises(PersonasError, match="expected one or more of: read, define, sync, admin"):
        create(state, roles=roles)


def test_admin_has_every_role_but_not_pii(state: State) -> None:
    token, _ = create(state, roles=["admin"])
    assert all(token.may(role) for role in access.ROLES) and not token.has_pii


def test_audit_says_what_happened(state: State) -> None:
    create(state, has_pii=True)
    access.revoke(state, "main", "shop", now=NOW)
    rows = [
        (r["what"], r["subject"], r["outcome"], r["reason"]) for r in state.rows(sa.select(audit))
    ]
    assert rows == [
        ("token", "shop", "created", "read, pii"),
        ("token", "shop", "revoked", None),
    ]
