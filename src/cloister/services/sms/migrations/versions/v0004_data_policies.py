"""Standing policies of data owners, and the platforms on which replicated tasks were released."""

import sqlalchemy as sa
from alembic import op

revision = "sms_0004"
down_revision = "sms_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "sms_data_policies",
        sa.Column("dataset", sa.String(42), primary_key=True),
        sa.Column("owner", sa.String(42), primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("issued_at", sa.BigInteger, nullable=False),
        sa.Column("policy", sa.String(66), nullable=False),
        sa.Column("rules", sa.Text),
        sa.Column("signature", sa.LargeBinary, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "sms_platforms",
        sa.Column("task_id", sa.String(66), primary_key=True),
        sa.Column("scope", sa.String(16), primary_key=True),
        sa.Column("value", sa.String(64), primary_key=True),
        sa.Column("worker", sa.String(42), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
    )


def downgrade() -> None:
    op.drop_table("sms_platforms")
    op.drop_table("sms_data_policies")
