"""The first tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Instant = sa.DateTime(timezone=True)
_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("audit_id", _id, autoincrement=True, nullable=False),
        sa.Column("at", Instant, nullable=False),
        sa.Column("what", sa.String(length=40), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.String(length=20), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("counts", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("audit_id"),
    )
    op.create_table(
        "connections",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("first_refresh_id", _id, nullable=False),
        sa.Column("synced_refresh_id", _id, nullable=False),
        sa.Column("resync_from", _id, nullable=True),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "identity_loads",
        sa.Column("load_id", _id, autoincrement=True, nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("after_load", _id, nullable=False),
        sa.Column("through_load", _id, nullable=False),
        sa.Column("proposed_at", Instant, nullable=False),
        sa.Column("applied_at", Instant, nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("digests", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("load_id"),
    )
    op.create_table(
        "intents",
        sa.Column("intent_id", _id, autoincrement=True, nullable=False),
        sa.Column("sync_id", _id, nullable=False),
        sa.Column("destination", sa.String(length=200), nullable=False),
        sa.Column("connection", sa.String(length=200), nullable=False),
        sa.Column("rows", sa.JSON(), nullable=False),
        sa.Column("outcomes", sa.JSON(), nullable=True),
        sa.Column("written_at", Instant, nullable=False),
        sa.PrimaryKeyConstraint("intent_id"),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_intents_destination"), "intents", ["destination"], unique=False)
    op.create_table(
        "leases",
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("owner", sa.String(length=64), nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("process_started", sa.Float(), nullable=False),
        sa.Column("acquired_at", Instant, nullable=False),
        sa.Column("expires_at", Instant, nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "loads",
        sa.Column("load_id", _id, autoincrement=True, nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("started_at", Instant, nullable=False),
        sa.Column("finished_at", Instant, nullable=True),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("load_id"),
    )
    op.create_table(
        "refreshes",
        sa.Column("refresh_id", _id, autoincrement=True, nullable=False),
        sa.Column("run_id", sa.String(length=64), nullable=False),
        sa.Column("as_of", Instant, nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("started_at", Instant, nullable=False),
        sa.Column("finished_at", Instant, nullable=True),
        sa.Column("versions", sa.JSON(), nullable=True),
        sa.Column("counts", sa.JSON(), nullable=True),
        sa.Column("digests", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("refresh_id"),
        sa.UniqueConstraint("run_id"),
    )
    op.create_table(
        "registry",
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("definition", sa.JSON(), nullable=False),
        sa.Column("created_at", Instant, nullable=False),
        sa.Column("deleted_at", Instant, nullable=True),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "syncs",
        sa.Column("sync_id", _id, autoincrement=True, nullable=False),
        sa.Column("destination", sa.String(length=200), nullable=False),
        sa.Column("refresh_id", _id, nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("started_at", Instant, nullable=False),
        sa.Column("finished_at", Instant, nullable=True),
        sa.Column("counts", sa.JSON(), nullable=True),
        sa.Column("places", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("sync_id"),
    )
    op.create_index(op.f("ix_syncs_destination"), "syncs", ["destination"], unique=False)
    op.create_table(
        "landing_files",
        sa.Column("file_id", _id, autoincrement=True, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("format", sa.String(length=20), nullable=False),
        sa.Column("source_id", sa.String(length=200), nullable=False),
        sa.Column("bytes", sa.BigInteger(), nullable=False),
        sa.Column("landed_at", Instant, nullable=False),
        sa.Column("load_id", _id, nullable=True),
        sa.Column("damaged", sa.Text(), nullable=True),
        sa.Column("counts", sa.JSON(), nullable=True),
        sa.Column("received_dates", sa.JSON(), nullable=True),
        sa.ForeignKeyConstraint(
            ["load_id"],
            ["loads.load_id"],
        ),
        sa.PrimaryKeyConstraint("file_id"),
        sa.UniqueConstraint("sha256"),
    )


def downgrade() -> None:
    op.drop_table("landing_files")
    op.drop_index(op.f("ix_syncs_destination"), table_name="syncs")
    op.drop_table("syncs")
    op.drop_table("registry")
    op.drop_table("refreshes")
    op.drop_table("loads")
    op.drop_table("leases")
    op.drop_index(op.f("ix_intents_destination"), table_name="intents")
    op.drop_table("intents")
    op.drop_table("identity_loads")
    op.drop_table("connections")
    op.drop_table("audit")
