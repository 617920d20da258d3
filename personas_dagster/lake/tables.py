"""The tables of a lake: their columns, how they are partitioned, what their digest leaves out.

What belongs here: schemas, as data. Instants are UTC with microseconds; JSON is text.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

INSTANT = pa.timestamp("us", tz="UTC")
JSON = pa.string()


@dataclass(frozen=True)
class Table:
    """One table: `bookkeeping` columns say who wrote a row and when, and stay out of digests.

    `derived` begins the names of further columns that a writer may add: what they say follows
    from the others. `scattered` columns have so many values that a dictionary of them fills up.
    """

    name: str
    schema: pa.Schema
    partition_by: tuple[str, ...] = ()
    bookkeeping: tuple[str, ...] = ()
    description: str = ""
    derived: str | None = None
    scattered: tuple[str, ...] = ()


def _table(
    name: str,
    description: str,
    columns: dict[str, pa.DataType],
    *,
    partition_by: tuple[str, ...] = (),
    bookkeeping: tuple[str, ...] = (),
    derived: str | None = None,
    scattered: tuple[str, ...] = (),
) -> Table:
    schema = pa.schema([pa.field(key, kind) for key, kind in columns.items()])
    return Table(name, schema, partition_by, bookkeeping, description, derived, scattered)


_MESSAGE: dict[str, pa.DataType] = {
    "message_id": pa.string(),
    "type": pa.string(),
    "event": pa.string(),
    "user_id": pa.string(),
    "anonymous_id": pa.string(),
    "group_id": pa.string(),
    "previous_id": pa.string(),
    "timestamp": INSTANT,
    "received_at": INSTANT,
    "sent_at": INSTANT,
    "original_timestamp": INSTANT,
    "properties": JSON,
    "traits": JSON,
    "context": JSON,
    "integrations": JSON,
    "source_id": pa.string(),
}
_LOADED: dict[str, pa.DataType] = {
    "load_id": pa.int64(),
    "file_id": pa.int64(),
    "line": pa.int64(),
}
_LOADED_KEYS = ("load_id", "file_id", "line")


def _narrow(*names: str) -> dict[str, pa.DataType]:
    """Columns that stand for texts in 128 bits: what `halves.py` says."""
    return {f"{name}_{half}": pa.int64() for name in names for half in ("high", "low")}


_IDENTITY: dict[str, dict[str, pa.DataType]] = {
    "profiles": {
        "profile_id": pa.string(),
        "collection": pa.string(),
        "created_at": INSTANT,
        "first_message_id": pa.string(),
        "load_id": pa.int64(),
        **_narrow("profile"),
    },
    "identifiers": {
        "collection": pa.string(),
        "type": pa.string(),
        "value": pa.string(),
        "profile_id": pa.string(),
        "first_seen_at": INSTANT,
        "first_message_id": pa.string(),
        "source_id": pa.string(),
        "load_id": pa.int64(),
        **_narrow("key", "profile"),
    },
    "merges": {
        "collection": pa.string(),
        "parent_id": pa.string(),
        "child_id": pa.string(),
        "merged_at": INSTANT,
        "message_id": pa.string(),
        "identifiers": JSON,
        "load_id": pa.int64(),
        **_narrow("parent", "child"),
    },
    "account_links": {
        "user_profile_id": pa.string(),
        "account_profile_id": pa.string(),
        "first_at": INSTANT,
        "first_message_id": pa.string(),
        "last_at": INSTANT,
        "last_message_id": pa.string(),
        "load_id": pa.int64(),
        **_narrow("user", "account"),
    },
    "dropped_identifiers": {
        "message_id": pa.string(),
        "received_at": INSTANT,
        "collection": pa.string(),
        "type": pa.string(),
        "value": pa.string(),
        "limit_broken": pa.string(),
        "profiles_apart": JSON,
        "load_id": pa.int64(),
    },
    # Of a load's messages: which distinct combinations of identifiers belong to which profile,
    # and the messages for which that depends on when they came.
    "combinations": {
        "user_id": pa.string(),
        "anonymous_id": pa.string(),
        "email_trait": pa.string(),
        "email_context": pa.string(),
        "email_property": pa.string(),
        "group_id": pa.string(),
        "others": JSON,
        "profile_id": pa.string(),
        "account_id": pa.string(),
        "load_id": pa.int64(),
    },
    "message_profiles": {
        "file_id": pa.int64(),
        "line": pa.int64(),
        "profile_id": pa.string(),
        "account_id": pa.string(),
        "load_id": pa.int64(),
    },
}
IDENTITY_TABLES = tuple(_IDENTITY)
_NARROW = _narrow("profile", "key", "parent", "child", "user", "account")

_TRAIT: dict[str, pa.DataType] = {
    "collection": pa.string(),
    "profile_id": pa.string(),
    "key": pa.string(),
    "value": JSON,
    "updated_at": INSTANT,
    "source_id": pa.string(),
    "refresh_id": pa.int64(),
}

_ALL = [
    _table(
        "raw_events",
        "Messages as they came in, once each, by the UTC date they were received.",
        {**_MESSAGE, **_LOADED, "received_date": pa.date32()},
        partition_by=("received_date",),
        bookkeeping=_LOADED_KEYS,
    ),
    _table(
        "rejected_events",
        "Lines and messages that break a rule, with the raw text and a reason code.",
        {
            "reason": pa.string(),
            "detail": pa.string(),
            "raw": pa.string(),
            "file": pa.string(),
            "source_id": pa.string(),
            **_LOADED,
            "received_date": pa.date32(),
        },
        partition_by=("received_date",),
        bookkeeping=(*_LOADED_KEYS, "file", "received_date"),
    ),
    _table(
        "events",
        "Messages resolved to profiles, sorted by event, profile and time within each month.",
        {
            "event": pa.string(),
            "profile_id": pa.string(),
            "timestamp": INSTANT,
            "received_at": INSTANT,
            "message_id": pa.string(),
            "type": pa.string(),
            "account_id": pa.string(),
            "source_id": pa.string(),
            "properties": JSON,
            "traits": JSON,
            "context": JSON,
            "load_id": pa.int64(),
            "month": pa.string(),
            **_narrow("profile"),
        },
        partition_by=("month",),
        bookkeeping=("load_id", *_narrow("profile")),
        derived="typed_",
        scattered=("profile_id", "timestamp", "received_at", "message_id", *_narrow("profile")),
    ),
    *(
        _table(
            name,
            "Identity graph.",
            columns,
            bookkeeping=tuple(key for key in columns if key == "load_id" or key in _NARROW),
        )
        for name, columns in _IDENTITY.items()
        if name not in ("message_profiles", "combinations")
    ),
    *(
        _table(f"candidate_{name}", "Merge candidates of one load.", columns)
        for name, columns in _IDENTITY.items()
    ),
    *(
        _table(name, description, _TRAIT, bookkeeping=("refresh_id",))
        for name, description in {
            "custom_traits": "Changes of custom traits; a key's and profile's last row holds.",
            "computed_traits": "Changes of computed traits; a key's and profile's last row holds.",
            "sql_traits": "Changes of SQL traits; a key's and profile's last row holds.",
        }.items()
    ),
    _table(
        "audience_memberships",
        "Who is in which audience, and since when; the last row of an audience and profile holds.",
        {
            "audience": pa.string(),
            "collection": pa.string(),
            "profile_id": pa.string(),
            "entered_at": INSTANT,
            "exited_at": INSTANT,
            "refresh_id": pa.int64(),
        },
        bookkeeping=("refresh_id",),
    ),
    _table(
        "audience_changes",
        "Who entered and who exited, at which refresh.",
        {
            "audience": pa.string(),
            "collection": pa.string(),
            "profile_id": pa.string(),
            "change": pa.string(),
            "at": INSTANT,
            "as_of": INSTANT,
            "run_id": pa.string(),
            "refresh_id": pa.int64(),
        },
        bookkeeping=("run_id", "refresh_id"),
    ),
    _table(
        "trait_history",
        "Computed traits as of the beginning of each day (UTC) that was backfilled.",
        {
            "history_date": pa.date32(),
            "as_of": INSTANT,
            "knowledge": pa.string(),
            "collection": pa.string(),
            "profile_id": pa.string(),
            "key": pa.string(),
            "value": JSON,
        },
        partition_by=("history_date",),
    ),
    _table(
        "audience_history",
        "Who was in which audience as of the beginning of each day (UTC) that was backfilled.",
        {
            "history_date": pa.date32(),
            "as_of": INSTANT,
            "knowledge": pa.string(),
            "audience": pa.string(),
            "collection": pa.string(),
            "profile_id": pa.string(),
        },
        partition_by=("history_date",),
    ),
    _table(
        "history_sizes",
        "How many profiles each day of the two histories has, also where that is none.",
        {
            "history_date": pa.date32(),
            "as_of": INSTANT,
            "knowledge": pa.string(),
            "kind": pa.string(),
            "key": pa.string(),
            "profiles": pa.int64(),
        },
    ),
    _table(
        "ledger",
        "What each destination confirmed: the last row of a connection and recipient holds.",
        {
            "destination": pa.string(),
            "connection": pa.string(),
            "key": pa.string(),
            "profile_id": pa.string(),
            "recipient": JSON,
            "value": JSON,
            "reason": pa.string(),
            "outcome": pa.string(),
            "detail": pa.string(),
            "message_id": pa.string(),
            "refresh_id": pa.int64(),
            "sync_id": pa.int64(),
            "confirmed_at": INSTANT,
            "mark": pa.int64(),
        },
        bookkeeping=("sync_id", "confirmed_at", "mark"),
    ),
]
TABLES: dict[str, Table] = {table.name: table for table in _ALL}
