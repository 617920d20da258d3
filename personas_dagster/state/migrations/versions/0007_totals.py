"""How much the graph holds after a load, so that the next one need not count it."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("identity_loads", sa.Column("totals", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("identity_loads", "totals")
