"""What tools took and work off later."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

Instant = sa.DateTime(timezone=True)
_id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "receipts",
        sa.Column("receipt_id", _id, autoincrement=True, nullable=False),
        sa.Column("destination", sa.String(length=200), nullable=False),
        sa.Column("connection", sa.String(length=200), nullable=False),
        sa.Column("receipt", sa.Text(), nullable=False),
        sa.Column("taken_at", Instant, nullable=False),
        sa.Column("ask_from", Instant, nullable=False),
        sa.PrimaryKeyConstraint("receipt_id"),
    )
    op.create_index(op.f("ix_receipts_destination"), "receipts", ["destination"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_receipts_destination"), table_name="receipts")
    op.drop_table("receipts")
