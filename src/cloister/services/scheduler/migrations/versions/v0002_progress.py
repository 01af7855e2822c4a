"""Updates of an app's progress, the newest of each lease."""

import sqlalchemy as sa
from alembic import op

revision = "scheduler_0002"
down_revision = "scheduler_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scheduler_progress",
        sa.Column("entry", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("lease_id", sa.String(32), sa.ForeignKey("scheduler_leases.lease_id"), nullable=False),
        sa.Column("task_id", sa.String(66), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
    )
    op.create_index("ix_scheduler_progress_lease_id", "scheduler_progress", ["lease_id"])
    op.create_index("scheduler_progress_task", "scheduler_progress", ["task_id", "entry"])


def downgrade() -> None:
    op.drop_table("scheduler_progress")
