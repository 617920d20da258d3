"""What waits, and what came last, is found without reading all that ever came."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(op.f("ix_loads_status"), "loads", ["status"], unique=False)
    op.create_index(op.f("ix_landing_files_load_id"), "landing_files", ["load_id"], unique=False)
    op.create_index(
        "ix_landing_files_of_source", "landing_files", ["source_id", "landed_at"], unique=False
    )


def downgrade() -> None:
    op.drop_index("ix_landing_files_of_source", table_name="landing_files")
    op.drop_index(op.f("ix_landing_files_load_id"), table_name="landing_files")
    op.drop_index(op.f("ix_loads_status"), table_name="loads")
