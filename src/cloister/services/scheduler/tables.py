"""The scheduler's tables. Ids and hashes are lower-case hex text, addresses EIP-55 text, times unix seconds."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

deals = Table(
    "scheduler_deals",
    metadata,
    Column("deal_id", String(66), primary_key=True),
    Column("workerpool", String(42), nullable=False),
    Column("block_number", BigInteger, nullable=False, index=True),
    Column("match_transaction", String(66), nullable=False),
    Column("received_at", Float, nullable=False),
    Column("requester", String(42), nullable=False),
    Column("trust", Integer, nullable=False),
    Column("start_time", BigInteger, nullable=False),
    Column("category_seconds", BigInteger, nullable=False),
    Column("contribution_deadline", BigInteger, nullable=False),
    Column("final_deadline", BigInteger, nullable=False),
    Column("bot_first", BigInteger, nullable=False),
    Column("bot_size", BigInteger, nullable=False),
    # Tasks are written a window at a time: a deal of a million free tasks must not fill the disk.
    Column("next_index", BigInteger, nullable=False),
    Column("app", JSON, nullable=False),
    Column("dataset", JSON),
    Column("dataset_order", JSON),
    Column("params", Text, nullable=False),
    Column("callback", String(42), nullable=False),
    # True while a chain that went back has not shown the deal again: nothing of it is leased meanwhile.
    Column("doubtful", Boolean, nullable=False, default=False),
)

tasks = Table(
    "scheduler_tasks",
    metadata,
    Column("task_id", String(66), primary_key=True),
    Column("deal_id", String(66), ForeignKey("scheduler_deals.deal_id"), nullable=False, index=True),
    Column("deal_index", BigInteger, nullable=False),
    Column("workerpool", String(42), nullable=False),
    Column("phase", String(16), nullable=False),
    Column("status", String(32), nullable=False),
    Column("trust", Integer, nullable=False),
    Column("wanted", Integer, nullable=False),  # how many live leases the task should have
    Column("live", Integer, nullable=False),  # how many it has
    Column("attempts", Integer, nullable=False),  # tries that failed or were lost
    Column("not_before", Float, nullable=False),  # back-off after a failed try
    # Place in the queue: when the deal came plus the task's rank in it, in seconds, so that a long deal lets others in.
    Column("turn", Float, nullable=False),
    Column("initialized", Boolean, nullable=False),
    Column("contribution_deadline", BigInteger, nullable=False),
    Column("reveal_deadline", BigInteger, nullable=False),
    Column("final_deadline", BigInteger, nullable=False),
    Column("consensus_value", String(66)),
    Column("reveal_count", Integer, nullable=False),
    Column("winner_count", Integer, nullable=False),
    Column("seen_block", BigInteger, nullable=False),  # the block the rows were last brought in line with
    Column("chain_attempts", Integer, nullable=False),  # failed transactions of ours; part of the next one's intent
    Column("chain_not_before", Float, nullable=False),
    Index("scheduler_tasks_queue", "workerpool", "phase", "turn"),
    Index("scheduler_tasks_phase", "phase", "final_deadline"),
)

leases = Table(
    "scheduler_leases",
    metadata,
    Column("lease_id", String(32), primary_key=True),
    Column("task_id", String(66), ForeignKey("scheduler_tasks.task_id"), nullable=False, index=True),
    Column("worker", String(42), nullable=False, index=True),
    Column("state", String(16), nullable=False),
    Column("status", String(40), nullable=False),
    Column("created_at", Float, nullable=False),
    Column("expires_at", Float, nullable=False),
    Column("exit_code", Integer),
    Column("result_hash", String(66)),  # of the contribution the chain shows
    Column("weight", Integer, nullable=False),
    Column("results", Text),
    Column("results_callback", Text),  # hex
    Index("scheduler_leases_expiry", "state", "expires_at"),
)

authorizations = Table(
    "scheduler_authorizations",
    metadata,
    Column("lease_id", String(32), ForeignKey("scheduler_leases.lease_id"), primary_key=True),
    Column("enclave_challenge", String(42), primary_key=True),
    Column("signature", String(132), nullable=False),
    Column("signed_at", Float, nullable=False),
)

history = Table(
    "scheduler_history",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("task_id", String(66), ForeignKey("scheduler_tasks.task_id"), nullable=False, index=True),
    Column("lease_id", String(32)),  # null: a line of the task itself
    Column("status", String(40), nullable=False),
    Column("at", Float, nullable=False),
    Column("cause", String(200)),
)

logs = Table(
    "scheduler_logs",
    metadata,
    Column("lease_id", String(32), ForeignKey("scheduler_leases.lease_id"), primary_key=True),
    Column("task_id", String(66), nullable=False, index=True),
    Column("worker", String(42), nullable=False),
    Column("stdout", Text, nullable=False),
    Column("stderr", Text, nullable=False),
)

progress = Table(
    "scheduler_progress",
    metadata,
    Column("entry", Integer, primary_key=True, autoincrement=True),
    Column("lease_id", String(32), ForeignKey("scheduler_leases.lease_id"), nullable=False, index=True),
    Column("task_id", String(66), nullable=False),
    Column("number", Integer, nullable=False),  # the enclave's own; a new enclave of the lease begins again at 1
    Column("at", Float, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Index("scheduler_progress_task", "task_id", "entry"),
)

challenges = Table(
    "scheduler_challenges",
    metadata,
    Column("digest", String(66), primary_key=True),
    Column("address", String(42), nullable=False),
    Column("expires_at", Float, nullable=False, index=True),
)

checkpoints = Table(
    "scheduler_checkpoints",
    metadata,
    Column("name", String(120), primary_key=True),
    Column("block_number", BigInteger, nullable=False),
    Column("block_time", BigInteger, nullable=False),
)

leaders = Table(
    "scheduler_leaders",
    metadata,
    Column("name", String(120), primary_key=True),
    Column("holder", String(32), nullable=False),
    Column("expires_at", Float, nullable=False),
)
