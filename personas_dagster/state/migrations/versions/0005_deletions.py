"""Deleted persons, and the identifiers that are suppressed since."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

Instant = sa.DateTime(timezone=True)
_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "deletions",
        sa.Column("deletion_id", _id, autoincrement=True, nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("started_at", Instant, nullable=False),
        sa.Column("finished_at", Instant, nullable=True),
        sa.Column("by", sa.Text(), nullable=False),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("counts", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("deletion_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "suppressions",
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("deletion_id", _id, nullable=False),
        sa.Column("at", Instant, nullable=False),
        sa.PrimaryKeyConstraint("sha256"),
    )
    op.create_table(
        "suppression_salt",
        sa.Column("salt", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("salt"),
    )


def downgrade() -> None:
    op.drop_table("suppression_salt")
    op.drop_table("suppressions")
    op.drop_table("deletions")
