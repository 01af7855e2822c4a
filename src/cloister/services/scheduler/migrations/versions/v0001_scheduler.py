"""Deals, tasks, leases and what is kept of them."""

import sqlalchemy as sa
from alembic import op

revision = "scheduler_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "scheduler_challenges",
        sa.Column("digest", sa.String(66), primary_key=True),
        sa.Column("address", sa.String(42), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
    )
    op.create_index("ix_scheduler_challenges_expires_at", "scheduler_challenges", ["expires_at"])
    op.create_table(
        "scheduler_checkpoints",
        sa.Column("name", sa.String(120), primary_key=True),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.Column("block_time", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "scheduler_deals",
        sa.Column("deal_id", sa.String(66), primary_key=True),
        sa.Column("workerpool", sa.String(42), nullable=False),
        sa.Column("block_number", sa.BigInteger(), nullable=False),
        sa.Column("match_transaction", sa.String(66), nullable=False),
        sa.Column("received_at", sa.Float(), nullable=False),
        sa.Column("requester", sa.String(42), nullable=False),
        sa.Column("trust", sa.Integer(), nullable=False),
        sa.Column("start_time", sa.BigInteger(), nullable=False),
        sa.Column("category_seconds", sa.BigInteger(), nullable=False),
        sa.Column("contribution_deadline", sa.BigInteger(), nullable=False),
        sa.Column("final_deadline", sa.BigInteger(), nullable=False),
        sa.Column("bot_first", sa.BigInteger(), nullable=False),
        sa.Column("bot_size", sa.BigInteger(), nullable=False),
        sa.Column("next_index", sa.BigInteger(), nullable=False),
        sa.Column("app", sa.JSON(), nullable=False),
        sa.Column("dataset", sa.JSON(), nullable=True),
        sa.Column("dataset_order", sa.JSON(), nullable=True),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("callback", sa.String(42), nullable=False),
        sa.Column("doubtful", sa.Boolean(), nullable=False),
    )
    op.create_index("ix_scheduler_deals_block_number", "scheduler_deals", ["block_number"])
    op.create_table(
        "scheduler_leaders",
        sa.Column("name", sa.String(120), primary_key=True),
        sa.Column("holder", sa.String(32), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
    )
    op.create_table(
        "scheduler_tasks",
        sa.Column("task_id", sa.String(66), primary_key=True),
        sa.Column("deal_id", sa.String(66), sa.ForeignKey("scheduler_deals.deal_id"), nullable=False),
        sa.Column("deal_index", sa.BigInteger(), nullable=False),
        sa.Column("workerpool", sa.String(42), nullable=False),
        sa.Column("phase", sa.String(16), nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("trust", sa.Integer(), nullable=False),
        sa.Column("wanted", sa.Integer(), nullable=False),
        sa.Column("live", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", sa.Float(), nullable=False),
        sa.Column("turn", sa.Float(), nullable=False),
        sa.Column("initialized", sa.Boolean(), nullable=False),
        sa.Column("contribution_deadline", sa.BigInteger(), nullable=False),
        sa.Column("reveal_deadline", sa.BigInteger(), nullable=False),
        sa.Column("final_deadline", sa.BigInteger(), nullable=False),
        sa.Column("consensus_value", sa.String(66), nullable=True),
        sa.Column("reveal_count", sa.Integer(), nullable=False),
        sa.Column("winner_count", sa.Integer(), nullable=False),
        sa.Column("seen_block", sa.BigInteger(), nullable=False),
        sa.Column("chain_attempts", sa.Integer(), nullable=False),
        sa.Column("chain_not_before", sa.Float(), nullable=False),
    )
    op.create_index("ix_scheduler_tasks_deal_id", "scheduler_tasks", ["deal_id"])
    op.create_index("scheduler_tasks_phase", "scheduler_tasks", ["phase", "final_deadline"])
    op.create_index("scheduler_tasks_queue", "scheduler_tasks", ["workerpool", "phase", "turn"])
    op.create_table(
        "scheduler_history",
        sa.Column("id", sa.Integer(), primary_key=True, autoincrement=True),
        sa.Column("task_id", sa.String(66), sa.ForeignKey("scheduler_tasks.task_id"), nullable=False),
        sa.Column("lease_id", sa.String(32), nullable=True),
        sa.Column("status", sa.String(40), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.Column("cause", sa.String(200), nullable=True),
    )
    op.create_index("ix_scheduler_history_task_id", "scheduler_history", ["task_id"])
    op.create_table(
        "scheduler_leases",
        sa.Column("lease_id", sa.String(32), primary_key=True),
        sa.Column("task_id", sa.String(66), sa.ForeignKey("scheduler_tasks.task_id"), nullable=False),
        sa.Column("worker", sa.String(42), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("status", sa.String(40), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.Column("exit_code", sa.Integer(), nullable=True),
        sa.Column("result_hash", sa.String(66), nullable=True),
        sa.Column("weight", sa.Integer(), nullable=False),
        sa.Column("results", sa.Text(), nullable=True),
        sa.Column("results_callback", sa.Text(), nullable=True),
    )
    op.create_index("ix_scheduler_leases_task_id", "scheduler_leases", ["task_id"])
    op.create_index("ix_scheduler_leases_worker", "scheduler_leases", ["worker"])
    op.create_index("scheduler_leases_expiry", "scheduler_leases", ["state", "expires_at"])
    op.create_table(
        "scheduler_authorizations",
        sa.Column("lease_id", sa.String(32), sa.ForeignKey("scheduler_leases.lease_id"), primary_key=True),
        sa.Column("enclave_challenge", sa.String(42), primary_key=True),
        sa.Column("signature", sa.String(132), nullable=False),
        sa.Column("signed_at", sa.Float(), nullable=False),
    )
    op.create_table(
        "scheduler_logs",
        sa.Column("lease_id", sa.String(32), sa.ForeignKey("scheduler_leases.lease_id"), primary_key=True),
        sa.Column("task_id", sa.String(66), nullable=False),
        sa.Column("worker", sa.String(42), nullable=False),
        sa.Column("stdout", sa.Text(), nullable=False),
        sa.Column("stderr", sa.Text(), nullable=False),
    )
    op.create_index("ix_scheduler_logs_task_id", "scheduler_logs", ["task_id"])


def downgrade() -> None:
    op.drop_table("scheduler_logs")
    op.drop_table("scheduler_authorizations")
    op.drop_table("scheduler_leases")
    op.drop_table("scheduler_history")
    op.drop_table("scheduler_tasks")
    op.drop_table("scheduler_leaders")
    op.drop_table("scheduler_deals")
    op.drop_table("scheduler_checkpoints")
    op.drop_table("scheduler_challenges")
