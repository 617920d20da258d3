"""Who may do what in a space: roles, the permission `pii`, and access tokens.

What belongs here: making, finding and revoking tokens. Only a token's SHA-256 is stored; its
secret is 256 random bits, so that no slower hash is needed. What each endpoint or command asks
for is decided there.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from personas_dagster.errors import PersonasError
from personas_dagster.state import State
from personas_dagster.state.schema import tokens

ROLES = ("read", "define", "sync", "admin")
PII = "pii"
"""Seeing e-mails, phones and raw exports. No role has it: it is always granted by itself."""

_PREFIX = "personas"
_COMPARED_IN_VAIN = "0" * 64
_FIND = sa.select(tokens).where(
    tokens.c.token_id == sa.bindparam("token_id"),
    tokens.c.space == sa.bindparam("space"),
    tokens.c.revoked_at.is_(None),
)


@dataclass(frozen=True)
class Token:
    """An access token of one space, without its secret."""

    token_id: str
    space: str
    name: str
    roles: frozenset[str]
    has_pii: bool
    created_at: dt.datetime
    revoked_at: dt.datetime | None = None

    def may(self, *roles: str) -> bool:
        """Whether it has one of these roles; `admin` stands for every role."""
        return "admin" in self.roles or not self.roles.isdisjoint(roles)


def create(
    state: State,
    space: str,
    name: str,
    *,
    roles: Collection[str],
    has_pii: bool = False,
    now: dt.datetime,
) -> tuple[Token, str]:
    """A new token, and the text to be shown once.

    PersonasError when a token of that name is in use, or for an unknown role or none.
    """
    unknown = sorted(set(roles) - set(ROLES))
    if unknown or not roles:
        found = f"role `{unknown[0]}`" if unknown else "no role"
        raise PersonasError(f"found {found}, expected one or more of: {', '.join(ROLES)}")
    token_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
    token = Token(token_id, space, name, frozenset(roles), has_pii, now)
    with state.begin() as connection:
        taken = sa.select(tokens.c.name).where(
            tokens.c.space == space, tokens.c.name == name, tokens.c.revoked_at.is_(None)
        )
        if connection.execute(taken).first():
            raise PersonasError(
                f"token `{name}` of space {space} is in use; "
                "revoke it first, or choose another name"
            )
        connection.execute(
            sa.insert(tokens).values(
                token_id=token_id,
                space=space,
                name=name,
                sha256=_digest(secret),
                roles=sorted(roles),
                has_pii=has_pii,
                created_at=now,
            )
        )
    given = ", ".join([*sorted(roles), *([PII] if has_pii else [])])
    state.audit("token", name, at=now, outcome="created", reason=given)
    return token, f"{_PREFIX}_{token_id}_{secret}"


def all_tokens(state: State, space: str) -> list[Token]:
    """Every token that the space ever had, by the time it was made."""
    query = sa.select(tokens).where(tokens.c.space == space).order_by(tokens.c.created_at)
    return [_token(row) for row in state.rows(query)]


def revoke(state: State, space: str, name: str, *, now: dt.datetime) -> None:
    """From now on the token opens nothing. PersonasError when none of that name is in use."""
    with state.begin() as connection:
        done = connection.execute(
            sa.update(tokens)
            .where(tokens.c.space == space, tokens.c.name == name, tokens.c.revoked_at.is_(None))
            .values(revoked_at=now)
        )
    if not done.rowcount:
        there = [one.name for one in all_tokens(state, space) if one.revoked_at is None]
        raise PersonasError(
            f"no token `{name}` is in use in space {space}; "
            f"expected one of: {', '.join(there) or 'none is in use'}"
        )
    state.audit("token", name, at=now, outcome="revoked")


def find(state: State, space: str, text: str) -> Token | None:
    """The token that this text is, if it is one of the space that was not revoked.

    The state is asked each time: a revoked token stops at once. The digests are compared in
    constant time, also where there is no such token.
    """
    prefix, _, rest = text.partition("_")
    token_id, _, secret = rest.partition("_")
    with state.read() as connection:
        found = connection.execute(_FIND, {"token_id": token_id, "space": space}).mappings().first()
    row = dict(found) if found else None
    expected = row["sha256"] if row else _COMPARED_IN_VAIN
    is_same = hmac.compare_digest(_digest(secret), expected)
    return _token(row) if row and is_same and prefix == _PREFIX else None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _token(row: Mapping[str, Any]) -> Token:
    kept = {key: value for key, value in row.items() if key not in ("sha256", "roles")}
    return Token(**kept, roles=frozenset(row["roles"]))
