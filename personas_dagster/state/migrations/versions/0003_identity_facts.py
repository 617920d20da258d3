"""What people decided about identifiers, and the graph being derived anew."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

Instant = sa.DateTime(timezone=True)
_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "identity_facts",
        sa.Column("fact_id", _id, autoincrement=True, nullable=False),
        sa.Column("what", sa.String(length=20), nullable=False),
        sa.Column("collection", sa.String(length=20), nullable=False),
        sa.Column("type", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.Column("at", Instant, nullable=False),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("after_load", _id, nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("fact_id"),
    )
    op.create_table(
        "identity_rebuilds",
        sa.Column("rebuild_id", _id, autoincrement=True, nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("by_time", sa.Boolean(), nullable=False),
        sa.Column("rules", sa.JSON(), nullable=True),
        sa.Column("asked_at", Instant, nullable=False),
        sa.Column("done_at", Instant, nullable=True),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.Column("digests", sa.JSON(), nullable=True),
        sa.PrimaryKeyConstraint("rebuild_id"),
    )


def downgrade() -> None:
    op.drop_table("identity_rebuilds")
    op.drop_table("identity_facts")
