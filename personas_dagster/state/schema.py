"""The tables of the state database. A change here comes with a migration beside it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Dialect


class Instant(sa.TypeDecorator[dt.datetime]):
    """An instant in UTC, aware in Python whichever database keeps it."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: Dialect) -> Any:
        return None if value is None else value.astimezone(dt.UTC)

    def process_result_value(self, value: Any, dialect: Dialect) -> dt.datetime | None:
        if value is None:
            return None
        instant: dt.datetime = value
        if instant.tzinfo is None:
            return instant.replace(tzinfo=dt.UTC)
        return instant.astimezone(dt.UTC)


metadata = sa.MetaData()
_id = sa.BigInteger().with_variant(sa.Integer, "sqlite")

loads = sa.Table(
    "loads",
    metadata,
    sa.Column("load_id", _id, primary_key=True, autoincrement=True),
    sa.Column("status", sa.String(20), nullable=False, index=True),  # loading, loaded
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("finished_at", Instant),
    sa.Column("counts", sa.JSON, nullable=False),
)

landing_files = sa.Table(
    "landing_files",
    metadata,
    sa.Column("file_id", _id, primary_key=True, autoincrement=True),
    sa.Column("sha256", sa.String(64), nullable=False, unique=True),
    sa.Column("name", sa.Text, nullable=False),  # as the person knows it
    sa.Column("path", sa.Text, nullable=False),  # in the landing folder
    sa.Column("format", sa.String(20), nullable=False),
    sa.Column("source_id", sa.String(200), nullable=False),
    sa.Column("bytes", sa.BigInteger, nullable=False),
    sa.Column("landed_at", Instant, nullable=False),
    sa.Column("load_id", _id, sa.ForeignKey("loads.load_id"), index=True),
    sa.Column("damaged", sa.Text),
    sa.Column("counts", sa.JSON),
    sa.Column("received_dates", sa.JSON),
    sa.Index("ix_landing_files_of_source", "source_id", "landed_at"),
)

identity_loads = sa.Table(
    "identity_loads",
    metadata,
    sa.Column("load_id", _id, primary_key=True, autoincrement=True),
    # proposed, passed, refused, applying, applied, settled, superseded, replaced
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("after_load", _id, nullable=False),  # raw loads in (after_load, through_load]
    sa.Column("through_load", _id, nullable=False),
    sa.Column("proposed_at", Instant, nullable=False),
    sa.Column("applied_at", Instant),
    sa.Column("reason", sa.Text),
    sa.Column("counts", sa.JSON, nullable=False),
    sa.Column("digests", sa.JSON),
    sa.Column("totals", sa.JSON),
)

# What people decided about identifiers; rows are only added (identity/decisions.py).
identity_facts = sa.Table(
    "identity_facts",
    metadata,
    sa.Column("fact_id", _id, primary_key=True, autoincrement=True),
    sa.Column("what", sa.String(20), nullable=False),  # block, allow, detach, delete, pass
    sa.Column("collection", sa.String(20), nullable=False),
    sa.Column("type", sa.Text, nullable=False),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("at", Instant, nullable=False),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("after_load", _id, nullable=False),  # its place in the order of raw loads
    sa.Column("details", sa.JSON, nullable=False),
)

# The graph is to be derived anew: asked for, under way, or done (identity/rebuilding.py).
identity_rebuilds = sa.Table(
    "identity_rebuilds",
    metadata,
    sa.Column("rebuild_id", _id, primary_key=True, autoincrement=True),
    sa.Column("status", sa.String(20), nullable=False),  # due, writing, done
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("by_time", sa.Boolean, nullable=False),
    sa.Column("rules", sa.JSON),  # null: each load's own
    sa.Column("asked_at", Instant, nullable=False),
    sa.Column("done_at", Instant),
    sa.Column("counts", sa.JSON, nullable=False),
    sa.Column("digests", sa.JSON),
)

refreshes = sa.Table(
    "refreshes",
    metadata,
    sa.Column("refresh_id", _id, primary_key=True, autoincrement=True),
    sa.Column("run_id", sa.String(64), nullable=False, unique=True),
    sa.Column("as_of", Instant, nullable=False),
    sa.Column("status", sa.String(20), nullable=False),  # started, finished
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("finished_at", Instant),
    sa.Column("versions", sa.JSON),
    sa.Column("counts", sa.JSON),
    sa.Column("digests", sa.JSON),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("owner", sa.String(64), nullable=False),
    sa.Column("holder", sa.Text, nullable=False),  # what a person is told
    sa.Column("host", sa.String(255), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("process_started", sa.Float, nullable=False),
    sa.Column("acquired_at", Instant, nullable=False),
    sa.Column("expires_at", Instant, nullable=False),
)

registry = sa.Table(
    "registry",
    metadata,
    sa.Column("key", sa.String(200), primary_key=True),
    sa.Column("kind", sa.String(20), nullable=False),
    sa.Column("definition", sa.JSON, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("deleted_at", Instant),
)

connections = sa.Table(
    "connections",
    metadata,
    sa.Column("name", sa.String(200), primary_key=True),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("first_refresh_id", _id, nullable=False),
    sa.Column("synced_refresh_id", _id, nullable=False),
    sa.Column("resync_from", _id),  # rows of syncs before this one are sent again
)

intents = sa.Table(
    "intents",
    metadata,
    sa.Column("intent_id", _id, primary_key=True, autoincrement=True),
    sa.Column("sync_id", _id, nullable=False),
    sa.Column("destination", sa.String(200), nullable=False, index=True),
    sa.Column("connection", sa.String(200), nullable=False),
    sa.Column("rows", sa.JSON, nullable=False),
    sa.Column("outcomes", sa.JSON),  # one per row, as soon as the tool answered
    sa.Column("written_at", Instant, nullable=False),
    sqlite_autoincrement=True,  # ids are never used again: the lake remembers the last one
)

receipts = sa.Table(
    "receipts",
    metadata,
    sa.Column("receipt_id", _id, primary_key=True, autoincrement=True),
    sa.Column("destination", sa.String(200), nullable=False, index=True),
    sa.Column("connection", sa.String(200), nullable=False),
    sa.Column("receipt", sa.Text, nullable=False),  # what the tool calls what it took
    sa.Column("taken_at", Instant, nullable=False),
    sa.Column("ask_from", Instant, nullable=False),  # not before, what became of it
)

syncs = sa.Table(
    "syncs",
    metadata,
    sa.Column("sync_id", _id, primary_key=True, autoincrement=True),
    sa.Column("destination", sa.String(200), nullable=False, index=True),
    sa.Column("refresh_id", _id, nullable=False),
    sa.Column("status", sa.String(20), nullable=False),  # started, finished, failed
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("finished_at", Instant),
    sa.Column("counts", sa.JSON),
    sa.Column("places", sa.JSON),  # requests of the last window; see activation/pace.py
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("audit_id", _id, primary_key=True, autoincrement=True),
    sa.Column("at", Instant, nullable=False),
    sa.Column("what", sa.String(40), nullable=False),  # refresh, sync, ...
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("outcome", sa.String(20), nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("counts", sa.JSON),
)

tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("token_id", sa.String(16), primary_key=True),
    sa.Column("space", sa.String(100), nullable=False),
    sa.Column("name", sa.String(200), nullable=False),
    sa.Column("sha256", sa.String(64), nullable=False),  # of the secret, which is not kept
    sa.Column("roles", sa.JSON, nullable=False),
    sa.Column("has_pii", sa.Boolean, nullable=False),
    sa.Column("created_at", Instant, nullable=False),
    sa.Column("revoked_at", Instant),
)

# What stands for a person who was deleted; `payload` names them until everything is done.
deletions = sa.Table(
    "deletions",
    metadata,
    sa.Column("deletion_id", _id, primary_key=True, autoincrement=True),
    sa.Column("status", sa.String(20), nullable=False),  # started, finished
    sa.Column("started_at", Instant, nullable=False),
    sa.Column("finished_at", Instant),
    sa.Column("by", sa.Text, nullable=False),
    sa.Column("payload", sa.JSON, nullable=False),
    sa.Column("counts", sa.JSON, nullable=False),
    sqlite_autoincrement=True,
)

# Identifiers whose messages are not stored any more (identity/suppression.py).
suppressions = sa.Table(
    "suppressions",
    metadata,
    sa.Column("sha256", sa.String(64), primary_key=True),  # salted
    sa.Column("deletion_id", _id, nullable=False),
    sa.Column("at", Instant, nullable=False),
)

suppression_salt = sa.Table(
    "suppression_salt",
    metadata,
    sa.Column("salt", sa.String(64), primary_key=True),
)
