"""Which profile each message belongs to, and the links between users and accounts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from personas_dagster.identity import keys
from personas_dagster.identity.extract import KEY
from personas_dagster.identity.messages import Messages
from personas_dagster.identity.numbering import NONE
from personas_dagster.identity.outcome import Holders, Resolved, Rows
from personas_dagster.interfaces import Session

Ints = npt.NDArray[Any]
_LINKS = """
SELECT user_profile_id, account_profile_id,
       make_timestamptz(min(first).at) AS first_at, min(first).message_id AS first_message_id,
       make_timestamptz(max(last).at) AS last_at, max(last).message_id AS last_message_id,
       $1::BIGINT AS load_id
FROM named_both GROUP BY ALL
"""


@dataclass
class Assigned:
    """The profiles of messages: by combination, and one by one where that depends on when."""

    combination: Ints  # those that have one reading
    profiles: Holders
    accounts: Holders
    single: pa.Table  # file_id, line, at, message_id, profile_id, account_id

    def combinations(self, messages: Messages, *, load_id: int) -> Rows:
        keys = messages.keys.select(list(KEY))

        def named(piece: slice) -> pa.Table:
            rows = self.combination[piece]
            if len(self.combination) < keys.num_rows:
                table = keys.take(pa.array(rows))
            else:
                table = keys.slice(piece.start, len(rows))
            table = table.append_column("profile_id", self.profiles.of(rows))
            table = table.append_column("account_id", self.accounts.of(rows))
            return _with_load(table, load_id)

        return Rows(len(self.combination), named)

    def messages(self, *, load_id: int) -> pa.Table:
        columns = ["file_id", "line", "profile_id", "account_id"]
        return _with_load(self.single.select(columns), load_id)

    def without_profile(self, messages: Messages) -> int:
        """How many messages name neither a person nor an account."""
        profiles, accounts = (of.spots[self.combination] for of in (self.profiles, self.accounts))
        nobody = (profiles == NONE) & (accounts == NONE)
        alone = pc.and_(
            pc.is_null(self.single.column("profile_id")),
            pc.is_null(self.single.column("account_id")),
        )
        of_single = int(pc.sum(alone).as_py() or 0)
        return int(messages.counts[self.combination][nobody].sum()) + of_single


def _with_load(table: pa.Table, load_id: int) -> pa.Table:
    load = pa.repeat(pa.scalar(load_id, pa.int64()), table.num_rows)
    return table.append_column("load_id", load)


def assigned(messages: Messages, users: Resolved, accounts: Resolved) -> Assigned:
    """Which profile each message belongs to: that of its identifier of highest priority."""
    test = users.numbered.test[: messages.combinations]
    twofold = np.flatnonzero(test != NONE) if test.size else np.empty(0, np.int64)
    combination = np.setdiff1d(np.arange(messages.combinations), twofold, assume_unique=True)
    is_twofold = np.zeros(messages.combinations, bool)
    is_twofold[twofold] = True
    rows = np.flatnonzero(is_twofold[users.places.combination])
    names = ("file_id", "line", "at", "message_id")
    single = pa.table({name: users.places.take(name, rows) for name in names})
    of_users, of_accounts = users.holders(), accounts.holders()
    single = single.append_column("profile_id", of_users.of(users.reading(rows)))
    single = single.append_column("account_id", of_accounts.of(users.places.combination[rows]))
    return Assigned(combination, of_users, of_accounts, single)


def links(session: Session, messages: Messages, assigned: Assigned, *, load_id: int) -> pa.Table:
    """Users beside the accounts that their messages name."""
    parts = []
    of_users, of_accounts = assigned.profiles, assigned.accounts
    rows = assigned.combination
    rows = rows[(of_users.spots[rows] != NONE) & (of_accounts.spots[rows] != NONE)]
    first = messages.first().take(pa.array(rows))
    last = messages.last(session, rows) if len(rows) else first
    parts.append((of_users.of(rows), of_accounts.of(rows), _moments(first), _moments(last)))
    one = assigned.single.combine_chunks()
    columns: Sequence[Any] = [
        pa.concat_arrays([pa.array([], field.type), *one.column(name).chunks])
        for name in ("profile_id", "account_id", "at", "message_id")
        for field in [one.schema.field(name)]
    ]
    both = pc.and_(pc.is_valid(columns[0]), pc.is_valid(columns[1]))
    profiles, accounts, at, message_id = (column.filter(both) for column in columns)
    moments = pa.StructArray.from_arrays([at, message_id], ["at", "message_id"])
    parts.append((profiles, accounts, moments, moments))
    names = ["user_profile_id", "account_profile_id", "first", "last"]
    session.register(
        "named_both", pa.concat_tables([pa.table(list(part), names=names) for part in parts])
    )
    found = session.fetch(_LINKS, [load_id])
    for name in ("user", "account"):
        for half, numbers in zip(("high", "low"), keys.halves(_text(found, f"{name}_profile_id")),
                                 strict=True):  # fmt: skip
            found = found.append_column(f"{name}_{half}", pa.array(numbers))
    return found


def _text(table: pa.Table, name: str) -> pa.Array:
    return pa.concat_arrays([pa.array([], pa.string()), *table.column(name).chunks])


def _moments(structs: pa.StructArray) -> pa.StructArray:
    return pa.StructArray.from_arrays(
        [structs.field("at"), structs.field("message_id")], ["at", "message_id"]
    )
