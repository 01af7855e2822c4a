"""Results by authorization, and how many login challenges an address used up."""

import sqlalchemy as sa
from alembic import op

revision = "resultproxy_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "resultproxy_results",
        sa.Column("task_id", sa.String(66), primary_key=True),
        sa.Column("worker", sa.String(42), primary_key=True),
        sa.Column("enclave_challenge", sa.String(42), primary_key=True),
        sa.Column("digest", sa.String(66)),
        sa.Column("cid", sa.String(128), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("uploaded_at", sa.Float, nullable=False),
    )
    op.create_index("resultproxy_results_by_time", "resultproxy_results", ["task_id", "uploaded_at"])
    op.create_table(
        "resultproxy_logins",
        sa.Column("address", sa.String(42), primary_key=True),
        sa.Column("used", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("resultproxy_logins")
    op.drop_table("resultproxy_results")
